"""Write scripts/constraints/pyXY.txt for the Python that runs this: today's newest releases, if the tests pass.

    python3.13 scripts/make_constraints.py

Makes a virtual environment of its own (6 GB, removed afterwards), installs everything that setup.py names without
constraints, lists what is installed, and runs scripts/test.sh there. The date goes into the file and into the README.
"""

import datetime
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
# The extras of setup.py that do not come with 'test' but can be installed beside it.
EXTRAS = 'hf'
# torch names the releases of these itself, and they differ from one platform to another.
_LEFT_TO_TORCH = re.compile(r'nvidia-|cuda-|triton')


def main() -> None:
    """Install, list, test; a failure leaves the files as they were."""
    today = datetime.date.today().isoformat()
    path = ROOT / 'scripts' / 'constraints' / 'py{}{}.txt'.format(*sys.version_info)
    readme = ROOT / 'README.md'
    before = {file: file.read_text(encoding='utf-8') for file in (path, readme) if file.exists()}
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, 'NEWEST': '1', 'VENV': folder, 'PYTHON': sys.executable}
        _run('bash', '-c', 'source scripts/environment.sh', env=environment)
        pip = [f'{folder}/bin/python', '-m', 'pip']
        _run(*pip, 'install', '--no-build-isolation', '-qq', '-e', f'.[{EXTRAS}]')
        listed = _run(*pip, 'list', '--format=json', '--exclude-editable', stdout=subprocess.PIPE).stdout
        try:
            path.write_text(constraints(json.loads(listed), today), encoding='utf-8')
            readme.write_text(
                re.sub(r'(tested on )\d{4}-\d\d-\d\d', rf'\g<1>{today}', before[readme]), encoding='utf-8'
            )
            _run('bash', 'scripts/test.sh', env=environment)
        except BaseException:
            path.unlink()
            for file, text in before.items():
                file.write_text(text, encoding='utf-8')
            raise
    print(path)


def _run(*command: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(command, cwd=ROOT, check=True, **options)


def constraints(packages: list[dict[str, str]], date: str) -> str:
    """The text of a constraints file.

    Args:
        packages: name and version of what is installed, as ``pip list --format=json`` has them.
        date: of the test, YYYY-MM-DD.
    """
    # A local version such as 2.14.1+cpu is found on one index only.
    pins = sorted(
        (package['name'].lower(), package['version'].split('+')[0])
        for package in packages
        if not _LEFT_TO_TORCH.match(package['name'])
    )
    return ''.join(
        [
            f'# Made by scripts/make_constraints.py: all tests passed with these on {date}.\n',
            *(f'{name}=={version}\n' for name, version in pins),
        ]
    )


if __name__ == '__main__':
    main()
