"""BasicSR's wheel is built where its setup.py fails by itself."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from basicsr_distill.host import build

# What BasicSR's setup.py does with its version, and another function that executes something.
SETUP = """
from setuptools import setup

version_file = 'fake/version.py'


def get_version():
    with open(version_file, 'r') as f:
        exec(compile(f.read(), version_file, 'exec'))
    return locals()['__version__']


def other():
    value = 'kept'
    exec('value = "changed"; added = 1')
    return value


class Klass:
    exec('attribute = 1')


exec('constant = 2')
setup(name='fake', version=get_version(), packages=['fake'], description=f'{other()} {Klass.attribute} {constant}')
"""


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    folder = tmp_path / 'sources'
    (folder / 'fake').mkdir(parents=True)
    (folder / 'setup.py').write_text(SETUP)
    (folder / 'fake' / '__init__.py').write_text('')
    (folder / 'fake' / 'version.py').write_text("__version__ = '1.4.2'\nversion_info = (1, 4, 2)\n")
    return folder


def test_a_setup_py_like_basicsr_own_is_built(sources: Path, tmp_path: Path) -> None:
    (tmp_path / 'wheel').mkdir()
    wheel = build.build_wheel(tmp_path / 'wheel', ['-qq', '--no-index'], str(sources))
    assert wheel.name == 'fake-1.4.2-py3-none-any.whl'
    metadata = zipfile.ZipFile(wheel).read('fake-1.4.2.dist-info/METADATA').decode()
    assert 'Version: 1.4.2\n' in metadata
    assert 'Summary: kept 1 2\n' in metadata  # what else executes something is not disturbed


def test_without_the_repair_it_fails_from_python_3_13_on(sources: Path) -> None:
    result = subprocess.run([sys.executable, 'setup.py', '--version'], cwd=sources, capture_output=True, text=True)
    assert ("KeyError: '__version__'" in result.stderr) == (sys.version_info >= (3, 13))


def test_a_failure_is_in_the_words_and_the_exit_code_of_pip() -> None:
    result = subprocess.run(
        [sys.executable, '-W', 'error', '-m', build.__name__, '--no-such-option'], capture_output=True, text=True
    )
    assert result.returncode == 2 and 'no such option: --no-such-option' in result.stderr
    assert 'Warning' not in result.stderr and 'Traceback' not in result.stderr
