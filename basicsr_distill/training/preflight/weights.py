"""Whether a network gets the weights that the option file means it to have."""

from copy import deepcopy
from pathlib import Path
from typing import Any

from basicsr.archs import build_network

from basicsr_distill.errors import InputError


def check_weights_given(path: Path, opt: dict[str, Any]) -> None:
    """Refuse a misspelt key of pretrained weights, and a test of a network that was never trained.

    Raises:
        InputError: names the key.
    """
    labels = [key.removeprefix('network_') for key in opt if key.startswith('network_')]
    known = [f'pretrain_network_{label}' for label in labels]
    for key, value in opt['path'].items():
        # A test may name the weights of networks that only the training has.
        if 'pretrain' in key and value is not None and not (key in known or key.startswith('pretrain_network_')):
            label = key[-1] if key[-2:-1] == '_' and key[-1] in labels else 'g'
            raise InputError(f'{path}: path.{key}: is not a key of today\'s BasicSR and would be ignored; write '
                             f'pretrain_network_{label}.')
    if not opt['is_train'] and opt['path'].get('pretrain_network_g') is None and _has_parameters(opt['network_g']):
        raise InputError(f'{path}: path.pretrain_network_g: is missing or empty, and a test of {opt["network_g"]["type"]} '
                         'with random weights measures nothing; give a checkpoint.')


def _has_parameters(section: dict[str, Any]) -> bool:
    """Some networks only interpolate."""
    return any(True for _ in build_network(deepcopy(section)).parameters())
