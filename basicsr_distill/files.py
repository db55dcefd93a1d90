"""Files that are whole or absent: atomic writes, hashes, paths that stay inside their folder."""

import fcntl
import hashlib
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from basicsr_distill.errors import InputError

# A temporary file carries this suffix; whatever run finds one owns no live writer (folders are locked) and may delete it.
TEMP_SUFFIX = '.part'
LOCK_NAME = '.lock'
_held: set[Path] = set()


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on success flush it to disk and rename it, on failure remove it."""
    temp = path.with_name(f'{path.name}{TEMP_SUFFIX}')
    try:
        yield temp
        with temp.open('rb') as file:
            os.fsync(file.fileno())
        os.replace(temp, path)
    except BaseException:
        temp.unlink(missing_ok=True)
        raise


def write_atomic(path: Path, data: bytes | str) -> None:
    """Write ``data`` (text as UTF-8 with ``\\n`` line ends) so that a reader sees the old file or the new, never half."""
    with replacing(path) as temp:
        temp.write_bytes(data.encode() if isinstance(data, str) else data)


def remove_temporaries(folder: Path) -> None:
    """Delete what an interrupted writer left below ``folder``."""
    for temp in folder.rglob(f'*{TEMP_SUFFIX}'):
        temp.unlink()


@contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Make ``folder`` and hold its lock, which the kernel releases with the process: a stale lock file never blocks.

    The process that holds it may enter again.

    Raises:
        InputError: the folder cannot be made or written, or another run holds it (the message names that run).
    """
    path = folder / LOCK_NAME
    key = path.absolute()
    if key in _held:  # a stage that runs the training loop in its own folder
        yield
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise InputError(f'{folder}: cannot be written ({error.strerror}); choose another output folder.') from error
    with os.fdopen(descriptor, 'r+') as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f'{folder}: in use by {file.read().strip() or "another run"}; wait for it or choose another '
                             'output folder.') from None
        file.truncate()
        file.write(f'process {os.getpid()} on {socket.gethostname()}')
        file.flush()
        _held.add(key)
        try:
            yield
        finally:
            _held.discard(key)
            path.unlink(missing_ok=True)


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's bytes, hexadecimal."""
    digest = hashlib.sha256()
    with path.open('rb') as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def safe_join(root: Path, relative: str, listed_in: Path) -> Path:
    """Join a name read from a table to its folder.

    Raises:
        InputError: ``relative`` is absolute or climbs out of ``root`` (``listed_in`` names the table it came from).
    """
    if os.path.isabs(relative) or '..' in Path(relative).parts:
        raise InputError(f'{listed_in}: {relative!r} points outside {root}; names must stay inside the folder.')
    return root / relative
