"""Whether sections fit one another: model and data, crops and scale, metrics and images, schedule and total_iter."""

import inspect
import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from basicsr.utils.registry import ARCH_REGISTRY, METRIC_REGISTRY

from basicsr_distill.config import registry
from basicsr_distill.config.experiment import Experiment
from basicsr_distill.config.recipe import ExperimentSections, Section
from basicsr_distill.config.sections.base import Options
from basicsr_distill.config.sections.datasets import (
    DistilledPatchDatasetOptions,
    HostDatasetOptions,
    PairedDatasetOptions,
    RealESRGANDatasetOptions,
    SingleImageDatasetOptions,
)
from basicsr_distill.config.sections.sr_models import DegradationRootOptions, SRTrainOptions
from basicsr_distill.errors import InputError
from basicsr_distill.training.keys import component_type, find_component

# RealESRGANDataset hands out crops of this size, and the queue of degraded images keeps it.
_BLIND_POOL_PX = 400
# Architectures whose ``scale`` is the factor between input and output; of all others it is ``upscale``.
_SCALE_IN_SCALE = ('RRDBNet', 'ECBSR', 'DUF')
_IN_CHANNELS = ('num_in_ch', 'in_chans')
_OUT_CHANNELS = ('num_out_ch', 'out_chans')
_LOWER = ('calculate_niqe', 'calculate_fid', 'calculate_lpips')
_HIGHER = ('calculate_psnr', 'calculate_psnr_pt', 'calculate_ssim', 'calculate_ssim_pt')


def check_model_and_data(experiment: Experiment) -> None:
    """Refuse data sets that do not fit the model, the scale, or a training.

    Raises:
        InputError: names the key.
    """
    sections = experiment.recipe.experiment
    assert sections is not None
    path, scale = experiment.path, sections.root.scale
    paired = [section.type for section in sections.datasets.values() if isinstance(section, PairedDatasetOptions)]
    if paired and scale is None:
        raise InputError(f"{path}: key 'scale' is missing, which {paired[0]} needs.")
    if is_sr_model(sections.model_type):
        _check_networks(path, sections)
    train = sections.datasets.get('train')
    if not experiment.opt['is_train'] or not isinstance(train, (HostDatasetOptions, DistilledPatchDatasetOptions)):
        return
    for key in sections.root.missing_to_train():
        raise InputError(f'{path}: key {key!r} is missing, which {sections.model_type} needs for training.')
    where = f'{path}: datasets.train'
    if isinstance(train, HostDatasetOptions):
        _check_training(where, train, scale)
    makes_lr = isinstance(sections.root, DegradationRootOptions) and sections.root.high_order_degradation
    if isinstance(train, RealESRGANDatasetOptions) and not makes_lr:
        raise InputError(
            f'{where}: RealESRGANDataset gives no LR images to {sections.model_type}; use RealESRNetModel or '
            'RealESRGANModel with high_order_degradation: true.'
        )
    if makes_lr and not isinstance(train, RealESRGANDatasetOptions):
        raise InputError(
            f'{where}: {train.type} gives no blur kernels to {sections.model_type}; set '
            'high_order_degradation: false to train on its pairs, or use RealESRGANDataset.'
        )
    if makes_lr:
        assert isinstance(sections.root, DegradationRootOptions)
        _check_blind_sizes(experiment, sections.root)


def is_sr_model(model_type: str) -> bool:
    """Whether a model is one of BasicSR's for images, or made of one."""
    return issubclass(registry.models('train').get(model_type, Options), SRTrainOptions)


def _check_networks(path: Path, sections: ExperimentSections) -> None:
    generator, scale = sections.networks['network_g'], sections.root.scale
    if scale is not None:
        key = 'scale' if component_type(generator) in _SCALE_IN_SCALE else 'upscale'
        _check_network(path, 'network_g', generator, [key], scale, f'scale: {scale}')
    for name, data in sections.datasets.items():
        if not isinstance(data, (HostDatasetOptions, DistilledPatchDatasetOptions)):
            continue
        channels = 1 if getattr(data, 'color', None) == 'y' else 3
        reason = f'datasets.{name}, which gives {"1 channel (color: y)" if channels == 1 else "3 channels"}'
        keys = _IN_CHANNELS if isinstance(data, SingleImageDatasetOptions) else [*_IN_CHANNELS, *_OUT_CHANNELS]
        _check_network(path, 'network_g', generator, keys, channels, reason)
        if 'network_d' in sections.networks:
            _check_network(path, 'network_d', sections.networks['network_d'], _IN_CHANNELS, channels, reason)


def _check_network(path: Path, name: str, section: Section, keys: Sequence[str], value: int, reason: str) -> None:
    """Compare what a network is given, or has by default, with the value that its data ask for."""
    if isinstance(section, Options):
        return
    parameters = inspect.signature(find_component(path, name, section['type'], ARCH_REGISTRY)).parameters
    for key in keys:
        given = section.get(key, parameters[key].default) if key in parameters else None
        if isinstance(given, int) and given != value:
            raise InputError(f'{path}: {name}.{key}: {given} does not agree with {reason}; let them agree.')


def _check_training(where: str, section: HostDatasetOptions, scale: int | None) -> None:
    if isinstance(section, SingleImageDatasetOptions):
        raise InputError(
            f'{where}: {section.type} has no HR images to learn from; use PairedImageDataset or DistilledPatchDataset.'
        )
    needed = ('use_hflip', 'use_rot', *(('gt_size',) if isinstance(section, PairedDatasetOptions) else ()))
    for key in needed:
        if key not in section.model_fields_set:
            raise InputError(f'{where}: {section.type} needs the key {key!r}.')
    if isinstance(section, PairedDatasetOptions):
        _check_crop(f'{where}.gt_size', section.gt_size, scale)


