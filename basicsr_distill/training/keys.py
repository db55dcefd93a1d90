"""Keys of BasicSR's own components: a misspelt one is refused with the nearest known, before anything is built.

Networks, losses, metrics, optimizers and schedulers are asked by their signatures. Models and datasets get whole
sections; what they read is what their sources have between quotes. Sections of our own were bound to their models when
the file was read.
"""

import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch
from basicsr.archs.vgg_arch import NAMES
from basicsr.losses.basic_loss import PerceptualLoss
from basicsr.models import lr_scheduler
from basicsr.utils.registry import (
    ARCH_REGISTRY,
    DATASET_REGISTRY,
    LOSS_REGISTRY,
    METRIC_REGISTRY,
    MODEL_REGISTRY,
    Registry,
)

from basicsr_distill.config import registry
from basicsr_distill.config.recipe import ExperimentSections, Recipe
from basicsr_distill.config.sections.base import Options, nearest_name
from basicsr_distill.config.sections.datasets import DatasetOptions
from basicsr_distill.config.sections.experiment import RootOptions, ValidationOptions
from basicsr_distill.errors import InputError

# By the names that BasicSR's ``setup_schedulers`` knows.
SCHEDULERS = {
    'MultiStepLR': lr_scheduler.MultiStepRestartLR,
    'MultiStepRestartLR': lr_scheduler.MultiStepRestartLR,
    'CosineAnnealingRestartLR': lr_scheduler.CosineAnnealingRestartLR,
}
# What a model or metric function gets beside the keys of its section.
_GIVEN = {'self', 'img', 'img2', 'params', 'optimizer'}
# What BasicSR itself reads from a section.
_HOST_KEYS = {'type', 'better'}
# Of BasicSR's FileClient and its backends.
_IO_KEYS = {
    'type',
    'db_paths',
    'client_keys',
    'server_list_cfg',
    'client_cfg',
    'sys_path',
    'readonly',
    'lock',
    'readahead',
}
# Keys of published option files that nothing reads: HiT-SR's task, SRFormer's print_network.
_UNREAD_DATASET_KEYS = {'task'}
_UNREAD_ROOT_KEYS = {'print_network'}
_LOOP_TRAIN_KEYS = {'total_iter', 'warmup_iter', 'scheduler'}


def check_components(recipe: Recipe) -> None:
    """Refuse a component that does not exist, and keys that nothing reads, at every level of an option file.

    Raises:
        InputError: names the key and the nearest known one.
    """
    sections = recipe.experiment
    if sections is None:
        return
    model = _find(recipe.path, 'model_type', sections.model_type, MODEL_REGISTRY)
    read = words(model)
    if read is not None and sections.model_type not in registry.models('train'):
        root = {*RootOptions.model_fields, *registry.models('stage'), *_UNREAD_ROOT_KEYS}
        root_words = {word for word in read if '_' in word}  # what models read at the root; much else is between quotes
        elsewhere = _read_by_any(MODEL_REGISTRY)
        _refuse_unknown(recipe.path, '', recipe.options, root | root_words, elsewhere)
        _refuse_unknown(recipe.path, 'train', dict(sections.train or {}), read | _LOOP_TRAIN_KEYS, elsewhere)
        if sections.val is not None:
            known = read | set(ValidationOptions.model_fields)
            _refuse_unknown(recipe.path, 'val', sections.val.model_dump(), known, elsewhere)
    for where, section, components in _sections(sections):
        component = _find(recipe.path, f'{where}.type', _type(section), components)
        if isinstance(section, Options):
            continue
        if components is DATASET_REGISTRY:
            _check_dataset(recipe.path, where, section, component)
        else:
            _check_keys(recipe.path, where, section, component)
    _check_schedule(recipe.path, sections)


@cache
def words(component: type) -> set[str] | None:
    """Words between quotes in the classes that a component is made of; None where a source cannot be had."""
    try:
        # typing.Generic, a base of torch's Dataset, has no source from Python 3.12 on.
        text = ''.join(
            inspect.getsource(base)
            for base in component.__mro__
            if base.__module__.split('.')[0] not in ('builtins', 'torch', 'typing')
        )
    except (OSError, TypeError):
        return None
    return set(re.findall(r"""['"](\w+)['"]""", text))


@cache
def _read_by_any(components: Registry) -> set[str]:
    """Words of all components of a kind: published files carry keys that another model or dataset reads."""
    return {word for _, component in components for word in words(component) or ()}


