"""A tiny recipe over patches of a photograph, for tests of training and sampling."""

import csv
import json

import cv2
import numpy as np
import skimage.data
import yaml

from basicsr_distill.archs.minimax_dit_arch import build_dit
from basicsr_distill.config.sections.dit import MinimaxDiTNetworkOptions
from basicsr_distill.io.files import sha256_file
from basicsr_distill.io.manifest import MANIFEST_NAME, PatchRow, write_table

SCRATCH = {
    'num_layers': 2,
    'num_attention_heads': 2,
    'attention_head_dim': 16,
    'patch_size': 2,
    'in_channels': 16,
    'sample_size': 4,
    'learn_variance': True,
}


def make_stages(root, count=24, size=32, num_labels=2):
    """The folders of finished extract and cluster stages: ``root/patches`` and ``root/clusters``."""
    photo = skimage.data.astronaut()
    images = root / 'patches' / 'images'
    images.mkdir(parents=True)
    rows, labels = [], []
    for number in range(count):
        top, left = 40 + 37 * (number // 10), 20 + 45 * (number % 10)
        name = f'astronaut_{number:06d}.png'
        cv2.imwrite(str(images / name), photo[top : top + size, left : left + size, ::-1])
        rows.append(PatchRow(name, 'astronaut.png', '0' * 64, top, left, size, 'matlab_rgb', 20.0 + number / 4))
        labels.append(number % num_labels)
    write_table(root / 'patches' / MANIFEST_NAME, rows, PatchRow)
    (root / 'patches' / 'stage.json').write_text(json.dumps({'stage': 'extract'}))
    clusters = root / 'clusters'
    clusters.mkdir()
    with (clusters / 'labels.csv').open('w', newline='') as file:
        csv.writer(file).writerows([['name', 'label'], *((row.name, label) for row, label in zip(rows, labels))])
    np.save(clusters / 'features.npy', np.random.default_rng(0).normal(size=(count, 62)).astype(np.float32))
    options = {'save_dir': 'clusters', 'encoder': {'type': 'texture'}, 'num_clusters': num_labels}
    inputs = {'patches': sha256_file(root / 'patches' / 'stage.json')}
    (clusters / 'stage.json').write_text(json.dumps({'stage': 'cluster', 'options': options, 'inputs': inputs}))
    return rows, labels


def dataset_section(root, **more):
    """Section of a LatentPatchDataset over :func:`make_stages`, as the training loop completes it."""
    return {
        'name': 'train',
        'type': 'LatentPatchDataset',
        'phase': 'train',
        'dataroot': str(root / 'patches'),
        'labels_file': str(root / 'clusters' / 'labels.csv'),
        'latents_dir': str(root / 'latents'),
        'codec': {'type': 'block_pca', 'components': 16},
        'batch_size_per_gpu': 4,
        **more,
    }


def recipe(root, name='tiny', **train):
    """Content of an option file; keyword arguments change its ``train`` section."""
    data = {
        'type': 'LatentPatchDataset',
        'dataroot': str(root / 'patches'),
        'labels_file': str(root / 'clusters' / 'labels.csv'),
        'codec': {'type': 'block_pca', 'components': 16},
        'use_hflip': True,
    }
    return {
        'name': name,
        'model_type': 'MinimaxDiTModel',
        'num_gpu': 0,
        'manual_seed': 3,
        'datasets': {'train': {'name': 'patches', **data, 'batch_size_per_gpu': 4}},
        'network_g': {'type': 'MinimaxDiT', 'num_labels': 2, 'tuning': 'full', 'from_scratch': dict(SCRATCH)},
        'train': {
            'total_iter': 8,
            'optim_g': {'type': 'AdamW', 'lr': 1e-3, 'weight_decay': 0},
            'scheduler': {'type': 'MultiStepLR', 'milestones': [6], 'gamma': 0.5},
            'representativeness_opt': {'type': 'RepresentativenessLoss', 'memory_size': 4},
            'diversity_opt': {'type': 'DiversityLoss', 'memory_size': 4},
            'high_frequency_opt': {'type': 'HighFrequencyLoss'},
            **train,
        },
        'logger': {'print_freq': 2, 'save_checkpoint_freq': 3},
    }


def write_recipe(path, options):
    """Write an option file."""
    path.write_text(yaml.safe_dump(options))
    return path


def make_dit(**section):
    """A denoiser from the keys of its section."""
    return build_dit(MinimaxDiTNetworkOptions(**section))
