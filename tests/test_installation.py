"""The scripts' environment: which Python is taken, which releases are installed, when it is made again."""

import os
import re
import runpy
import shutil
import subprocess
from importlib.metadata import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from support import REPOSITORY

FILES = sorted((REPOSITORY / 'scripts' / 'constraints').glob('*.txt'))
README = (REPOSITORY / 'README.md').read_text(encoding='utf-8')


def python_of(path: Path) -> str:
    """py313.txt -> 3.13."""
    return re.sub(r'py3(\d+)', r'3.\1', path.stem)


def pins(path: Path) -> dict[str, str]:
    lines = path.read_text().splitlines()[1:]
    assert lines and all(re.fullmatch(r'[a-z0-9._-]+==[\w.!]+', line) for line in lines)
    return {name.replace('_', '-'): version for name, version in (line.split('==') for line in lines)}


def test_each_tested_python_has_its_list() -> None:
    assert [python_of(path) for path in FILES] == ['3.10', '3.11', '3.12', '3.13']
    named = metadata('basicsr-distill').get_all('Classifier')
    assert {f'Programming Language :: Python :: {python_of(path)}' for path in FILES} < set(named)


@pytest.mark.parametrize('path', FILES, ids=python_of)
def test_every_requirement_is_pinned_to_a_release_it_admits(path: Path) -> None:
    pinned = pins(path)
    for extra in ('', 'test', 'lora', 'onnx', 'slurm', 'hf', 'deflate'):
        environment = {'python_version': python_of(path), 'extra': extra}
        for line in metadata('basicsr-distill').get_all('Requires-Dist'):
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate(environment):
                name = requirement.name.lower().replace('_', '-')
                assert requirement.specifier.contains(pinned[name], prereleases=True), line
    assert pinned['basicsr'] == '1.4.2'
    assert {'pip', 'setuptools', 'wheel', 'torch', 'torchvision', 'numpy'} < set(pinned)


@pytest.mark.parametrize('path', FILES, ids=python_of)
def test_lists_hold_on_every_platform(path: Path) -> None:
    assert not [name for name in pins(path) if name.startswith(('nvidia', 'cuda', 'triton'))]


def test_the_readme_tells_the_date_of_the_lists() -> None:
    dates = [re.search(r' on (\d{4}-\d\d-\d\d)\.$', path.read_text().splitlines()[0])[1] for path in FILES]
    assert f'tested on {max(dates)}' in README


def test_what_the_readme_offers_to_install_exists() -> None:
    line = next(line for line in README.splitlines() if line.startswith('pip install .'))
    extras = re.findall(r"'\.\[(\w+)\]'", line)
    assert extras and set(extras) | {'test'} == set(metadata('basicsr-distill').get_all('Provides-Extra'))
    assert all((REPOSITORY / name).is_file() for name in re.findall(r'-c (scripts/\S+?)`', README))


def test_what_is_installed_becomes_a_list() -> None:
    constraints = runpy.run_path(str(REPOSITORY / 'scripts' / 'make_constraints.py'))['constraints']
    packages = {
        'torch': '2.14.1+cpu',
        'PyYAML': '6.0.4',
        'nvidia-cublas': '13.4',
        'triton': '3.9.0',
        'cuda-toolkit': '13',
    }
    text = constraints([{'name': name, 'version': version} for name, version in packages.items()], '2020-01-02')
    assert text.splitlines()[0].endswith('on 2020-01-02.')
    assert text.splitlines()[1:] == ['pyyaml==6.0.4', 'torch==2.14.1']


class Environment:
    """A copy of the scripts beside an interpreter that only writes down what it is asked."""

    def __init__(self, folder: Path):
        self.folder, self.log, self.venv = folder, folder / 'log', folder / '.venv'
        (folder / 'scripts').mkdir()
        shutil.copy(REPOSITORY / 'scripts' / 'environment.sh', folder / 'scripts')
        (folder / 'scripts' / 'constraints').mkdir()
        (folder / 'scripts' / 'constraints' / 'py313.txt').write_text('torch==2.14.1\n')
        (folder / 'setup.py').write_text('first')

    def python(self, path: Path, version: str) -> Path:
        """An interpreter; its venv module copies it."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"""#!/bin/sh
