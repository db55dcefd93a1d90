"""The newest checkpoint that is whole."""

import logging
from pathlib import Path

import pytest
import torch

from basicsr_distill.io.weights import save_atomic
from basicsr_distill.training.checkpoint import newest_valid_state

WEIGHTS = {'params': {'weight': torch.arange(30000.0)}, 'iter': 7}


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
