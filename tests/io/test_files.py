import hashlib
import multiprocessing
import os
import signal
import tempfile
from pathlib import Path

import pytest

from basicsr_distill.errors import InputError
from basicsr_distill.io.files import (
    locked_folder,
    remove_temporaries,
    replacing,
    safe_join,
    sha256_file,
    write_atomic,
)


def test_write_atomic_writes_utf8_and_bytes(tmp_path: Path) -> None:
    write_atomic(tmp_path / 'a', 'grün\n')
    write_atomic(tmp_path / 'b', b'\x00\xff')
    assert (tmp_path / 'a').read_bytes() == 'grün\n'.encode()
    assert (tmp_path / 'b').read_bytes() == b'\x00\xff'
    assert sorted(path.name for path in tmp_path.iterdir()) == ['a', 'b']


def test_a_failure_keeps_the_old_file_and_leaves_no_other(tmp_path: Path) -> None:
    path = tmp_path / 'table'
    path.write_text('old')
    with pytest.raises(RuntimeError, match='midway'), replacing(path) as temp:
        temp.write_text('half of the n')
        assert path.read_text() == 'old'
        raise RuntimeError('midway')
    assert path.read_text() == 'old'
    assert [entry.name for entry in tmp_path.iterdir()] == ['table']


def test_the_data_is_on_disk_before_it_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[str] = []
    sync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, 'fsync', lambda descriptor: (steps.append('fsync'), sync(descriptor))[1])
    monkeypatch.setattr(os, 'replace', lambda *names: (steps.append('replace'), replace(*names))[1])
    write_atomic(tmp_path / 'x', 'x')
    assert steps == ['fsync', 'replace']


def test_remove_temporaries_removes_nothing_else(tmp_path: Path) -> None:
    (tmp_path / 'deep').mkdir()
    for name in ('a.png.part', 'deep/b.csv.part', 'deep/b.csv', 'part'):
        (tmp_path / name).write_text('x')
    remove_temporaries(tmp_path)
    assert sorted(path.name for path in tmp_path.rglob('*') if path.is_file()) == ['b.csv', 'part']


def test_sha256_equals_hashlib_over_block_borders(tmp_path: Path) -> None:
    data = os.urandom((1 << 20) + 7)
    (tmp_path / 'x').write_bytes(data)
    assert sha256_file(tmp_path / 'x') == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize('name', ['/etc/passwd', '../x', 'a/../../x', '..'])
def test_paths_out_of_the_folder_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=r'manifest\.csv: .* points outside'):
        safe_join(tmp_path, name, listed_in=tmp_path / 'manifest.csv')
    assert safe_join(tmp_path, 'a/..b.png', listed_in=tmp_path) == tmp_path / 'a' / '..b.png'


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
    with pytest.raises(InputError, match=f'in use by process {owner.pid} on '), locked_folder(tmp_path / 'out'):
        pass
    owner.kill()
    owner.join()
    assert (tmp_path / 'out' / '.lock').exists()
    with locked_folder(tmp_path / 'out'):
        assert (tmp_path / 'out' / '.lock').read_text().startswith(f'process {os.getpid()} on ')
    assert not (tmp_path / 'out' / '.lock').exists()


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
    owner = context.Process(target=_hold_with_a_worker, args=(tmp_path, pids))
    owner.start()
    worker = pids.get()
    try:
        with pytest.raises(InputError, match=f'in use by process {owner.pid} on '), locked_folder(tmp_path):
            pass  # nor does the worker's start take the lock from its run
        owner.kill()
        owner.join()
        with locked_folder(tmp_path):
            pass
    finally:
        os.kill(worker, signal.SIGKILL)


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


@pytest.mark.parametrize(('mode', 'code'), [(0o555, 2), (0o777, 0)])
def test_a_read_only_folder_is_refused(mode: int, code: int) -> None:
    with tempfile.TemporaryDirectory() as root:
        os.chmod(root, 0o755)  # pytest's own folders are closed to others
        folder = Path(root) / 'out'
        folder.mkdir()
        folder.chmod(mode)
        process = multiprocessing.get_context('fork').Process(target=_enter_as_an_ordinary_user, args=(folder,))
        process.start()
        process.join()
        assert process.exitcode == code
