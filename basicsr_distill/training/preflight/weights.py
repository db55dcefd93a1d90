"""Whether a network that is tested has been trained."""

from copy import deepcopy
from pathlib import Path
from typing import Any

from basicsr.archs import build_network

from basicsr_distill.errors import InputError


def check_weights_given(path: Path, opt: dict[str, Any]) -> None:
    """Refuse a test of random weights.

    Raises:
        InputError: names the key.
    """
    if opt['is_train'] or opt['path'].get('pretrain_network_g') is not None:
        return
    # Some networks only interpolate.
    if any(True for _ in build_network(deepcopy(opt['network_g'])).parameters()):
        raise InputError(
            f'{path}: path.pretrain_network_g: is missing or empty, and a test of {opt["network_g"]["type"]} '
            'with random weights measures nothing; give a checkpoint.'
        )