def _sections(sections: ExperimentSections) -> Iterator[tuple[str, Any, Registry]]:
    """Every section that names a registered component: its key, itself, the registry."""
    yield from ((f'datasets.{name}', section, DATASET_REGISTRY) for name, section in sections.datasets.items())
    yield from ((key, section, ARCH_REGISTRY) for key, section in sections.networks.items())
    if (generator := getattr(sections.train, 'generator', None)) is not None:
        yield 'train.generator', generator, ARCH_REGISTRY
    yield from (
        (f'train.{key}', value, LOSS_REGISTRY)
        for key, value in dict(sections.train or {}).items()
        if key.endswith('_opt') and value is not None
    )
    yield from ((f'val.metrics.{name}', section, METRIC_REGISTRY) for name, section in sections.metrics.items())


def _type(section: Any) -> str:
    return str(section.type if isinstance(section, Options) else section['type'])  # type: ignore[attr-defined]


def _find(path: Path, where: str, name: str, components: Registry) -> Any:
    """The component of a name as BasicSR finds it: its own doubles carry a suffix."""
    entries = dict(iter(components))
    component = entries.get(name) or entries.get(f'{name}_basicsr')
    if component is None:
        known = {entry.removesuffix('_basicsr') for entry in entries}
        raise InputError(f'{path}: {where}: {name!r} is not registered; did you mean {nearest_name(name, known)!r}?')
    return component


def _refuse_unknown(
    path: Path, where: str, section: Mapping[str, Any], known: Iterable[str], elsewhere: Iterable[str] = ()
) -> None:
    for key in section:
        if key not in {*known, *elsewhere}:
            place = f'{where}: ' if where else ''
            raise InputError(f'{path}: {place}unknown key {key!r}; did you mean {nearest_name(key, known)!r}?')


def _check_dataset(path: Path, where: str, section: Mapping[str, Any], dataset: type) -> None:
    read = words(dataset)
    if read is not None:
        known = read | set(DatasetOptions.model_fields) | _UNREAD_DATASET_KEYS
        _refuse_unknown(path, where, section, known, _read_by_any(DATASET_REGISTRY))
    backend = section.get('io_backend', {})
    if not isinstance(backend, dict):
        raise InputError(f'{path}: {where}.io_backend: must be a mapping of keys to values.')
    _refuse_unknown(path, f'{where}.io_backend', backend, _IO_KEYS)


def _check_schedule(path: Path, sections: ExperimentSections) -> None:
    """Optimizers and the scheduler, whose types no registry holds."""
    for key, section in dict(sections.train or {}).items():
        if section is None or not (key.startswith('optim_') or key == 'scheduler'):
            continue
        if not isinstance(section.get('type'), str):
            raise InputError(f"{path}: train.{key}: key 'type' is missing.")
        name = section['type']
        component = SCHEDULERS.get(name) if key == 'scheduler' else getattr(torch.optim, name, None)
        if component is None:
            known = set(SCHEDULERS) if key == 'scheduler' else {name for name in dir(torch.optim) if name[0].isupper()}
            raise InputError(
                f'{path}: train.{key}.type: {name!r} is not known; did you mean {nearest_name(name, known)!r}?'
            )
        _check_keys(path, f'train.{key}', section, component)


def _check_keys(path: Path, where: str, section: Mapping[str, Any], component: Callable[..., Any]) -> None:
    parameters = inspect.signature(component).parameters.values()
    names = {
        parameter.name
        for parameter in parameters
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    } - _GIVEN
    # BasicSR's components drop what their **kwargs take; another package's may hand it on.
    hands_on = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters) and (
        component.__module__.split('.')[0] not in ('basicsr', 'basicsr_distill')
    )
    unknown = sorted(set(section) - names - _HOST_KEYS)
    if unknown and not hands_on:
        hint = f'; did you mean {nearest_name(unknown[0], names)!r}?' if names else '.'
        raise InputError(f'{path}: {where}: {section["type"]} takes no key {unknown[0]!r}{hint}')
    required = sorted(
        parameter.name
        for parameter in parameters
        if parameter.name in names - set(section) and parameter.default is parameter.empty
    )
    if required:
        raise InputError(f'{path}: {where}: {section["type"]} needs the key {required[0]!r}.')
    if section['type'] == 'PerceptualLoss':
        _check_layers(path, where, section)


def _check_layers(path: Path, where: str, section: Mapping[str, Any]) -> None:
    """The keys under ``layer_weights`` are names of VGG's layers."""
    default = inspect.signature(PerceptualLoss).parameters['vgg_type'].default
    network = str(section.get('vgg_type', default))
    layers = NAMES.get(network.removesuffix('_bn'))
    if layers is None:
        raise InputError(
            f'{path}: {where}.vgg_type: {network!r} is not known; did you mean {nearest_name(network, NAMES)!r}?'
        )
    if not isinstance(section['layer_weights'], dict):
        raise InputError(f'{path}: {where}.layer_weights: must be a mapping of layers to weights.')
    known = [*layers, *(layer.replace('conv', 'bn') for layer in layers if network.endswith('_bn') and 'conv' in layer)]
    _refuse_unknown(path, f'{where}.layer_weights', section['layer_weights'], known)
