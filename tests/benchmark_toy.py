"""A benchmark of six cells that takes seconds, and ways to run it."""

import csv
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml
from skimage import data
from support import REPOSITORY, save_rgb

from basicsr_distill.benchmark.results import COLUMNS

NETWORK = [
    'network_g:num_feat=8',
    'network_g:num_block=1',
    'datasets:train:batch_size_per_gpu=2',
    'datasets:train:gt_size=32',
]
TIMES = COLUMNS[-3:]


def make_toy(folder: Path, **jobs: Any) -> Path:
    """Two photographs, a recipe of 16 patches, and the benchmark file ``toy.yml``."""
    save_rgb(folder / 'photos' / 'astronaut.png', data.astronaut()[:256, :256])
    save_rgb(folder / 'held' / 'chelsea.png', data.chelsea()[:64, :96])
    recipe = {
        'name': 'pool',
        'scale': 4,
        'select': {'method': 'random', 'num_images': 1, 'save_dir': 'set'},
        'extract': {'dataroot': 'photos', 'save_dir': 'patches', 'patch_size': 64, 'stride': 64, 'threshold': 'q100'},
    }
    (folder / 'pool.yml').write_text(yaml.safe_dump(recipe))
    train = REPOSITORY / 'options' / 'train' / 'EDSR' / 'train_EDSR_x4_ablation.yml'
    benchmark = {
        'recipe': 'pool.yml',
        'counts': [3],
        'seeds': [0, 1],
        'sets': {'random': {'select': {}}, 'full': {'full': True}},
        'networks': {'edsr': {'opt': str(train), 'force_yml': NETWORK}},
        'budget': {'total_iter': 2, 'full_total_iter': 3},
        'tests': {'held': 'held'},
        'metrics': ['psnr_y'],
        'jobs': {'processes': 1} | jobs,
    }
    (folder / 'toy.yml').write_text(yaml.safe_dump({'name': 'toy', 'benchmark': benchmark}, sort_keys=False))
    return folder


def start(folder: Path, *arguments: str, **environment: str) -> 'subprocess.Popen[str]':
    """``basicsr benchmark -opt toy.yml`` in a folder."""
    return subprocess.Popen(
        [sys.executable, '-m', 'basicsr_distill', 'benchmark', '-opt', 'toy.yml', *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **environment},
    )


def rows_without_times(folder: Path) -> list[dict[str, str]]:
    """``results.csv`` of the toy, but for the times."""
    with (folder / 'experiments' / 'toy' / 'results.csv').open() as file:
        return [{key: value for key, value in row.items() if key not in TIMES} for row in csv.DictReader(file)]
