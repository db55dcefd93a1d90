"""A folder in which every command has something small to do: photographs, recipes, and option files."""

import shutil
from pathlib import Path
from typing import Any

import skimage.data
import yaml
from dying import digests, run
from sr_experiments import train_options
from support import EVERY_LIMIT, save_rgb

LABELS = 2


def make_project(root: Path) -> Path:
    """Photographs, and the option files of :data:`COMMANDS`."""
    save_rgb(root / 'photos' / 'astronaut.png', skimage.data.astronaut()[:192, 60:316])
    save_rgb(root / 'photos' / 'chelsea.png', skimage.data.chelsea()[60:188, 100:292])
    save_rgb(root / 'photos' / 'rocket.png', skimage.data.rocket()[100:228, 250:378])
    save_rgb(root / 'held' / 'coffee.png', skimage.data.coffee()[100:164, 200:264])
    (root / 'scores.txt').write_text('astronaut 0.9\nchelsea 0.8\nrocket 0.7\n')
    for name, content in _files().items():
        (root / name).write_text(yaml.safe_dump(content, sort_keys=False))
    return root


def _files() -> dict[str, dict[str, Any]]:
    extract = {
        'dataroot': 'photos',
        'save_dir': 'out/patches',
        'patch_size': 32,
        'stride': 32,
        'threshold': 'median',
        'num_workers': 1,
    }
    curated = {
        'name': 'curated',
        'scale': 4,
        'extract': extract
        | {
            'save_dir': 'out/curated',
            'stride': None,
            'windows': 'best',
            'deduplicate': 'perceptual',
            'max_per_image': 9,
            'scores': {'file': 'scores.txt', 'min': 'q1'},
            **EVERY_LIMIT,
            'source_filters': {**EVERY_LIMIT['source_filters'], 'blockiness': {'max': 'q99'}},
        },
    }
    cluster = {'save_dir': 'out/clusters', 'encoder': {'type': 'texture'}, 'num_clusters': LABELS}
    labelled = {'dataroot': 'out/patches', 'labels_file': 'out/clusters/labels.csv', 'batch_size_per_gpu': 4}
    common = {'scale': 4, 'num_gpu': 0, 'manual_seed': 3, 'logger': {'print_freq': 10, 'save_checkpoint_freq': 5}}
    schedule = {'type': 'MultiStepLR', 'milestones': [15], 'gamma': 0.5}
    recipe = {
        'name': 'tiny',
        'model_type': 'MinimaxDiTModel',
        **common,
        'extract': extract,
        'cluster': cluster,
        'select': {'save_dir': 'out/medoids', 'method': 'medoids', 'num_images': 6, 'encoder': {'type': 'texture'}},
        'sample': {'images_per_cluster': 6, 'num_steps': 4, 'batch_size': 2, 'save_dir': 'out/set'},
        'datasets': {
            'train': {
                'name': 'patches',
                'type': 'LatentPatchDataset',
                **labelled,
                'use_hflip': True,
                'codec': {'type': 'block_pca', 'components': 16},
            }
        },
        'network_g': {
            'type': 'MinimaxDiT',
            'num_labels': LABELS,
            'tuning': 'full',
            'from_scratch': {
                'num_layers': 1,
                'num_attention_heads': 2,
                'attention_head_dim': 16,
                'patch_size': 2,
                'in_channels': 16,
                'sample_size': 4,
                'learn_variance': True,
            },
        },
        'train': {
            'total_iter': 30,
            'optim_g': {'type': 'AdamW', 'lr': 1e-3, 'weight_decay': 0},
            'scheduler': schedule,
            'representativeness_opt': {'type': 'RepresentativenessLoss', 'memory_size': 4},
            'diversity_opt': {'type': 'DiversityLoss', 'memory_size': 4},
            'high_frequency_opt': {'type': 'HighFrequencyLoss'},
        },
    }
    gsdd = {
        'name': 'tiny_gsdd',
        'model_type': 'GSDDModel',
        **common,
        'extract': extract,
        'cluster': cluster,
        'sample': {'save_dir': 'out/gsdd', 'images_per_cluster': 2},
        'datasets': {'train': {'name': 'patches', 'type': 'LabelledPatchDataset', **labelled}},
        'network_g': {'type': 'LatentImages', 'num_labels': LABELS, 'images_per_label': 2, 'size_px': 8},
        'train': {
            'total_iter': 30,
            'optim_g': {'type': 'Adam', 'lr': 5e-3},
            'scheduler': schedule,
            'generator': None,
            'extractor': {'type': 'random_conv', 'width': 8},
            'diversity_weight': 0.1,
        },
    }
    train = train_options(Path('photos'), 'sr', total_iter=30, dataset_enlarge_ratio=8)
    test = {
        'name': 'sr',
        'model_type': 'SRModel',
        'scale': 4,
        'num_gpu': 0,
        'network_g': train['network_g'],
        'datasets': {'test': {'name': 'held', 'type': 'DistilledPatchDataset', 'dataroot_gt': 'held'}},
        'path': {'pretrain_network_g': 'experiments/sr/models/net_g_latest.pth'},
        'val': {'save_img': True, 'metrics': {'psnr': {'type': 'calculate_psnr', 'crop_border': 4}}},
    }
    benchmark = {
        'name': 'toy',
        'benchmark': {
            'recipe': 'recipe.yml',
            'counts': [3],
            'seeds': [0],
            'sets': {'random': {'select': {'method': 'random'}}},
            'networks': {'sr': {'opt': 'train.yml'}},
            'budget': {'total_iter': 4},
            'tests': {'held': 'held'},
            'metrics': ['psnr_y'],
            'jobs': {'processes': 1},
        },
    }
    return {
        'recipe.yml': recipe,
        'curated.yml': curated,
        'gsdd.yml': gsdd,
        'train.yml': train,
        'test.yml': test,
        'benchmark.yml': benchmark,
    }


