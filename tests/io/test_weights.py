"""Checkpoints: written whole or not at all, read without running code, random state exact."""

import errno
import logging
import os
import pickle
import random
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from basicsr_distill.checkpoint import (
    capture_rng,
    is_loadable,
    load_weights,
    newest_valid_state,
    restore_rng,
    save_atomic,
)
from basicsr_distill.errors import InputError

REPOSITORY = Path(__file__).parents[1]
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
from basicsr_distill import checkpoint
def killed(descriptor):
    os.kill(os.getpid(), signal.SIGKILL)
os.fsync = killed
checkpoint.save_atomic({'iter': 8}, sys.argv[1])
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
    path.write_bytes(data[:int(len(data) * share)])
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


@pytest.mark.parametrize(('content', 'sentence'), [
    (None, 'no such file'),
    (b'', 'the file is empty'),
    (b'version https://git-lfs.github.com/spec/v1\n', 'damaged, or not a checkpoint'),
])
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


def make_run(folder: Path, iterations, networks=('net_g', 'net_d')) -> tuple[Path, Path]:
    """Training states and networks in BasicSR's layout."""
    states, models = folder / 'training_states', folder / 'models'
    states.mkdir()
    models.mkdir()
    for iteration in iterations:
        for network in networks:
            save_atomic(WEIGHTS, models / f'{network}_{iteration}.pth')
        save_atomic({'iter': iteration}, states / f'{iteration}.state')
    return states, models


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100])


def test_newest_state_is_by_number(tmp_path):
    states, models = make_run(tmp_path, [20, 100, 9])
    assert newest_valid_state(states, models) == states / '100.state'


@pytest.mark.parametrize('victim', ['training_states/100.state', 'models/net_d_100.pth'])
def test_truncated_newest_is_passed_over_with_a_warning(tmp_path, caplog, victim, monkeypatch):
    monkeypatch.setattr(logging.getLogger('basicsr'), 'propagate', True)
    states, models = make_run(tmp_path, [20, 100])
    truncate(tmp_path / victim)
    with caplog.at_level(logging.WARNING):
        assert newest_valid_state(states, models) == states / '20.state'
    assert '100.state' in caplog.text and Path(victim).name in caplog.text


def test_state_without_networks_is_passed_over(tmp_path):
    states, models = make_run(tmp_path, [20, 100])
    for path in models.glob('*_100.pth'):
        path.unlink()
    assert newest_valid_state(states, models) == states / '20.state'


def test_no_state_is_none_and_strays_are_removed(tmp_path):
    states, models = make_run(tmp_path, [5])
    truncate(states / '5.state')
    (states / '6.state.part').write_bytes(b'half')
    (models / 'net_g_6.pth.part').write_bytes(b'half')
    (states / 'notes.txt').write_text('mine')
    assert newest_valid_state(states, models) is None
    assert not list(tmp_path.rglob('*.part'))
    assert (states / 'notes.txt').exists()
    assert newest_valid_state(tmp_path / 'absent', models) is None


def draw() -> list[float]:
    """One number of every generator, of every kind that keeps a spare value."""
    return [random.random(), random.gauss(0, 1), np.random.rand(), np.random.randn(), torch.rand(()).item()]


def test_rng_goes_on_exactly_after_a_safe_round_trip(tmp_path):
    random.seed(3)
    np.random.seed(4)
    torch.manual_seed(5)
    draw()  # leaves half a Gaussian pair in Python's and numpy's generators
    save_atomic({'rng': [capture_rng()]}, tmp_path / '1.state')
    expected = [draw() for _ in range(3)]
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    restore_rng(load_weights(tmp_path / '1.state')['rng'][0])
    assert [draw() for _ in range(3)] == expected
