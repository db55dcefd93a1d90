"""Two runs do not meet in one folder, on whatever system and file system."""

import errno
import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
from pathlib import Path

import pytest

from basicsr_distill.errors import InputError
from basicsr_distill.io.locks import lock_beside, locked, locked_folder


def _hold(folder: Path, ready: 'multiprocessing.synchronize.Event') -> None:
    with locked_folder(folder):
        ready.set()
        signal.pause()


def test_a_second_run_is_refused_by_name_and_a_dead_one_leaves_no_lock(tmp_path: Path) -> None:
    context = multiprocessing.get_context('fork')
    ready = context.Event()
    owner = context.Process(target=_hold, args=(tmp_path / 'out', ready))
    owner.start()
    assert ready.wait(10)
    for _ in range(2):  # being refused does not take the name away
        with pytest.raises(InputError, match=f'in use by process {owner.pid} on '), locked_folder(tmp_path / 'out'):
            pass
    owner.kill()
    owner.join()
    assert (tmp_path / '.out.stage.lock').exists()
    with locked_folder(tmp_path / 'out'):
        assert (tmp_path / '.out.stage.owner').read_text().startswith(f'process {os.getpid()} on ')
        assert list((tmp_path / 'out').iterdir()) == []
    assert [path.name for path in tmp_path.iterdir()] == ['out']


def test_one_process_does_not_take_a_lock_twice(tmp_path: Path) -> None:
    with locked_folder(tmp_path / 'out'):
        with pytest.raises(InputError, match=f'in use by process {os.getpid()} on '), locked_folder(tmp_path / 'out'):
            pass
        (tmp_path / 'link').symlink_to('out')
        with pytest.raises(InputError, match='link: in use by'), locked_folder(tmp_path / 'link'):
            pass
        with locked(lock_beside(tmp_path / 'out'), tmp_path / 'out'):  # a lock of another purpose
            pass
    with locked_folder(tmp_path / 'out'):
        pass


def _hold_with_a_worker(folder: Path, pids: 'multiprocessing.queues.SimpleQueue[int]') -> None:
    with locked_folder(folder):
        worker = os.fork()
        if not worker:
            signal.pause()
        pids.put(worker)
        signal.pause()


def test_a_worker_that_outlives_its_killed_run_does_not_hold_the_lock(tmp_path: Path) -> None:
    context = multiprocessing.get_context('fork')
    pids = context.SimpleQueue()
    owner = context.Process(target=_hold_with_a_worker, args=(tmp_path / 'out', pids))
    owner.start()
    worker = pids.get()
    try:
        with pytest.raises(InputError, match=f'in use by process {owner.pid} on '), locked_folder(tmp_path / 'out'):
            pass  # nor does the worker's start take the lock from its run
        owner.kill()
        owner.join()
        with locked_folder(tmp_path / 'out'):
            pass
    finally:
        os.kill(worker, signal.SIGKILL)


@pytest.mark.parametrize('code', [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_gets_a_marker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, code: int
) -> None:
    def flock(descriptor: int, operation: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr('fcntl.flock', flock)
    with caplog.at_level(logging.WARNING), locked_folder(tmp_path / 'out'):
        assert f'no locks ({os.strerror(code)})' in caplog.text and '.out.stage.marker by hand' in caplog.text
        with pytest.raises(InputError, match=f'in use by process {os.getpid()} on '), locked_folder(tmp_path / 'out'):
            pass
    assert [path.name for path in tmp_path.iterdir()] == ['out']

    context = multiprocessing.get_context('fork')
    ready = context.Event()
    owner = context.Process(target=_hold, args=(tmp_path / 'out', ready))
    owner.start()
    assert ready.wait(10)
    with pytest.raises(InputError, match=f'in use by process {owner.pid} on '), locked_folder(tmp_path / 'out'):
        pass
    owner.kill()
    owner.join()
    with locked_folder(tmp_path / 'out'):  # the dead run's marker is taken over
        pass


@pytest.mark.long
def test_without_fcntl_everything_imports_and_locks(tmp_path: Path) -> None:
    """As on Windows, which has neither fcntl nor process groups nor fork."""
    script = tmp_path / 'script.py'
    script.write_text(
        textwrap.dedent("""
        import os, sys
        from pathlib import Path
        sys.modules['fcntl'] = None
        import torch  # built for this system: it wants what is deleted next
        for name in ('setpgrp', 'register_at_fork', 'fork'):
            delattr(os, name)
        import basicsr_distill
        from basicsr_distill.errors import InputError
        from basicsr_distill.io.locks import locked_folder
        from basicsr_distill.training.loader import _leave_signals_to_the_loop
        import basicsr
        _leave_signals_to_the_loop(0)
        with locked_folder(Path('out')):
            try:
                with locked_folder(Path('out')):
                    print('twice')
            except InputError as error:
                print(error)
        with locked_folder(Path('out')):
            print(sorted(os.listdir()))
        print(sorted(os.listdir()))
    """)
    )
    run = subprocess.run(
        [sys.executable, '-W', 'ignore', str(script)], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert run.returncode == 0, run.stderr[-2000:]
    refusal, during, after = run.stdout.splitlines()
    assert refusal.startswith('out: in use by process ')
    assert during == "['.out.stage.lock', '.out.stage.owner', 'out', 'script.py']" and after == "['out', 'script.py']"


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / 'file').write_text('x')
    with pytest.raises(InputError, match='cannot be written'), locked_folder(tmp_path / 'file' / 'out'):
        pass


def _enter_as_an_ordinary_user(folder: Path) -> None:
    if os.geteuid() == 0:  # root may write everywhere
        os.setuid(65534)
    try:
        with locked_folder(folder):
            os._exit(0)
    except InputError as error:
        os._exit(2 if 'cannot be written (Permission denied)' in str(error) else 1)


@pytest.mark.parametrize(
    ('mode', 'parent_mode', 'code'),
    [
        (0o555, 0o755, 2),
        (0o555, 0o777, 2),
        (0o777, 0o755, 0),  # a mount point, say: nothing can be written beside it
        (0o777, 0o777, 0),
        (None, 0o755, 2),
    ],
)
def test_a_read_only_folder_is_refused(mode: int | None, parent_mode: int, code: int) -> None:
    with tempfile.TemporaryDirectory() as root:
        os.chmod(root, parent_mode)  # pytest's own folders are closed to others
        folder = Path(root) / 'out'
        if mode is not None:
            folder.mkdir()
            folder.chmod(mode)
        process = multiprocessing.get_context('fork').Process(target=_enter_as_an_ordinary_user, args=(folder,))
        process.start()
        process.join()
        assert process.exitcode == code


def test_a_run_that_is_to_wait_gets_the_lock_when_it_is_free(tmp_path: Path) -> None:
    order = []

    def wait_for_it() -> None:
        with locked(tmp_path / 'x.lock', tmp_path / 'x', wait=True):
            order.append('second')

    waiting = threading.Thread(target=wait_for_it)
    with locked(tmp_path / 'x.lock', tmp_path / 'x'):
        waiting.start()
        waiting.join(0.3)
        assert waiting.is_alive()
        order.append('first')
    waiting.join(10)
    assert order == ['first', 'second']
