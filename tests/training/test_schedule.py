"""Schedules that cannot run their length."""

from pathlib import Path
from typing import Any

import pytest
from sr_experiments import load_state, train_here, train_options

from basicsr_distill.errors import InputError

COSINE: dict[str, Any] = {'type': 'CosineAnnealingRestartLR', 'periods': [12], 'restart_weights': [1], 'eta_min': 1e-5}
STEPS: dict[str, Any] = {'type': 'MultiStepRestartLR', 'milestones': [8]}


@pytest.fixture(autouse=True)
def _in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ('scheduler', 'message'),
    [
        (
            {**COSINE, 'periods': [4, 4], 'restart_weights': [1, 1]},
            r'periods: \[4, 4\] end at iteration 8, before total_iter: 12',
        ),
        ({**COSINE, 'periods': [6, 6]}, r'restart_weights: \[1\] must have one number for each of periods: \[6, 6\]'),
        ({**COSINE, 'periods': []}, 'restart_weights'),
        ({**COSINE, 'periods': 12}, r'periods: 12 is not a list'),
        (
            {**COSINE, 'periods': [12, 0], 'restart_weights': [1, 1]},
            r'periods: \[12, 0\] is not a list of numbers of at least 1',
        ),
        ({**STEPS, 'milestones': 8}, r'milestones: 8 is not a list'),
        ({**STEPS, 'restarts': [0, 4]}, r'restart_weights: \[1\] must have one number for each of restarts'),
    ],
)
def test_refused_before_a_folder_is_made(hr_folder: Path, scheduler: dict[str, Any], message: str) -> None:
    options = train_options(hr_folder)
    options['train']['scheduler'] = scheduler
    with pytest.raises(InputError, match=rf'tiny\.yml: train\.scheduler\.{message}'):
        train_here(options)
    assert not Path('experiments/tiny').exists()


def test_periods_appended_after_the_end_are_refused(hr_folder: Path) -> None:
    """BasicSR loads the old ones from the training state and ends in a traceback."""
    options = train_options(hr_folder)
    options['train']['scheduler'] = dict(COSINE)
    train_here(options)
    options['train']['total_iter'] = 24
    options['train']['scheduler'].update(periods=[12, 12], restart_weights=[1, 1])
    with pytest.raises(InputError, match=r'train\.scheduler\.periods: was \[12\], now \[12, 12\]'):
        train_here(options, auto_resume=True)


def test_a_schedule_of_exactly_the_length_runs(hr_folder: Path) -> None:
    options = train_options(hr_folder)
    options['train']['scheduler'] = {**COSINE, 'periods': [6, 6], 'restart_weights': [1, 0.5]}
    train_here(options)
    assert load_state('tiny', 12)['iter'] == 12
