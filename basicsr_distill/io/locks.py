"""Locks that keep two runs out of one folder.

The lock lies beside the folder, so that the folder may be moved aside or emptied under it; only where nothing can be
written beside it (the folder is a mount of its own, or another user's folder holds it) does it lie inside. filelock
takes it: the kernel releases it with the process, a stale file blocks nobody, and a forked data worker, which may
outlive a killed run by a moment, does not keep it. Where a file system has no such locks (NFS without its lock daemon,
Lustre mounted without ``flock``: ENOLCK, ENOSYS, EOPNOTSUPP) a marker file stands in, with a warning: filelock takes it
over when its process on this machine is gone, but cannot know of one on another machine.
"""

import errno
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

from basicsr_distill.errors import InputError

LOCK_NAME = '.lock'
# What a lock inside a folder leaves there; the first also earlier versions did.
LOCK_FILES = frozenset({LOCK_NAME, '.stage.lock', '.stage.owner', '.stage.marker'})

_LOGGER = logging.getLogger(__name__)
_NO_KERNEL_LOCKS = frozenset(
    {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, getattr(errno, 'ENOTSUP', errno.EOPNOTSUPP)}
)


def lock_beside(folder: Path, purpose: str = '') -> Path:
    """Where the lock of ``folder`` lies: ``.NAME.lock`` beside what the folder really is, whatever link leads there.

    Args:
        folder: it need not exist.
        purpose: distinguishes two locks of one folder, one of which is taken under the other.
    """
    real = Path(os.path.realpath(folder))
    nearest = next(parent for parent in real.parents if parent.exists())
    if real.is_dir() and not os.access(nearest, os.W_OK | os.X_OK):
        return real / f'{purpose and "."}{purpose}{LOCK_NAME}'
    return real.with_name(f'.{real.name}{purpose and "."}{purpose}{LOCK_NAME}')


@contextmanager
def locked(path: Path, guarded: Path, wait: bool = False) -> Iterator[None]:
    """Hold the lock file ``path``; a second attempt is refused, from this process too, unless it is to wait.

    Args:
        path: of the lock; its folder is made.
        guarded: what it protects, for messages.
        wait: until whoever holds it is done.

    Raises:
        InputError: the folder cannot be made or written, or another run holds the lock (the message names that run).
    """
    # The owner's name has a file of its own: what is locked cannot be read on Windows.
    owner = path.with_suffix('.owner')
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = _acquire(path, guarded, -1 if wait else 0)
    except Timeout:
        raise InputError(
            f'{guarded}: in use by {_named(owner)}; wait for it or choose another output folder.'
        ) from None
    except OSError as error:
        raise _not_writable(guarded, error) from error
    try:
        try:
            owner.write_text(f'process {os.getpid()} on {socket.gethostname()}', encoding='utf-8')
        except OSError as error:
            raise _not_writable(guarded, error) from error
        yield
    finally:
        # While the lock is held: who has opened its file meanwhile finds it without a name, and tries again.
        for file in (owner, path):
            if str(file) != lock.lock_file or not isinstance(lock, SoftFileLock):
                with suppress(OSError):  # Windows does not remove an open file
                    file.unlink()
        lock.release()


def _not_writable(guarded: Path, error: OSError) -> InputError:
    return InputError(f'{guarded}: cannot be written ({error.strerror}); choose another output folder.')


def _acquire(path: Path, guarded: Path, timeout_s: float) -> BaseFileLock:
    """Take the lock, or raise Timeout after so many seconds; -1 waits for ever."""
    lock: BaseFileLock = FileLock(path, timeout=timeout_s, fallback_to_soft=False)
    try:
        lock.acquire()
    except OSError as error:
        if error.errno not in _NO_KERNEL_LOCKS:
            raise
        _LOGGER.warning(
            '%s: its file system has no locks (%s); a marker file stands in. Should a killed run on another '
            'machine leave it behind, remove %s by hand.',
            guarded,
            error.strerror,
            _marker(path),
        )
        lock = SoftFileLock(_marker(path), timeout=timeout_s)
        try:
            lock.acquire()
        except Timeout:
            # filelock 4.1, the last for Python 3.10, spends the first attempt on removing a dead run's marker.
            lock.acquire()
    return lock


def _marker(path: Path) -> Path:
    # Not the lock file itself, whose mere presence means nothing.
    return path.with_suffix('.marker')


def _named(owner: Path) -> str:
    try:
        return owner.read_text(encoding='utf-8').strip() or 'another run'
    except OSError:
        return 'another run'


@contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Make ``folder`` and hold its lock.

    Raises:
        InputError: as :func:`locked`.
    """
    with locked(lock_beside(folder, 'stage'), folder):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _not_writable(folder, error) from error
        if not os.access(folder, os.W_OK | os.X_OK):
            raise _not_writable(folder, OSError(errno.EACCES, os.strerror(errno.EACCES)))
        yield
