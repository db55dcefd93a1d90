"""Option files of SR networks made to run here in a second: small networks, batches and images at their paths."""

import re
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import skimage.data
import torch
import yaml
from basicsr.archs import build_network
from numpy.typing import NDArray
from support import REPOSITORY, save_rgb
from torch import nn
from torchvision.models import vgg

from basicsr_distill.config.experiment import to_experiment
from basicsr_distill.config.recipe import Recipe
from basicsr_distill.io.images import read_rgb
from basicsr_distill.io.manifest import SampleRow, write_table
from basicsr_distill.ops.bicubic import make_lr
from basicsr_distill.training import train as train_loop


def small_networks() -> dict[str, dict[str, Any]]:
    """The size in tests of each network, as the line of its type says in one of its option files."""
    stated: dict[str, dict[str, Any]] = {'VGGStyleDiscriminator': {'num_feat': 4}}  # only in published files
    for path in sorted((REPOSITORY / 'options').rglob('*.yml')):
        found = re.findall(r'^  type: (\w+) +# in tests: (\{.*\})$', path.read_text(encoding='utf-8'), re.MULTILINE)
        stated |= {name: yaml.safe_load(size) for name, size in found}
    return stated


# A network without such a line is tried at its full size.
SMALL_NETWORKS = small_networks()


def shrink(options: dict[str, Any]) -> dict[str, Any]:
    """A copy of an option file's content with width, batch, crop and schedule cut; everything else as it is."""
    options = deepcopy(options)
    for key in ('network_g', 'network_d'):
        if key in options:
            options[key].update(SMALL_NETWORKS.get(options[key]['type'], {}))
    for phase, section in options['datasets'].items():
        if phase == 'train':
            # VGGStyleDiscriminator ends in a layer for 128 px.
            discriminator = options.get('network_d', {}).get('type')
            gt_size = 128 if discriminator == 'VGGStyleDiscriminator' else 64 if discriminator else 32
            section.update(batch_size_per_gpu=2, num_worker_per_gpu=0, gt_size=gt_size)
            if 'gt_size' in options:  # RealESRGANModel crops after degrading
                options.update(gt_size=gt_size, queue_size=2)
    if 'train' in options:
        options['train']['total_iter'] = 2
        options.setdefault('val', {}).update(val_freq=2)
        options['logger'].update(print_freq=1, save_checkpoint_freq=1)
    return options


def photos(size_px: int, count: int) -> Iterator[NDArray[np.uint8]]:
    """Different crops of photographs."""
    for number in range(count):
        image = skimage.data.astronaut() if number % 2 else skimage.data.chelsea()
        top, left = 60 + 10 * number, 100 + 20 * number
        yield image[top : top + size_px, left : left + size_px]


def save_distilled_set(root: Path, size_px: int, count: int = 4) -> None:
    """What the sample stage leaves: two clusters of real patches in the place of drawn ones."""
    rows, lines = [], []
    for number, hr in enumerate(photos(size_px, count)):
        row = SampleRow(
            f'{number % 2:03d}_{number // 2:05d}.png', number % 2, number // 2, 0, 'ab', 1.0, '', 'matlab_rgb', 23.5
        )
        save_rgb(root / 'HR' / row.name, hr)
        save_rgb(root / 'LR_bicubic' / 'X4' / row.name, make_lr(hr, 4))
        rows.append(row)
        lines.append(f'{row.name} ({size_px},{size_px},3)\n')
    write_table(root / 'manifest.csv', rows, SampleRow)
    (root / 'meta_info.txt').write_text(''.join(lines))


def make_dataset(section: dict[str, Any], scale: int, size_px: int) -> None:
    """Put photographs where a section of an option file looks for them."""
    root = Path(section['dataroot_gt'])
    distilled = next((folder for folder in (root, *root.parents) if folder.name == 'distilled'), None)
    if distilled is not None:
        save_distilled_set(distilled, size_px)
        for hr in (distilled / 'HR').iterdir():  # scripts/generate_lr_bicubic.py, for another scale
            if scale != 4 and section['type'] == 'PairedImageDataset':
                save_rgb(Path(section['dataroot_lq']) / hr.name, make_lr(read_rgb(hr), scale))
        return
    lines = []
    for number, hr in enumerate(photos(size_px, 3)):
        name = f'photo{number}.png'
        save_rgb(root / name, hr)
        lines.append(f'{name} ({size_px},{size_px},3)\n')
        if 'dataroot_lq' in section:
            stem = section.get('filename_tmpl', '{}').format(f'photo{number}')
            save_rgb(Path(section['dataroot_lq']) / f'{stem}.png', make_lr(hr, scale))
    for key in ('meta_info', 'meta_info_file'):
        if section.get(key):
            Path(section[key]).parent.mkdir(parents=True, exist_ok=True)
            Path(section[key]).write_text(''.join(lines))