def distill(stage: str, file: str = 'recipe.yml') -> list[str]:
    """The command of a stage."""
    return ['distill', '-opt', file, '--stage', stage]


# What must have run before, the command, and the files that it makes.
COMMANDS: dict[str, tuple[list[list[str]], list[str], list[str]]] = {
    'extract': ([], distill('extract'), ['out/patches/**/*']),
    'curated': ([], distill('extract', 'curated.yml'), ['out/curated/**/*']),
    'cluster': ([distill('extract')], distill('cluster'), ['out/clusters/**/*']),
    'select': ([distill('extract'), distill('cluster')], distill('select'), ['out/medoids/**/*']),
    'finetune': (
        [distill('extract'), distill('cluster')],
        distill('finetune'),
        ['experiments/tiny/latents/**/*', 'experiments/tiny/models/*', 'experiments/tiny/training_states/*'],
    ),
    'sample': ([distill('extract'), distill('cluster'), distill('finetune')], distill('sample'), ['out/set/**/*']),
    'gsdd': (
        [distill('extract', 'gsdd.yml'), distill('cluster', 'gsdd.yml')],
        ['distill', '-opt', 'gsdd.yml', '--stage', 'finetune', 'sample'],
        ['out/gsdd/**/*', 'experiments/tiny_gsdd/models/*', 'experiments/tiny_gsdd/training_states/*'],
    ),
    'train': (
        [],
        ['train', '-opt', 'train.yml', '--auto_resume'],
        ['experiments/sr/models/*', 'experiments/sr/training_states/*'],
    ),
    'test': (
        [['train', '-opt', 'train.yml', '--auto_resume']],
        ['test', '-opt', 'test.yml'],
        ['results/sr/metrics.json', 'results/sr/visualization/**/*'],
    ),
}


def run_all(folder: Path, *commands: list[str]) -> None:
    """Commands one after the other, all of which succeed."""
    for command in commands:
        code, output = run(folder, *command)
        assert code == 0, output


def ready_for(folder: Path, name: str) -> Path:
    """A new project in which everything has run that a command needs."""
    folder.mkdir()
    make_project(folder)
    run_all(folder, *COMMANDS[name][0])
    return folder


def ready_and_expected(folder: Path, name: str) -> tuple[list[str], dict[str, str]]:
    """A project ready for a command; the command, and what it leaves in a copy of the project."""
    whole = ready_for(folder.with_name('whole'), name)
    shutil.copytree(whole, folder)
    command, files = COMMANDS[name][1:]
    run_all(whole, command)
    return command, digests(whole, *files)
