"""Files that are whole or absent: atomic writes, hashes, paths that stay inside their folder."""

import fcntl
import hashlib
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from basicsr_distill.errors import InputError

# A temporary file carries this suffix; whatever run finds one owns no live writer (folders are locked) and may delete it.
TEMP_SUFFIX = '.part'
LOCK_NAME = '.lock'

_held_locks: set[TextIO] = set()


def _let_go_in_child() -> None:
    # A lock belongs to its open file, which fork() shares: a data worker that outlives its killed run by a moment would
    # keep the next run out. Closing the child's copy leaves the parent's lock in force.
    for file in _held_locks:
        file.close()
    _held_locks.clear()


os.register_at_fork(after_in_child=_let_go_in_child)


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
def locked(path: Path, guarded: Path) -> Iterator[None]:
    """Hold the lock file ``path``, which the kernel releases with the process: a stale lock file never blocks.

    Args:
        path: of the lock; its folder is made.
        guarded: what it protects, for messages.

    Raises:
        InputError: the folder cannot be made or written, or another run holds the lock (the message names that run).
    """
    with _open_lock(path, guarded) as file:
        file.seek(0)
        file.truncate()
        file.write(f'process {os.getpid()} on {socket.gethostname()}')
        file.flush()
        _held_locks.add(file)
        try:
            yield
        finally:
            _held_locks.discard(file)
            path.unlink(missing_ok=True)


def _open_lock(path: Path, guarded: Path) -> TextIO:
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o644), 'r+')
        except OSError as error:
            raise InputError(f'{guarded}: cannot be written ({error.strerror}); choose another output folder.') from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = file.read().strip() or 'another run'
            file.close()
            raise InputError(f'{guarded}: in use by {owner}; wait for it or choose another output folder.') from None
        # The owner before us may have removed the file between our opening and locking it: then we hold nothing.
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        file.close()


@contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Make ``folder`` and hold the lock inside it.

    Raises:
        InputError: as :func:`locked`.
    """
    with locked(folder / LOCK_NAME, folder):
        yield


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
