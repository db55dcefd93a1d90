"""Checkpoints through the command: exact whatever the model, whole or passed over, few where few are wanted."""

import shutil
import signal
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from basicsr.models import build_model
from dying import die_at_replacement, digests, limit_files, run
from small_project import make_project
from sr_experiments import TINY_EDSR, SlimVgg19, make_surroundings, save_slim_vgg19, shrink
from support import REPOSITORY

from basicsr_distill.config.yaml_files import read_option_file
from basicsr_distill.io.weights import load_weights
from basicsr_distill.training.checkpoint import CheckpointWriter, restore_model

pytestmark = pytest.mark.long  # only `bash scripts/test.sh --all` and CI run it

# A file of each model, and what makes it another model.
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    'SRModel': ('EDSR_Mx4_distilled', {}),
    'SwinIRModel': ('SwinIR_x4_distilled', {}),
    'SRGANModel': ('RealSR_x4_distilled', {'model_type': 'SRGANModel'}),
    'ESRGANModel': ('RealSR_x4_distilled', {}),
    'RealESRGANModel': ('RealESRGAN_x4_distilled', {}),
    'RealESRGANModel, blind': ('RealESRGAN_blind_x4_distilled', {}),
    'RealESRNetModel': ('RealESRGAN_blind_x4_distilled', {'model_type': 'RealESRNetModel', 'gt_usm': True}),
}
CHECKPOINT = ['experiments/*/models/*', 'experiments/*/training_states/*']


def slim_and_dying(number: int | None) -> None:
    """VGG19 with few channels; die at a replacement."""
    import torchvision.models.vgg as vgg

    vgg.vgg19 = SlimVgg19
    if number is not None:
        die_at_replacement(number)


