"""Checkpoints: written whole or not at all, read without running code, random state exact."""

import errno
import os
import pickle
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from basicsr_distill.errors import InputError
from basicsr_distill.io.weights import is_loadable, load_weights, save_atomic
from basicsr_distill.training.checkpoint import newest_valid_state

REPOSITORY = Path(__file__).parents[2]
WEIGHTS = {'params': {'weight': torch.arange(30000.0)}, 'iter': 7}


class Malicious:
    """Unpickled carelessly, it makes a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.fixture
def file_size_limit():
    """No file may grow beyond 10 kB: what a full disk does to a write, without needing one."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize('name', ['net.pth', 'net.safetensors'])
def test_save_then_load_returns_the_same_tensors(tmp_path, name):
    tensors = {'a': torch.rand(3, 4), 'b': torch.arange(5)}
    save_atomic(tensors, tmp_path / name)
    loaded = load_weights(tmp_path / name)
    assert loaded.keys() == tensors.keys()
    assert all(torch.equal(loaded[key], tensors[key]) for key in tensors)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert is_loadable(tmp_path / name)


@pytest.mark.parametrize('name', ['net.pth', 'net.safetensors'])
def test_failed_write_keeps_the_old_file_and_names_path_and_size(tmp_path, name, file_size_limit):
    path = tmp_path / name
    save_atomic({'old': torch.ones(1)}, path)
    with pytest.raises(OSError) as failure:
        save_atomic({'new': torch.zeros(300_000)}, path)
    assert failure.value.errno == errno.EFBIG
    assert str(path) in str(failure.value) and '1.2 MB' in str(failure.value)
    assert load_weights(path).keys() == {'old'}
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_full_disk_message_says_what_is_needed(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, 'fsync', full)
    with pytest.raises(OSError, match=r'net\.pth: No space left.*needs about 1\.2 MB and .* MB are free') as failure:
        save_atomic([{'a': torch.zeros(300_000)}], tmp_path / 'net.pth')
    assert failure.value.errno == errno.ENOSPC
    assert not list(tmp_path.iterdir())


def test_kill_during_a_write_leaves_the_old_checkpoint(tmp_path):
    path = tmp_path / '5.state'
    save_atomic(WEIGHTS, path)
    code = """
import os, signal, sys, torch
from basicsr_distill.io.weights import save_atomic
def killed(descriptor):
    os.kill(os.getpid(), signal.SIGKILL)
os.fsync = killed
save_atomic({'iter': 8}, sys.argv[1])
"""
    killed = subprocess.run([sys.executable, '-c', code, str(path)], cwd=REPOSITORY, check=False)
    assert killed.returncode == -9
    assert len(list(tmp_path.iterdir())) == 2  # the stray temporary file
    assert load_weights(path)['iter'] == 7
    save_atomic({'params': {}}, tmp_path / 'net_g_5.pth')
    assert newest_valid_state(tmp_path, tmp_path) == path
    assert sorted(file.name for file in tmp_path.iterdir()) == ['5.state', 'net_g_5.pth']


@pytest.mark.parametrize('zipped', [True, False], ids=['zip', 'legacy'])
def test_malicious_file_is_refused_with_its_globals_and_not_run(tmp_path, zipped):
    trap = tmp_path / 'executed'
    path = tmp_path / 'net.pth'
    torch.save({'params': {'w': torch.ones(2)}, 'x': Malicious(trap)}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(InputError, match=r'net\.pth: refused.*posix\.mkdir'):
        load_weights(path)
    assert not is_loadable(path)
    assert not trap.exists()
    torch.load(path, weights_only=False)  # the trap does work
    assert trap.exists()


def test_raw_pickle_is_refused_and_not_run(tmp_path):
    trap = tmp_path / 'executed'
    (tmp_path / 'net.pth').write_bytes(pickle.dumps(Malicious(trap)))
    with pytest.raises(InputError, match=r'net\.pth'):
        load_weights(tmp_path / 'net.pth')
    assert not trap.exists()


@pytest.mark.parametrize('zipped', [True, False], ids=['zip', 'legacy'])
@pytest.mark.parametrize('share', [0.001, 0.5, 0.99])
def test_truncated_file_is_refused(tmp_path, zipped, share):
    path = tmp_path / 'net.pth'
    torch.save(WEIGHTS, path, _use_new_zipfile_serialization=zipped)
    assert is_loadable(path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(InputError, match='damaged, or not a checkpoint'):
        load_weights(path)
    assert not is_loadable(path)


def test_truncated_safetensors_is_refused(tmp_path):
    path = tmp_path / 'net.safetensors'
    save_file({'w': torch.zeros(1000)}, path)
    path.write_bytes(path.read_bytes()[:-100])
    assert not is_loadable(path)
    with pytest.raises(InputError, match='damaged, or not a checkpoint'):
        load_weights(path)


@pytest.mark.parametrize(
    ('content', 'sentence'),
    [
        (None, 'no such file'),
        (b'', 'the file is empty'),
        (b'version https://git-lfs.github.com/spec/v1\n', 'damaged, or not a checkpoint'),
    ],
)
def test_other_wrong_files_get_one_sentence(tmp_path, content, sentence):
    path = tmp_path / 'net.pth'
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=sentence) as refusal:
        load_weights(path)
    assert '\n' not in str(refusal.value) and 'weights_only' not in str(refusal.value)


def test_anything_but_a_dict_is_refused(tmp_path):
    torch.save(torch.zeros(3), tmp_path / 'net.pth')
    with pytest.raises(InputError, match='holds a Tensor'):
        load_weights(tmp_path / 'net.pth')
