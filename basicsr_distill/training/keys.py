"""Components of BasicSR without a section model: what their signatures say of keys and values, before any is built.

Networks, losses, metrics, optimizers and schedulers are asked so. Sections with a model were bound to it when the file
was read; a model or data set without one takes the whole section, of which its signature says nothing.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping
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

from basicsr_distill.config.recipe import ExperimentSections, Recipe
from basicsr_distill.config.sections.base import Options, nearest_name
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


def check_components(recipe: Recipe) -> None:
    """Refuse components that do not exist, and keys and values that they do not take.

    Raises:
        InputError: names the key, and the nearest known one where it is misspelt.
    """
    sections = recipe.experiment
    if sections is None:
        return
    find_component(recipe.path, 'model_type', sections.model_type, MODEL_REGISTRY)
    for where, section, components in _sections(sections):
        component = find_component(recipe.path, f'{where}.type', component_type(section), components)
        if not isinstance(section, Options) and components is not DATASET_REGISTRY:
            _check_keys(recipe.path, where, section, component)
    _check_schedule(recipe.path, sections)


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


def component_type(section: Any) -> str:
    """Return the ``type`` of a section that must have one."""
    return str(section.type if isinstance(section, Options) else section['type'])  # type: ignore[attr-defined]


def find_component(path: Path, where: str, name: str, components: Registry) -> Any:
    """Return the component of a name as BasicSR finds it: its own doubles carry a suffix.

    Raises:
        InputError: there is none; names the nearest.
    """
    entries = dict(iter(components))
    component = entries.get(name) or entries.get(f'{name}_basicsr')
    if component is None:
        known = {entry.removesuffix('_basicsr') for entry in entries}
        raise InputError(f'{path}: {where}: {name!r} is not registered; did you mean {nearest_name(name, known)!r}?')
    return component


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
    parameters = inspect.signature(component).parameters
    names = {
        name
        for name, parameter in parameters.items()
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    } - _GIVEN
    # BasicSR's components drop what their **kwargs take; another package's may forward it.
    forwards_kwargs = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()) and (
        component.__module__.split('.')[0] not in ('basicsr', 'basicsr_distill')
    )
    unknown = sorted(set(section) - names - _HOST_KEYS)
    if unknown and not forwards_kwargs:
        hint = f'; did you mean {nearest_name(unknown[0], names)!r}?' if names else '.'
        raise InputError(f'{path}: {where}: {section["type"]} takes no key {unknown[0]!r}{hint}')
    required = sorted(name for name in names - set(section) if parameters[name].default is inspect.Parameter.empty)
    if required:
        raise InputError(f'{path}: {where}: {section["type"]} needs the key {required[0]!r}.')
    for key, value in section.items():
        # A learning rate without a default is a number too.
        default = 0.0 if key == 'lr' else parameters[key].default if key in names - {'type'} else None
        if wanted := _mismatch(value, default):
            raise InputError(f'{path}: {where}.{key}: {value!r} is not {wanted}.')
    if section['type'] == 'PerceptualLoss':
        _check_layers(path, where, section)


def _mismatch(value: Any, default: Any) -> str | None:
    """What a value should be and is not, judged by a default; those of no clear kind say nothing."""
    if isinstance(default, bool):
        return None if isinstance(value, bool) or value in (0, 1, None) else 'true or false'
    if isinstance(default, (int, float)):
        return 'a number' if isinstance(value, (str, bool, dict)) else None
    if isinstance(default, str):
        return None if isinstance(value, str) or value is None else 'a word'
    if isinstance(default, (list, tuple)):
        return 'a list' if isinstance(value, (str, bool, dict)) else None
    return None


def _check_layers(path: Path, where: str, section: Mapping[str, Any]) -> None:
    """The keys under ``layer_weights`` are names of VGG's layers."""
    default = inspect.signature(PerceptualLoss).parameters['vgg_type'].default
    network = str(section.get('vgg_type', default))
    layers = NAMES.get(network.removesuffix('_bn'))
    if layers is None:
        raise InputError(
            f'{path}: {where}.vgg_type: {network!r} is not known; did you mean {nearest_name(network, NAMES)!r}?'
        )
    weights = section['layer_weights']
    if not (isinstance(weights, dict) and all(_mismatch(weight, 0.0) is None for weight in weights.values())):
        raise InputError(f'{path}: {where}.layer_weights: must be a mapping of layers to numbers.')
    known = [*layers, *(layer.replace('conv', 'bn') for layer in layers if network.endswith('_bn') and 'conv' in layer)]
    for layer in weights:
        if layer not in known:
            raise InputError(
                f'{path}: {where}.layer_weights: unknown key {layer!r}; did you mean {nearest_name(layer, known)!r}?'
            )
