"""What is checked before a run touches the disk: that an hour-long run does not end in a misspelt word."""

import inspect
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from basicsr.data import build_dataset
from basicsr.models import lr_scheduler
from basicsr.utils.registry import (
    ARCH_REGISTRY,
    DATASET_REGISTRY,
    LOSS_REGISTRY,
    METRIC_REGISTRY,
    MODEL_REGISTRY,
    Registry,
)

from basicsr_distill.config.sections.base import nearest_name
from basicsr_distill.data.latent_patch_dataset import read_labels
from basicsr_distill.errors import InputError
from basicsr_distill.features.backbones import backbone_file
from basicsr_distill.io.weights import load_weights
from basicsr_distill.metrics.lpips_metric import load_lpips

# By the names that BasicSR's ``setup_schedulers`` knows.
_SCHEDULERS = {
    'MultiStepLR': lr_scheduler.MultiStepRestartLR,
    'MultiStepRestartLR': lr_scheduler.MultiStepRestartLR,
    'CosineAnnealingRestartLR': lr_scheduler.CosineAnnealingRestartLR,
}
# What a model or metric function gets beside the keys of its section.
_GIVEN = {'self', 'img', 'img2', 'params', 'optimizer'}
# What a model adds to the section of a loss, by the data it trains on.
_ADDED = {'num_labels', 'latent_dim'}
# What BasicSR itself reads from a section.
_HOST_KEYS = {'type', 'better'}


def check_components(path: Path, opt: dict[str, Any]) -> None:
    """Refuse a component that does not exist, and keys that it does not take, before anything is built.

    Raises:
        InputError: names the key and the nearest known one.
    """
    for key, section, registry in _sections(opt):
        name = section if isinstance(section, str) else section.get('type')
        component = _component(name, registry)
        if component is None:
            known = {entry.removesuffix('_basicsr') for entry, _ in registry}
            where = key if isinstance(section, str) else f'{key}.type'
            raise InputError(f'{path}: {where}: {name!r} is not registered; did you mean {nearest_name(str(name), known)!r}?')
        if isinstance(section, dict) and registry not in (DATASET_REGISTRY, MODEL_REGISTRY):
            _check_keys(path, key, section, component)
    for key, section in (opt.get('train') or {}).items():
        if key.startswith('optim_') or key == 'scheduler':
            if not isinstance(section, dict) or not isinstance(section.get('type'), str):
                raise InputError(f'{path}: train.{key}: must be a section with the key \'type\'.')
            component = _SCHEDULERS.get(section['type']) if key == 'scheduler' else getattr(torch.optim, section['type'], None)
            if component is None:
                known = set(_SCHEDULERS) if key == 'scheduler' else {name for name in dir(torch.optim) if name[0].isupper()}
                raise InputError(f'{path}: train.{key}.type: {section["type"]!r} is not known; did you mean '
                                 f'{nearest_name(section["type"], known)!r}?')
            _check_keys(path, f'train.{key}', section, component)


def _sections(opt: dict[str, Any]) -> Iterator[tuple[str, Any, Registry]]:
    """Every section that names a registered component: its key, itself (or the bare name), the registry."""
    yield 'model_type', opt['model_type'], MODEL_REGISTRY
    yield from ((f'datasets.{name}', section, DATASET_REGISTRY) for name, section in opt['datasets'].items())
    yield from ((key, value, ARCH_REGISTRY) for key, value in opt.items()
                if key.startswith('network_') and isinstance(value, dict))
    yield from ((f'train.{key}', value, LOSS_REGISTRY) for key, value in (opt.get('train') or {}).items()
                if key.endswith('_opt') and isinstance(value, dict) and 'type' in value)
    yield from ((f'val.metrics.{key}', value, METRIC_REGISTRY)
                for key, value in ((opt.get('val') or {}).get('metrics') or {}).items())


def _component(name: Any, registry: Registry) -> Callable[..., Any] | None:
    """The component of a name as BasicSR finds it: its own doubles carry a suffix."""
    entries = dict(iter(registry))
    return entries.get(name) or entries.get(f'{name}_basicsr')


