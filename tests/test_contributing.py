"""A toy of everything that CONTRIBUTING.md has a line for, added to a copy of the package by just those lines."""

import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import pytest
import yaml
from skimage import data
from support import REPOSITORY

NEW_FILES = {
    # 1: registered components
    'archs/toy_arch.py': """
from basicsr.utils.registry import ARCH_REGISTRY
from torch import nn


@ARCH_REGISTRY.register()
class Toy(nn.Module):
    def __init__(self, upscale: int = 4, sharpness: float = 1.0) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 3 * upscale**2, 3, padding=1), nn.PixelShuffle(upscale))
        self.sharpness = sharpness

    def forward(self, lr):
        return self.sharpness * self.body(lr)
""",
    'data/toy_dataset.py': """
import torch
from basicsr.utils.registry import DATASET_REGISTRY
from basicsr_distill.config.registry import bind_dataset


@DATASET_REGISTRY.register()
class ToyDataset(torch.utils.data.Dataset):
    def __init__(self, opt):
        self.options = bind_dataset(opt)

    def __len__(self):
        return self.options.length

    def __getitem__(self, index):
        return {'lq': torch.full((3, 4, 4), 0.5), 'gt': torch.full((3, 16, 16), 0.5), 'lq_path': '', 'gt_path': ''}
""",
    'losses/toy_loss.py': """
from basicsr.utils.registry import LOSS_REGISTRY
from torch import nn


@LOSS_REGISTRY.register()
class ToyLoss(nn.Module):
    def __init__(self, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.loss_weight = loss_weight

    def forward(self, pred, target, weight=None):
        return self.loss_weight * (pred - target).abs().mean()
""",
    # 1: a term of the fine-tuning, with its section
    'losses/toy_term_loss.py': """
from basicsr.utils.registry import LOSS_REGISTRY
from torch import nn


@LOSS_REGISTRY.register()
class ToyTermLoss(nn.Module):
    needs_whole_batch = True

    def __init__(self, loss_weight: float) -> None:
        super().__init__()
        self.loss_weight = loss_weight

    def forward(self, prediction, batch):
        return self.loss_weight * (prediction.x0_pred - batch.x0).abs().max()
""",
    'config/sections/toy_term.py': '''
from typing import Literal

from pydantic import Field

from basicsr_distill.config.registry import register
from basicsr_distill.config.sections.base import Options


@register('term', 'toy_term_opt')
class ToyTermOptions(Options):
    """The largest error."""

    type: Literal['ToyTermLoss'] = Field('ToyTermLoss', description='The largest error.')
    loss_weight: float = Field(0.5, description='Factor.')
''',
    # 2: options of the dataset, 6: of the stage
    'config/sections/toy.py': '''
from pydantic import Field

from basicsr_distill.config.registry import register
from basicsr_distill.config.sections.base import Options, OutputFolder, PositiveInt
from basicsr_distill.config.sections.datasets import DatasetOptions
from typing import Literal


@register('dataset')
class ToyDatasetOptions(DatasetOptions):
    """Grey images."""

    type: Literal['ToyDataset'] = Field('ToyDataset', description='Grey images.')
    length: PositiveInt = Field(8, description='How many.')


@register('stage', 'toy')
class ToyOptions(Options):
    """Counts patches."""

    save_dir: OutputFolder = Field(description='Folder that the stage makes.')
''',
    # 6: the stage
    'stages/toy/__init__.py': '',
    'stages/toy/stage.py': """
from pathlib import Path

from basicsr_distill.io.inputs import file_inputs
from basicsr_distill.io.manifest import MANIFEST_NAME, PatchRow, read_table
from basicsr_distill.stages.record import StagePlan, StageResult, fingerprint_stage
from basicsr_distill.stages.sharding import shared_stage_folder


def plan(recipe) -> StagePlan:
    inputs = {'patches': fingerprint_stage(Path(recipe.extract.save_dir)), **file_inputs(recipe.toy, 'toy')}
    return StagePlan(Path(recipe.toy.save_dir), 'toy', recipe.toy.model_dump(), inputs)


def run(recipe) -> StageResult:
    patches = Path(recipe.extract.save_dir)
    with shared_stage_folder(plan(recipe)) as stage:
        if not stage.finished:
            stage.finish({'counted': len(read_table(patches / MANIFEST_NAME, PatchRow))})
    return stage.result
""",
    # 5: a method of select
    'selection/toy_choice.py': """
import numpy as np


def choose_last(num_patches, count):
    return np.arange(num_patches)[::-1][:count].astype(np.int64)
""",
    # 4: a filter
    'ops/toy_measure.py': """
def brightness(rgb):
    return float(rgb.mean())
""",
}
EDITS = [
    # 3: a key
    (
        'config/sections/extract.py',
        '    drop_hardest:',
        "    skip_first: bool = Field(False, description='Leave the first image out.')\n    drop_hardest:",
    ),
    (
        'stages/extract/stage.py',
        '    if not images:',
        """    if options.skip_first:
        images = images[1:]
    if not images:""",
    ),
    # 4
    (
        'stages/extract/filters.py',
        "    'grey': colourfulness,",
        "    'grey': colourfulness,\n    'bright': brightness,",
    ),
    (
        'stages/extract/filters.py',
        'from basicsr_distill.ops.texture',
        'from basicsr_distill.ops.toy_measure import brightness\nfrom basicsr_distill.ops.texture',
    ),
    (
        'config/sections/extract.py',
        '    grey: FilterLimits',
        "    bright: FilterLimits | None = Field(None, description='Mean, of 255.')\n    grey: FilterLimits",
    ),
    # 5
    ('config/sections/select.py', "'file']", "'file', 'last']"),
    (
        'stages/select/choose.py',
        "    'random': Method(",
        "    'last': Method(lambda pool, count: choose_last(len(pool), count)),\n    'random': Method(",
    ),
    (
        'stages/select/choose.py',
        'from basicsr_distill.stages.select.pool',
        'from basicsr_distill.selection.toy_choice import choose_last\nfrom basicsr_distill.stages.select.pool',
    ),
    # 6
    ('config/__init__.py', "'select', 'finetune'", "'select', 'toy', 'finetune'"),
    ('config/recipe.py', '    select: SelectOptions | None\n', "    select: SelectOptions | None\n    toy: 'Any'\n"),
]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    shutil.copytree(
        REPOSITORY / 'basicsr_distill', tmp_path / 'basicsr_distill', ignore=shutil.ignore_patterns('__pycache__')
    )
    for name, text in NEW_FILES.items():
        path = tmp_path / 'basicsr_distill' / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    for name, old, new in EDITS:
        path = tmp_path / 'basicsr_distill' / name
        text = path.read_text()
        assert old in text, (name, old)
        path.write_text(text.replace(old, new, 1))
    return tmp_path


