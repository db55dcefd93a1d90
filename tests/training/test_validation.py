"""Validation and checkpoints: no iteration and no validation is lost to a failing metric, a failure, or a kill."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from basicsr.models.sr_model import SRModel
from sr_experiments import (
    TINY_EDSR,
    load_ema,
    load_state,
    log_text,
    train_here,
    train_options,
    validated,
    write_options,
)

from basicsr_distill.config.experiment import to_experiment
from basicsr_distill.config.recipe import Recipe
from basicsr_distill.errors import InputError
from basicsr_distill.training import test as test_loop

NIQE = {'type': 'calculate_niqe', 'crop_border': 0, 'better': 'lower'}


class Kill(BaseException):
    """The end of a process, as nothing in it can catch it."""


@pytest.fixture(autouse=True)
def _in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def failing_niqe(monkeypatch: pytest.MonkeyPatch) -> None:
    """NIQE as on small images: the third of every validation."""

    def niqe(img: np.ndarray, crop_border: int, **kwargs: Any) -> float:
        calls.append(0)
        if len(calls) % 8 == 3:
            raise np.linalg.LinAlgError('SVD did not converge')
        return 5.0

    calls: list[int] = []
    from basicsr.utils.registry import METRIC_REGISTRY

    monkeypatch.setitem(METRIC_REGISTRY._obj_map, 'calculate_niqe', niqe)


def interrupted_validation(monkeypatch: pytest.MonkeyPatch, at: int, failure: BaseException) -> list[int]:
    """Let the validation at an iteration fail in its midst, once; returns the list of those that were finished."""
    finished: list[int] = []
    whole = SRModel.nondist_validation

    def validation(self: Any, loader: Any, iteration: int, *rest: Any) -> None:
        if iteration == at and failure not in raised:
            raised.append(failure)
            next(iter(loader))
            raise failure
        whole(self, loader, iteration, *rest)
        finished.append(iteration)

    raised: list[BaseException] = []
    monkeypatch.setattr(SRModel, 'nondist_validation', validation)
    return finished


def assert_same_training(first: str, second: str) -> None:
    one, two = load_ema(first), load_ema(second)
    assert all(torch.equal(value, two[key]) for key, value in one.items())
    assert load_state(first, 12)['best_metric_results'] == load_state(second, 12)['best_metric_results']


def test_a_metric_that_cannot_be_computed_is_named_and_does_not_end_the_training(
    hr_folder: Path, failing_niqe: None
) -> None:
    train_here(validated(train_options(hr_folder, 'tiny'), hr_folder, 5, niqe=dict(NIQE)))
    train_here(validated(train_options(hr_folder, 'plain'), hr_folder, 5))
    assert all(torch.equal(value, load_ema('plain')[key]) for key, value in load_ema('tiny').items())
    best, plain = (load_state(name, 12)['best_metric_results']['check'] for name in ('tiny', 'plain'))
    assert best['psnr'] == plain['psnr'] and best['niqe']['iter'] == -1
    log = log_text('tiny')
    assert log.count('niqe on check cannot be computed for') == 3  # iterations 5, 10 and 12
    assert '02.png (LinAlgError: SVD did not converge)' in log


def test_a_test_measures_the_rest_and_names_the_metric(hr_folder: Path, failing_niqe: None) -> None:
    train_here(train_options(hr_folder, total_iter=2))
    options = validated(
        {
            'name': 'tiny',
            'model_type': 'SRModel',
            'scale': 4,
            'num_gpu': 0,
            'network_g': dict(TINY_EDSR),
            'datasets': {},
            'path': {'pretrain_network_g': 'experiments/tiny/models/net_g_latest.pth'},
        },
        hr_folder,
        1,
        niqe=dict(NIQE),
    )
    options['datasets'] = {'test': options['datasets']['val']}
    del options['val']['val_freq']
    path = write_options(Path('test.yml'), options)
    with pytest.raises(InputError, match=r'niqe on check cannot be computed for .*02\.png \(LinAlgError.*val:metrics:'):
        test_loop.test(to_experiment(Recipe.load(path), is_train=False, root=Path.cwd()))
    measured = json.loads(Path('results/tiny/metrics.json').read_text())['check']
    assert measured['niqe'] is None and measured['psnr'] > 10


@pytest.mark.parametrize(('at', 'saved'), [(5, 5), (6, 6), (12, 12)])
def test_a_failing_validation_leaves_a_checkpoint_and_is_made_up(
    hr_folder: Path, monkeypatch: pytest.MonkeyPatch, at: int, saved: int
) -> None:
    """Checkpoints are due at 5 and 10; the validations at 5 and 12 meet one, that at 6 does not."""
    freq = 5 if at == 5 else 6
    train_here(validated(train_options(hr_folder, 'whole'), hr_folder, freq))
    finished = interrupted_validation(monkeypatch, at, RuntimeError('no such luck'))
    options = validated(train_options(hr_folder, 'failed'), hr_folder, freq)
    with pytest.raises(RuntimeError, match='no such luck'):
        train_here(options)
    assert load_state('failed', saved)['validation_due']
    assert '00.png' in log_text('failed') and 'which validates first' in log_text('failed')
    train_here(options, auto_resume=True)
    assert finished == [*range(freq, 12, freq), 12]
    assert_same_training('whole', 'failed')


@pytest.mark.parametrize('at', [5, 12])
def test_a_kill_between_checkpoint_and_validation_loses_no_validation(
    hr_folder: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    train_here(validated(train_options(hr_folder, 'whole'), hr_folder, 5))
    finished = interrupted_validation(monkeypatch, at, Kill())
    options = validated(train_options(hr_folder, 'killed'), hr_folder, 5)
    with pytest.raises(Kill):
        train_here(options)
    assert not Path('experiments/killed/models/net_g_latest.pth').exists()
    train_here(options, auto_resume=True)
    assert finished == [5, 10, 12]
    assert_same_training('whole', 'killed')


def test_a_finished_training_owes_no_validation(
    hr_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = validated(train_options(hr_folder, total_iter=2), hr_folder, 2)
    train_here(options)
    assert not load_state('tiny', 2)['validation_due']
    train_here(options, auto_resume=True)
    assert 'nothing to do' in capsys.readouterr().out