def _check_keys(path: Path, where: str, section: dict[str, Any], component: Callable[..., Any]) -> None:
    parameters = inspect.signature(component).parameters.values()
    names = {parameter.name for parameter in parameters if parameter.kind in (
        parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)} - _GIVEN
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
    unknown = sorted(set(section) - names - _HOST_KEYS)
    if unknown and not takes_any:
        hint = f'; did you mean {nearest_name(unknown[0], names)!r}?' if names else '.'
        raise InputError(f'{path}: {where}: {section["type"]} takes no key {unknown[0]!r}{hint}')
    required = sorted(parameter.name for parameter in parameters if parameter.name in names - set(section) - _ADDED
                      and parameter.default is parameter.empty)
    if required:
        raise InputError(f'{path}: {where}: {section["type"]} needs the key {required[0]!r}.')


def check_pretrained(path: Path, opt: dict[str, Any]) -> None:
    """Refuse a damaged or malicious checkpoint before anything is written.

    Raises:
        InputError: as :func:`basicsr_distill.io.weights.load_weights`.
    """
    for key, value in opt['path'].items():
        if 'pretrain_network' in key and isinstance(value, str):
            try:
                load_weights(value)
            except InputError as error:
                raise InputError(f'{path}: path.{key}: {error}') from error


def check_labels(path: Path, opt: dict[str, Any]) -> None:
    """Refuse pseudo-labels outside the network's table before the patches are encoded.

    Raises:
        InputError: names the number that is needed.
    """
    section = opt['datasets']['train']
    if section['type'] == 'LatentPatchDataset' and 'num_labels' in opt['network_g']:
        highest = max(read_labels(Path(section['labels_file'])).values(), default=0)
        if highest >= opt['network_g']['num_labels']:
            raise InputError(f'{path}: network_g.num_labels: {section["labels_file"]} has labels up to {highest}; '
                             f'set num_labels: {highest + 1}.')


def check_backbones(path: Path, opt: dict[str, Any]) -> None:
    """Refuse a run whose perceptual loss or LPIPS lacks its weights now, not when they are first needed."""
    perceptual = [(key, value) for key, value in (opt.get('train') or {}).items()
                  if isinstance(value, dict) and value.get('type') == 'PerceptualLoss']
    for key, value in perceptual:
        try:
            backbone_file(value.get('vgg_type', 'vgg19'))
        except InputError as error:
            raise InputError(f'{path}: train.{key}: {error}.') from error
    for key, value in ((opt.get('val') or {}).get('metrics') or {}).items():
        if value['type'] == 'calculate_lpips':
            try:
                load_lpips(value.get('net', 'alex'), value.get('weights'))
            except InputError as error:
                raise InputError(f'{path}: val.metrics.{key}: {error}; or leave the metric out with '
                                 f'--force_yml val:metrics:{key}=none.') from error


def build_checked_dataset(path: Path, name: str, section: dict[str, Any]) -> Any:
    try:
        dataset = build_dataset(section)
    except KeyError as error:
        raise InputError(f'{path}: datasets.{name}: {section["type"]} needs the key {error}.') from error
    except InputError as error:
        raise InputError(f'{path}: datasets.{name}: {error}') from error
    if len(dataset) == 0:
        raise InputError(f'{path}: datasets.{name}: {section.get("dataroot_gt") or section.get("dataroot_lq")} holds no images.')
    return dataset


def check_batch(path: Path, opt: dict[str, Any], num_samples: int) -> None:
    section = opt['datasets']['train']
    if 'batch_size_per_gpu' not in section:
        raise InputError(f'{path}: datasets.train: key \'batch_size_per_gpu\' is missing.')
    batch = section['batch_size_per_gpu'] * (opt['world_size'] if opt['dist'] else max(1, opt['num_gpu']))
    available = num_samples * section.get('dataset_enlarge_ratio', 1)
    if batch > available:
        raise InputError(f'{path}: datasets.train.batch_size_per_gpu: a batch of {batch} is larger than the set of {num_samples} '
                         f'images; set dataset_enlarge_ratio: {math.ceil(batch / num_samples)} or a smaller batch.')