def prepare_training(folder: Path, model: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """An option file of a model in ``folder``, with images and weights; the command."""
    stem, changes = MODELS[model]
    folder.mkdir()
    monkeypatch.chdir(folder)
    options = shrink(read_option_file(next(REPOSITORY.glob(f'options/train/*/train_{stem}.yml')))) | changes
    if changes.get('model_type') == 'RealESRNetModel':
        del options['network_d']
        for key in ('perceptual_opt', 'gan_opt', 'optim_d', 'net_d_iters', 'net_d_init_iters'):
            options['train'].pop(key, None)
    options['datasets'] = {'train': options['datasets']['train']}
    options.pop('val')
    options['train']['total_iter'] = 6
    options['logger'].update(save_checkpoint_freq=2, use_tb_logger=False)
    if 'queue_size' in options:
        options['queue_size'] = 4  # full after two batches of two, and from then on shuffled
    torch.manual_seed(0)  # of the weights that are made
    make_surroundings(options)
    save_slim_vgg19()
    Path('train.yml').write_text(yaml.safe_dump(options, sort_keys=False))
    return ['train', '-opt', 'train.yml', '--auto_resume']


@pytest.mark.parametrize(
    'model', [pytest.param(name, marks=() if 'blind' in name else pytest.mark.slow) for name in MODELS]
)
def test_every_model_goes_on_exactly(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed once the checkpoint of iteration 4 is written: iterations 5 and 6 are those of an undisturbed run."""
    whole, killed = tmp_path / 'whole', tmp_path / 'killed'
    for folder in (whole, killed):
        command = prepare_training(folder, model, monkeypatch)
    code, output = run(whole, *command, prepare=slim_and_dying, given=(None,))
    assert code == 0, output
    networks = len(list(whole.glob('experiments/*/models/net_*_4.pth')))
    files_before = len([path for path in whole.glob('experiments/*/training_states/*') if int(path.stem) <= 4])
    last = 2 * (files_before * (networks + 1)) - 1  # just after the state of iteration 4
    for number in range(last, last + 8, 2):  # other files may come before
        code, output = run(killed, *command, prepare=slim_and_dying, given=(number,))
        assert code in (0, -signal.SIGKILL), output
        if list(killed.glob('experiments/*/training_states/4.state')):
            break
    assert code == -signal.SIGKILL and not list(killed.glob('experiments/*/training_states/6.state'))
    code, output = run(killed, *command, prepare=slim_and_dying, given=(None,))
    assert code == 0 and 'Resuming training from iteration' in output, output
    assert digests(killed, *CHECKPOINT) == digests(whole, *CHECKPOINT)


def test_frozen_parts_and_running_means_are_remembered(tmp_path: Path) -> None:
    """EDVR and the recurrent video models freeze parts at iteration 1; StyleGAN2 keeps a mean of path lengths."""
    options = {
        'name': 'x',
        'model_type': 'SRModel',
        'scale': 4,
        'num_gpu': 0,
        'dist': False,
        'is_train': True,
        'rank': 0,
        'logger': {},
        'path': {'models': str(tmp_path), 'training_states': str(tmp_path)},
        'network_g': dict(TINY_EDSR),
        'train': {
            'optim_g': {'type': 'Adam', 'lr': 1e-3},
            'pixel_opt': {'type': 'L1Loss'},
            'scheduler': {'type': 'MultiStepLR', 'milestones': [9]},
        },
    }
    model = build_model(deepcopy(options))
    model.net_g.conv_first.weight.requires_grad_(False)
    model.mean_path_length = torch.tensor(0.25)
    CheckpointWriter(model, {}).mark_validated(0, 1)
    other = build_model(deepcopy(options))
    restore_model(other, load_weights(tmp_path / '1.state'))
    assert other.mean_path_length == 0.25
    assert [name for name, parameter in other.net_g.named_parameters() if not parameter.requires_grad] == [
        'conv_first.weight'
    ]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A small project."""
    (tmp_path / 'project').mkdir()
    return make_project(tmp_path / 'project')


def change(project: Path, **changes: Any) -> None:
    """Change keys of the sections of ``train.yml``."""
    options = yaml.safe_load((project / 'train.yml').read_text())
    for section, keys in changes.items():
        options.setdefault(section, {}).update(keys)
    (project / 'train.yml').write_text(yaml.safe_dump(options))


COMMAND = ['train', '-opt', 'train.yml', '--auto_resume']


@pytest.mark.parametrize('damaged', ['training_states/20.state', 'models/net_g_20.pth'])
def test_a_truncated_newest_checkpoint_is_passed_over(damaged: str, project: Path) -> None:
    code, output = run(project, *COMMAND)
    assert code == 0, output
    whole = digests(project, *CHECKPOINT)
    experiment = project / 'experiments' / 'sr'
    for path in (*experiment.glob('models/net_g_*.pth'), *experiment.glob('training_states/*')):
        if not path.stem.endswith(('_5', '_10', '_15', '_20')) and path.stem not in ('5', '10', '15', '20'):
            path.unlink()
    content = (experiment / damaged).read_bytes()
    (experiment / damaged).write_bytes(content[: len(content) // 2])
    code, output = run(project, *COMMAND)
    assert code == 0 and f'{Path(damaged).name} is damaged' in output
    assert 'Resuming training from iteration 15.' in output
    assert digests(project, *CHECKPOINT) == whole


def test_a_failed_save_is_a_failure(project: Path) -> None:
    """The disk fills up while a checkpoint is written; the one before it is whole, and the training goes on from it."""
    code, output = run(project, *COMMAND)
    assert code == 0
    whole = digests(project, *CHECKPOINT)
    state_bytes = (project / 'experiments/sr/training_states/5.state').stat().st_size
    network_bytes = (project / 'experiments/sr/models/net_g_5.pth').stat().st_size
    assert state_bytes > network_bytes
    shutil.rmtree(project / 'experiments')
    code, output = run(project, *COMMAND, prepare=limit_files, given=(state_bytes - 1000,))
    assert code == 1 and '5.state: ' in output.splitlines()[-1] and 'MB' in output.splitlines()[-1]
    assert 'Traceback' not in output and not list((project / 'experiments').rglob('*.part'))
    assert not list(project.glob('experiments/sr/training_states/*'))
    code, output = run(project, *COMMAND)
    assert code == 0 and digests(project, *CHECKPOINT) == whole


def test_the_last_ones_and_the_best_are_kept(project: Path) -> None:
    change(
        project,
        logger={'keep_last': 2},
        datasets={'val': {'name': 'held', 'type': 'DistilledPatchDataset', 'dataroot_gt': 'held'}},
        val={
            'val_freq': 5,
            'save_img': False,
            'metrics': {'psnr': {'type': 'calculate_psnr', 'crop_border': 0, 'test_y_channel': False}},
        },
        # The loss is to grow, so that the first validation is the best.
        train={'pixel_opt': {'type': 'L1Loss', 'loss_weight': -1.0, 'reduction': 'mean'}},
    )
    code, output = run(project, *COMMAND)
    assert code == 0, output
    experiment = project / 'experiments' / 'sr'
    state = load_weights(experiment / 'training_states' / '30.state')
    best = state['best_metric_results']['held']['psnr']['iter']
    kept = sorted({25, 30, best})
    assert sorted(int(path.stem) for path in (experiment / 'training_states').iterdir()) == kept
    names = {f'net_g_{number}.pth' for number in (*kept, 'latest')}
    assert {path.name for path in (experiment / 'models').iterdir()} == names
    assert best == 5
