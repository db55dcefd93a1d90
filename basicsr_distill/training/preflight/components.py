"""Whether what an option file names exists: weights, labels, backbones, data, and enough images for a batch."""

import math
from pathlib import Path
from typing import Any

from basicsr.data import build_dataset

from basicsr_distill.config.experiment import Experiment
from basicsr_distill.errors import InputError
from basicsr_distill.features.backbones import backbone_file
from basicsr_distill.io.manifest import read_labels
from basicsr_distill.io.weights import load_weights
from basicsr_distill.metrics.lpips_metric import load_lpips


def check_pretrained(experiment: Experiment) -> None:
    """Refuse a damaged or malicious checkpoint before anything is written.

    Raises:
        InputError: as :func:`basicsr_distill.io.weights.load_weights`.
    """
    path, opt = experiment.path, experiment.opt
    files = {f'path.{key}': value for key, value in opt['path'].items() if 'pretrain_network' in key}
    files['train.generator_weights'] = (opt.get('train') or {}).get('generator_weights')
    for key, value in files.items():
        if isinstance(value, str):
            try:
                load_weights(value)
            except InputError as error:
                raise InputError(f'{path}: {key}: {error}') from error


def check_labels(experiment: Experiment) -> None:
    """Refuse pseudo-labels outside the network's table before the patches are encoded.

    Raises:
        InputError: names the number that is needed.
    """
    path, opt = experiment.path, experiment.opt
    section = opt['datasets']['train']
    if section['type'] == 'LatentPatchDataset' and 'num_labels' in opt['network_g']:
        highest = max(read_labels(Path(section['labels_file'])).values(), default=0)
        if highest >= opt['network_g']['num_labels']:
            raise InputError(
                f'{path}: network_g.num_labels: {section["labels_file"]} has labels up to {highest}; '
                f'set num_labels: {highest + 1}.'
            )


def check_backbones(experiment: Experiment) -> None:
    """Refuse a run whose perceptual loss or LPIPS lacks its weights now, not when they are first needed."""
    path, opt = experiment.path, experiment.opt
    perceptual = [
        (key, value)
        for key, value in (opt.get('train') or {}).items()
        if isinstance(value, dict) and value.get('type') == 'PerceptualLoss'
    ]
    for key, value in perceptual:
        try:
            backbone_file(value.get('vgg_type', 'vgg19'))
        except InputError as error:
            raise InputError(f'{path}: train.{key}: {error}.') from error
    for key, value in ((opt.get('val') or {}).get('metrics') or {}).items():
        if value['type'] == 'calculate_lpips':
            try:
                load_lpips(value['net'], value['weights'])
            except InputError as error:
                raise InputError(
                    f'{path}: val.metrics.{key}: {error}; or leave the metric out with '
                    f'--force_yml val:metrics:{key}=none.'
                ) from error


def build_checked_dataset(experiment: Experiment, name: str) -> Any:
    """A data set of the experiment that holds something.

    Raises:
        InputError: it cannot be built, or is empty.
    """
    path, section = experiment.path, experiment.opt['datasets'][name]
    try:
        dataset = build_dataset(section)
    except KeyError as error:
        raise InputError(f'{path}: datasets.{name}: {section["type"]} needs the key {error}.') from error
    except InputError as error:
        raise InputError(f'{path}: datasets.{name}: {error}') from error
    except (TypeError, ValueError, AttributeError, IndexError, AssertionError) as error:
        raise InputError(
            f'{path}: datasets.{name}: {section["type"]} cannot be built with these values ({error}).'
        ) from error
    if len(dataset) == 0:
        raise InputError(
            f'{path}: datasets.{name}: {section.get("dataroot_gt") or section.get("dataroot_lq")} holds no images.'
        )
    return dataset


def check_batch(experiment: Experiment, num_samples: int) -> None:
    """Refuse a batch that the training set cannot fill.

    Raises:
        InputError: names the ``dataset_enlarge_ratio`` that would do.
    """
    path, opt = experiment.path, experiment.opt
    section = opt['datasets']['train']
    batch = section['batch_size_per_gpu'] * (opt['world_size'] if opt['dist'] else max(1, opt['num_gpu']))
    available = num_samples * section['dataset_enlarge_ratio']
    if batch > available:
        raise InputError(
            f'{path}: datasets.train.batch_size_per_gpu: a batch of {batch} is larger than the set of {num_samples} '
            f'images; set dataset_enlarge_ratio: {math.ceil(batch / num_samples)} or a smaller batch.'
        )