def _check_crop(where: str, gt_size: int | None, scale: int | None) -> None:
    """Refuse a crop that is no whole number of LR pixels."""
    if gt_size is None:
        raise InputError(f'{where}: is empty; give the side of the crops, pixels.')
    if scale is not None and gt_size % scale:
        lower = gt_size - gt_size % scale
        raise InputError(f'{where}: {gt_size} is not a multiple of the scale {scale}; write {lower or scale}.')


def _check_blind_sizes(experiment: Experiment, root: DegradationRootOptions) -> None:
    path, opt = experiment.path, experiment.opt
    _check_crop(f'{path}: gt_size', root.gt_size, root.scale)
    assert root.gt_size is not None
    if root.gt_size > _BLIND_POOL_PX:
        raise InputError(
            f'{path}: gt_size: {root.gt_size} is more than the {_BLIND_POOL_PX} pixels that '
            f'RealESRGANDataset hands out; write at most {_BLIND_POOL_PX}.'
        )
    batch = opt['datasets']['train']['batch_size_per_gpu'] * (1 if opt['dist'] else max(1, opt['num_gpu']))
    if root.queue_size % batch:
        raise InputError(
            f'{path}: queue_size: {root.queue_size} is not a multiple of the batch size {batch}; set queue_size: '
            f'{batch * max(1, round(root.queue_size / batch))}.'
        )


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


def check_metrics(experiment: Experiment) -> None:
    """Refuse metrics that cannot be measured, and write down which way each is better: BasicSR keeps the best value.

    Raises:
        InputError: names the metric.
    """
    for name, metric in ((experiment.opt.get('val') or {}).get('metrics') or {}).items():
        where = f'{experiment.path}: val.metrics.{name}'
        metric['better'] = _direction(where, metric)
        crop = metric.get('crop_border', 0)
        if isinstance(crop, bool) or not isinstance(crop, int) or crop < 0:
            raise InputError(f'{where}.crop_border: {crop!r} is not a whole number of pixels; write 0 or more.')
        if metric.get('input_order', 'HWC') != 'HWC':
            raise InputError(f'{where}.input_order: {metric["input_order"]!r}, but images come as HWC; remove the key.')
        _check_reference(where, metric['type'], experiment)


def _direction(where: str, metric: dict[str, Any]) -> str:
    known = 'lower' if metric['type'] in _LOWER else 'higher' if metric['type'] in _HIGHER else None
    given = metric.get('better')
    if given not in (None, 'lower', 'higher'):
        raise InputError(f'{where}.better: {given!r} is neither higher nor lower.')
    if given and known and given != known:
        raise InputError(f'{where}.better: {given}, but a {known} {metric["type"]} is the better one; remove the key.')
    if not given and not known:
        logging.getLogger('basicsr').warning('%s.better: is not given; taken for higher, as BasicSR does.', where)
    return str(given or known or 'higher')


def _check_reference(where: str, metric: str, experiment: Experiment) -> None:
    """BasicSR would go on comparing with the HR image of an earlier batch."""
    component = find_component(experiment.path, where, metric, METRIC_REGISTRY)
    if 'img2' not in inspect.signature(component).parameters:
        return
    sections = experiment.recipe.experiment
    assert sections is not None
    for phase, section in sections.datasets.items():
        if phase != 'train' and isinstance(section, SingleImageDatasetOptions):
            raise InputError(
                f'{where}: {metric} compares with HR images, which datasets.{phase} ({section.type}) has not; give it '
                'a file of its own without this metric, or use PairedImageDataset.'
            )


def check_schedule(experiment: Experiment) -> None:
    """Refuse a ``train.scheduler`` whose lists do not fit each other or the length of the training.

    Raises:
        InputError: names the key.
    """
    section, total = (experiment.opt['train'][key] for key in ('scheduler', 'total_iter'))
    where = f'{experiment.path}: train.scheduler'
    if section['type'] == 'CosineAnnealingRestartLR':
        _check_numbers(section, where, 'periods', lowest=1)
        _check_numbers(section, where, 'restart_weights', lowest=0)
        _check_as_many_weights(section, where, 'periods', default=None)
        # The last step of the scheduler is that of iteration total - 1.
        if sum(section['periods']) < total - 1:
            raise InputError(
                f'{where}.periods: {section["periods"]} end at iteration {sum(section["periods"])}, before '
                f'total_iter: {total}; let them add up to {total}.'
            )
    else:
        for key in ('milestones', 'restarts', 'restart_weights'):
            _check_numbers(section, where, key, lowest=0)
        _check_as_many_weights(section, where, 'restarts', default=[0])


def _check_numbers(section: dict[str, Any], where: str, key: str, lowest: int) -> None:
    values = section.get(key, [])
    if not isinstance(values, (list, tuple)) or not all(
        isinstance(value, (int, float)) and not isinstance(value, bool) and value >= lowest for value in values
    ):
        raise InputError(f'{where}.{key}: {values!r} is not a list of numbers of at least {lowest}.')


def _check_as_many_weights(section: dict[str, Any], where: str, key: str, default: list[int] | None) -> None:
    values, weights = section.get(key, default), section.get('restart_weights', [1])
    if not values or len(values) != len(weights):
        raise InputError(f'{where}.restart_weights: {weights!r} must have one number for each of {key}: {values!r}.')
