"""Values of the wrong kind: a word where a number belongs, judged by the default that a component has for the key."""

import inspect
from pathlib import Path
from typing import Any

import torch

from basicsr_distill.errors import InputError
from basicsr_distill.training.keys import SCHEDULERS
from basicsr_distill.training.preflight.registered import component_sections, find_component

_TRAIN_NUMBERS = ('total_iter', 'warmup_iter', 'ema_decay', 'net_d_iters', 'net_d_init_iters')


def check_values(path: Path, opt: dict[str, Any]) -> None:
    """Refuse values that cannot be meant.

    Raises:
        InputError: names the key.
    """
    for key, section, registry in component_sections(opt):
        if isinstance(section, dict) and (component := find_component(section.get('type'), registry)):
            _check_section(path, key, section, component)
    for key, value in (opt.get('train') or {}).items():
        if key in _TRAIN_NUMBERS and not _is_number(value):
            raise InputError(f'{path}: train.{key}: {value!r} is not a number.')
        weights = value.get('layer_weights') if isinstance(value, dict) else None
        if weights is not None and not (isinstance(weights, dict) and all(map(_is_number, weights.values()))):
            raise InputError(f'{path}: train.{key}.layer_weights: must be a mapping of layers to numbers.')
        if key.startswith('optim_') or key == 'scheduler':
            component = SCHEDULERS.get(value['type']) if key == 'scheduler' else getattr(torch.optim, value['type'])
            _check_section(path, f'train.{key}', value, component)
            if 'lr' in value and not _is_number(value['lr']):
                raise InputError(f'{path}: train.{key}.lr: {value["lr"]!r} is not a number.')


def _check_section(path: Path, where: str, section: dict[str, Any], component: Any) -> None:
    parameters = inspect.signature(component).parameters
    for key, value in section.items():
        if key in parameters and key != 'type' and (kind := _mismatch(value, parameters[key].default)):
            raise InputError(f'{path}: {where}.{key}: {value!r} is not {kind}.')


def _mismatch(value: Any, default: Any) -> str | None:
    """What a value should be and is not; defaults of no clear kind say nothing."""
    if isinstance(default, bool):
        return None if isinstance(value, bool) or value in (0, 1, None) else 'true or false'
    if isinstance(default, (int, float)):
        return 'a number' if isinstance(value, (str, bool, dict)) else None
    if isinstance(default, str):
        return None if isinstance(value, str) or value is None else 'a word'
    if isinstance(default, (list, tuple)):
        return 'a list' if isinstance(value, (str, bool, dict)) else None
    return None


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