case "$*" in
  *version_info*) echo py{version.replace('.', '')}; exit ;;
  --version) echo Python {version}.0; exit ;;
  "-m venv "*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
esac
echo "$*" >> {self.log}
""")
        path.chmod(0o755)
        return path

    def source(self, **variables: str) -> subprocess.CompletedProcess[str]:
        environment = {name: value for name, value in os.environ.items() if name not in ('VENV', 'PYTHON', 'NEWEST')}
        self.log.write_text('')
        return subprocess.run(
            ['bash', '-c', 'set -euo pipefail; source scripts/environment.sh; command -v python'],
            cwd=self.folder,
            env={**environment, **variables},
            capture_output=True,
            text=True,
        )

    def asked(self) -> list[str]:
        return self.log.read_text().splitlines()


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    return Environment(tmp_path)


def test_tested_releases_are_installed_once(environment: Environment, tmp_path: Path) -> None:
    python = str(environment.python(tmp_path / 'python', '3.13'))
    result = environment.source(PYTHON=python)
    assert result.returncode == 0 and result.stdout.splitlines()[-1] == str(environment.venv / 'bin' / 'python')
    options = '-qq -c scripts/constraints/py313.txt'
    assert environment.asked() == [
        f'-m venv {environment.venv}',
        f'-m pip install {options} --upgrade pip setuptools wheel',
        f'-m basicsr_distill.host.build {options}',
        f'-m pip install {options} --no-build-isolation -e .[test]',
        '-c import basicsr_distill, basicsr',
    ]
    assert environment.source(PYTHON=python).returncode == 0 and environment.asked() == []


@pytest.mark.parametrize('name', ['setup.py', 'scripts/constraints/py313.txt'])
def test_a_change_of_what_is_asked_for_installs_again(environment: Environment, tmp_path: Path, name: str) -> None:
    python = str(environment.python(tmp_path / 'python', '3.13'))
    environment.source(PYTHON=python)
    (tmp_path / name).write_text('changed')
    environment.source()
    assert len(environment.asked()) == 4


def test_newest_leaves_the_list_out_and_installs_again(environment: Environment, tmp_path: Path) -> None:
    python = str(environment.python(tmp_path / 'python', '3.13'))
    environment.source(PYTHON=python)
    environment.source(NEWEST='1')
    assert len(environment.asked()) == 4 and '-m basicsr_distill.host.build -qq -c /dev/null' in environment.asked()
    environment.source(NEWEST='1')
    assert environment.asked() == []


def test_a_python_without_a_list_gets_the_newest(environment: Environment, tmp_path: Path) -> None:
    assert environment.source(PYTHON=str(environment.python(tmp_path / 'python', '3.14'))).returncode == 0
    assert '-m basicsr_distill.host.build -qq -c /dev/null' in environment.asked()


def test_an_interrupted_installation_starts_over(environment: Environment, tmp_path: Path) -> None:
    python = environment.python(tmp_path / 'python', '3.13')
    whole = python.read_text()
    python.write_text(whole.replace('case "$*" in', 'case "$*" in\n  *test?) exit 1 ;;'))
    result = environment.source(PYTHON=str(python))
    assert result.returncode == 1 and 'The installation failed' in result.stderr
    environment.python(environment.venv / 'bin' / 'python', '3.13')
    assert environment.source().returncode == 0 and len(environment.asked()) == 4


def test_an_old_python_is_refused_in_a_sentence(environment: Environment, tmp_path: Path) -> None:
    result = environment.source(PYTHON=str(environment.python(tmp_path / 'python', '3.9')))
    assert result.returncode == 1 and environment.asked() == []
    assert result.stderr == 'Python 3.10 to 3.14 is needed, not Python 3.9.0: set PYTHON=python3.12.\n'


def test_an_environment_of_another_python_is_not_taken_for_the_one_asked_for(
    environment: Environment, tmp_path: Path
) -> None:
    environment.python(environment.venv / 'bin' / 'python', '3.12')
    result = environment.source(PYTHON=str(environment.python(tmp_path / 'python', '3.13')))
    assert result.returncode == 1 and environment.asked() == []
    assert result.stderr == (
        f'{environment.venv} was made with Python 3.12.0: remove it, or set VENV to another folder.\n'
    )