def basicsr(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, '-m', 'basicsr_distill', *arguments], cwd=root, capture_output=True, text=True
    )


def test_every_line_leads_to_something_that_works(root: Path) -> None:
    (root / 'photos').mkdir()
    for name in ('a_first.png', 'bright.png'):
        cv2.imwrite(str(root / 'photos' / name), data.chelsea()[:128, :128])
    cv2.imwrite(str(root / 'photos' / 'dark.png'), data.chelsea()[:128, :128] // 4)
    train = {
        'name': 'toy',
        'model_type': 'SRModel',
        'scale': 4,
        'num_gpu': 0,
        'datasets': {
            'train': {
                'name': 'grey',
                'type': 'ToyDataset',
                'length': 4,
                'batch_size_per_gpu': 2,
                'num_worker_per_gpu': 0,
            }
        },
        'network_g': {'type': 'Toy', 'sharpness': 0.5},
        'path': {},
        'train': {
            'total_iter': 2,
            'optim_g': {'type': 'Adam', 'lr': 0.001},
            'scheduler': {'type': 'MultiStepLR', 'milestones': [2]},
            'pixel_opt': {'type': 'ToyLoss'},
        },
        'logger': {'print_freq': 1, 'save_checkpoint_freq': 2, 'use_tb_logger': False},
    }
    recipe = {
        'name': 'toy',
        'scale': 4,
        'toy': {'save_dir': 'count'},
        'extract': {
            'dataroot': 'photos',
            'save_dir': 'patches',
            'patch_size': 32,
            'threshold': 'q100',
            'skip_first': True,
            'source_filters': {'bright': {'min': 50}},
        },
        'select': {'method': 'last', 'num_images': 2, 'save_dir': 'set'},
    }
    (root / 'train.yml').write_text(yaml.safe_dump(train))
    (root / 'recipe.yml').write_text(yaml.safe_dump(recipe))
    run = basicsr(root, 'train', '-opt', 'train.yml')
    assert run.returncode == 0, run.stderr
    assert (root / 'experiments' / 'toy' / 'models' / 'net_g_latest.pth').is_file()
    run = basicsr(root, 'distill', '-opt', 'recipe.yml')
    assert run.returncode == 0, run.stderr
    assert 'counted 16' in run.stderr and 'first' not in (root / 'patches' / 'manifest.csv').read_text()
    assert 'dark.png,bright,' in (root / 'patches' / 'quarantine.csv').read_text()
    assert len(list((root / 'set' / 'HR').iterdir())) == 2
    run = basicsr(root, 'train', '-opt', 'train.yml', '--force_yml', 'datasets:train:lenght=3')
    assert run.returncode == 2 and "did you mean 'length'" in run.stderr
    assert '"skip_first"' in basicsr(root, 'schema').stdout
    terms = subprocess.run([sys.executable, '-c', TERMS], cwd=root, capture_output=True, text=True, check=True)
    assert terms.stdout.split() == ['toy_term', '0.5', 'True']


TERMS = """
import basicsr_distill, basicsr
from basicsr_distill.config.registry import models
from basicsr_distill.losses.objective import build_losses

options = models('train')['MinimaxDiTModel'](total_iter=1, optim_g={}, scheduler={}, toy_term_opt={})
(name, loss), = build_losses(options, num_labels=1, latent_dim=1, decode=None).items()
print(name, loss.loss_weight, loss.needs_whole_batch)
"""
