"""What may change in an option file before ``--auto_resume``."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from sr_experiments import load_state, log_text, train_here, train_options

from basicsr_distill.errors import InputError
from basicsr_distill.io.weights import save_atomic


@pytest.fixture(autouse=True)
def _in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def tree() -> list[tuple[str, int]]:
    return [(str(path), path.stat().st_mtime_ns) for path in sorted(Path('experiments').rglob('*'))]


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (
            lambda o: o['train']['scheduler'].update(milestones=[4]),
            r'train\.scheduler\.milestones: was \[8\], now \[4\]',
        ),
        (lambda o: o['train']['scheduler'].update(gamma=0.1), r'train\.scheduler\.gamma: was 0\.5, now 0\.1'),
        (lambda o: o['train']['optim_g'].update(lr=1e-4), r'train\.optim_g\.lr: was 0\.001, now 0\.0001'),
        (
            lambda o: o['train']['optim_g'].update(betas=[0.5, 0.9]),
            r'train\.optim_g\.betas: was None, now \[0\.5, 0\.9\]',
        ),
        (lambda o: o['train']['optim_g'].update(weight_decay=0.1), r'train\.optim_g\.weight_decay: was None, now 0\.1'),
        (lambda o: o['train']['optim_g'].update(type='AdamW'), r"train\.optim_g\.type: was 'Adam', now 'AdamW'"),
        (
            lambda o: o['train'].update(scheduler={'type': 'CosineAnnealingRestartLR', 'periods': [24]}),
            r".*train\.scheduler\.type: was 'MultiStepLR', now 'CosineAnnealingRestartLR'",
        ),
        (lambda o: o['train'].update(ema_decay=0.5), r'train\.ema_decay: was 0\.9, now 0\.5'),
        (lambda o: o['train']['pixel_opt'].update(type='MSELoss'), r'train\.pixel_opt\.type'),
        (lambda o: o.update(manual_seed=6), r'manual_seed: was 5, now 6'),
        (lambda o: o['datasets']['train'].update(gt_size=48), r'datasets\.train\.gt_size: was 32, now 48'),
        (lambda o: o['datasets']['train'].update(use_rot=False), r'datasets\.train\.use_rot: was True, now False'),
        (lambda o: o['datasets']['train'].update(batch_size_per_gpu=2), r'global_batch: was 3, now 2'),
        (lambda o: o['network_g'].update(res_scale=0.5), r'network_g\.res_scale: was None, now 0\.5'),
    ],
)
def test_what_would_make_the_past_another_is_refused(
    hr_folder: Path, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    options = train_options(hr_folder, total_iter=6)
    train_here(options)
    before = tree()
    options['train']['total_iter'] = 12
    change(options)
    with pytest.raises(InputError, match=rf'tiny\.yml: .*6\.state was trained with other options \({message}'):
        train_here(options, auto_resume=True)
    assert tree() == before


def test_what_leaves_the_past_alone_is_applied_and_logged(hr_folder: Path) -> None:
    options = train_options(hr_folder, total_iter=6, num_images=6)
    train_here(options)
    options['train']['total_iter'] = 12
    options['logger']['print_freq'] = 1
    options['datasets']['train'].update(num_images=None, num_worker_per_gpu=1, cache='none')
    train_here(options, auto_resume=True)
    log = log_text('tiny')
    assert 'train.total_iter: was 6, now 12' in log and 'logger.print_freq: was 4, now 1' in log
    assert 'images: was 6, now 8' in log and 'num_worker' not in log.split('Edited since')[1].splitlines()[0]
    assert load_state('tiny', 12)['options']['images'] == 8


def test_a_state_without_options_resumes_with_a_warning(hr_folder: Path) -> None:
    """As version 0.1 and BasicSR itself leave them."""
    options = train_options(hr_folder, total_iter=6)
    train_here(options)
    path = Path('experiments/tiny/training_states/6.state')
    state = torch.load(path, weights_only=True)
    save_atomic({key: value for key, value in state.items() if key not in ('options', 'validation_due')}, path)
    options['train'].update(total_iter=8)
    options['train']['optim_g'].update(lr=1e-4)
    train_here(options, auto_resume=True)
    assert load_state('tiny', 8)['iter'] == 8
    assert 'does not say with which options it was made' in log_text('tiny')


def test_a_new_default_of_a_later_version_is_no_edit(hr_folder: Path) -> None:
    options = train_options(hr_folder, total_iter=6)
    train_here(options)
    path = Path('experiments/tiny/training_states/6.state')
    state = torch.load(path, weights_only=True)
    del state['options']['datasets']['train']['labels'], state['options']['train']['warmup_iter']
    save_atomic(state, path)
    train_here({**options, 'train': {**options['train'], 'total_iter': 8}}, auto_resume=True)
    assert load_state('tiny', 8)['iter'] == 8


def test_fewer_iterations_than_the_checkpoint_has_are_refused(hr_folder: Path) -> None:
    options = train_options(hr_folder)
    train_here(options)
    Path('experiments/tiny/models/net_g_latest.pth').unlink()
    options['train']['total_iter'] = 11
    with pytest.raises(InputError, match=r'train\.total_iter: 11 lies before the checkpoint at iteration 12'):
        train_here(options, auto_resume=True)


def test_a_state_of_another_experiment_is_refused_under_its_own_key(hr_folder: Path) -> None:
    train_here(train_options(hr_folder, 'other', total_iter=2))
    options = train_options(hr_folder, 'mine', total_iter=4)
    options['path'] = {'resume_state': 'experiments/other/training_states/2.state'}
    with pytest.raises(InputError, match=r'mine\.yml: path\.resume_state: .*2\.state goes with net_g_2\.pth, which'):
        train_here(options)
    options['path'] = {'resume_state': 'experiments/other/models/net_g_2.pth'}
    with pytest.raises(InputError, match=r'path\.resume_state: .*is no training state'):
        train_here(options)
    assert not Path('experiments/mine').exists()
