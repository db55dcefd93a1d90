"""``python -m basicsr_distill.host.build``: BasicSR 1.4.2, from its sources on PyPI, into this environment.

BasicSR is published as source only. Its setup.py fails on Python 3.13 and newer with ``KeyError: '__version__'``, and
``pip install basicsr`` downloads torch a second time, for a build that does not use it. This command does neither, and
works before anything but pip is installed.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from basicsr_distill.host.hooks import HOST, HOST_VERSION

REQUIREMENT = f'{HOST}=={HOST_VERSION}'
# Python imports a module named sitecustomize at its start. In BasicSR's setup.py, get_version() executes version.py and
# returns locals()['__version__']; from Python 3.13 on (PEP 667) exec() without namespaces writes to a copy of a
# function's locals. Handed the mapping of the frame itself, it writes where locals() looks. Only get_version() is given
# that.
SITECUSTOMIZE = """
import builtins
import sys

IS_FUNCTION = 1  # inspect.CO_OPTIMIZED; modules and classes have one namespace only
exec_of_today = builtins.exec


def exec_seen_by_get_version(source, globals=None, locals=None, /, **options):
    if globals is None:
        caller = sys._getframe(1)
        globals = caller.f_globals
        if locals is None:
            locals = caller.f_locals
            if caller.f_code.co_flags & IS_FUNCTION and caller.f_code.co_name != 'get_version':
                locals = dict(locals)
    return exec_of_today(source, globals, locals, **options)


builtins.exec = exec_seen_by_get_version
"""


def build_wheel(folder: Path, pip_options: Sequence[str] = (), source: str = REQUIREMENT) -> Path:
    """Build a wheel with the pip, setuptools and wheel of this environment.

    Args:
        folder: an empty folder for the wheel.
        pip_options: further options of ``pip wheel``.
        source: a requirement, or a folder with a setup.py.

    Raises:
        subprocess.CalledProcessError: pip failed; its messages are on stderr.
    """
    with tempfile.TemporaryDirectory() as shim:
        (Path(shim) / 'sitecustomize.py').write_text(SITECUSTOMIZE)
        path = os.pathsep.join(filter(None, (shim, os.environ.get('PYTHONPATH'))))
        _pip(
            'wheel',
            '--no-build-isolation',
            '--use-pep517',
            '--no-deps',
            '--wheel-dir',
            str(folder),
            *pip_options,
            source,
            PYTHONPATH=path,
        )
    return next(folder.glob('*.whl'))


def main(pip_options: Sequence[str]) -> int:
    """Build BasicSR and install it, with the packages that it needs.

    Args:
        pip_options: further options of pip, such as ``-q`` or ``-c FILE``.

    Returns:
        0, or the exit code of the pip command that failed.
    """
    try:
        with tempfile.TemporaryDirectory() as folder:
            _pip('install', *pip_options, 'setuptools>=68', 'wheel')
            _pip('install', *pip_options, str(build_wheel(Path(folder), pip_options)))
    except subprocess.CalledProcessError as error:
        return error.returncode
    return 0


def _pip(*arguments: str, **environment: str) -> None:
    subprocess.run([sys.executable, '-m', 'pip', *arguments], check=True, env={**os.environ, **environment})


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