def make_surroundings(options: dict[str, Any]) -> None:
    """Every data set and every network that an option file names, small, at its own path."""
    for phase, section in options['datasets'].items():
        make_dataset(section, options['scale'], section.get('gt_size', 0) + 32 if phase == 'train' else 48)
    for label in 'gd':
        if path := (options.get('path') or {}).get(f'pretrain_network_{label}'):
            network = options[f'network_{label}']
            if not options['path'].get(f'strict_load_{label}', True):  # x4 starts from x2
                network = {**network, 'upscale': 2}
            weights = build_network(network).state_dict()
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            torch.save({'params': weights, 'params_ema': weights}, path)


class SlimVgg19(nn.Module):
    """VGG19's layers with 4 channels: the real one is 548 MB."""

    def __init__(self, pretrained: bool = False) -> None:
        super().__init__()
        assert not pretrained
        self.features = vgg.make_layers([4, 4, 'M', 4, 4, 'M', 4, 4, 4, 4, 'M', 4, 4, 4, 4, 'M', 4, 4, 4, 4, 'M'])


def save_slim_vgg19() -> Path:
    """Weights of a :class:`SlimVgg19` where BasicSR looks for VGG19's."""
    path = Path('experiments/pretrained_models/vgg19-dcbb9e9d.pth')
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(SlimVgg19().state_dict(), path)
    return path


TINY_EDSR = {
    'type': 'EDSR',
    'num_in_ch': 3,
    'num_out_ch': 3,
    'num_feat': 8,
    'num_block': 1,
    'upscale': 4,
    'img_range': 255.0,
    'rgb_mean': [0.4488, 0.4371, 0.4040],
}


def train_options(hr_folder: Path, name: str = 'tiny', total_iter: int = 12, **train_set: Any) -> dict[str, Any]:
    return {
        'name': name,
        'model_type': 'SRModel',
        'scale': 4,
        'num_gpu': 0,
        'manual_seed': 5,
        'datasets': {
            'train': {
                'name': 'hr',
                'type': 'DistilledPatchDataset',
                'dataroot_gt': str(hr_folder),
                'gt_size': 32,
                'use_hflip': True,
                'use_rot': True,
                'batch_size_per_gpu': 3,
                **train_set,
            }
        },
        'network_g': dict(TINY_EDSR),
        'train': {
            'optim_g': {'type': 'Adam', 'lr': 1e-3},
            'total_iter': total_iter,
            'ema_decay': 0.9,
            'scheduler': {'type': 'MultiStepLR', 'milestones': [8], 'gamma': 0.5},
            'pixel_opt': {'type': 'L1Loss', 'loss_weight': 1.0, 'reduction': 'mean'},
        },
        'logger': {'print_freq': 4, 'save_checkpoint_freq': 5},
    }


def write_options(path: Path, options: dict[str, Any]) -> Path:
    path.write_text(yaml.safe_dump(options))
    return path


def train_here(options: dict[str, Any], auto_resume: bool = False, as_stage: bool = False) -> None:
    """``basicsr train`` of these options in the working directory."""
    path = write_options(Path(f'{options["name"]}.yml'), options)
    experiment = to_experiment(Recipe.load(path), is_train=True, root=Path.cwd(), auto_resume=auto_resume)
    train_loop.train(experiment, as_stage)


def load_state(name: str, iteration: int) -> dict[str, Any]:
    """A training state of the working directory."""
    return torch.load(f'experiments/{name}/training_states/{iteration}.state', weights_only=True)


def load_ema(name: str) -> dict[str, torch.Tensor]:
    """The final averaged weights of an experiment of the working directory."""
    return torch.load(f'experiments/{name}/models/net_g_latest.pth', weights_only=True)['params_ema']


def log_text(name: str) -> str:
    """What all runs of an experiment logged."""
    return ''.join(path.read_text() for path in sorted(Path('experiments', name).glob('train_*.log')))


def validated(options: dict[str, Any], hr_folder: Path, val_freq: int, **metrics: dict[str, Any]) -> dict[str, Any]:
    """Options with a validation on the same images, measured by PSNR and other metrics."""
    psnr = {'type': 'calculate_psnr', 'crop_border': 4, 'test_y_channel': False}
    options['datasets']['val'] = {'name': 'check', 'type': 'DistilledPatchDataset', 'dataroot_gt': str(hr_folder)}
    options['val'] = {'val_freq': val_freq, 'save_img': False, 'metrics': {'psnr': psnr, **metrics}}
    return options
