"""The HR partners of a set's LR images, where they are what a trained SR network makes of them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from basicsr_distill.config.sections.select import TargetOptions
from basicsr_distill.config.yaml_files import read_option_file
from basicsr_distill.errors import InputError
from basicsr_distill.io.weights import load_weights
from basicsr_distill.ops.bicubic import make_lr
from basicsr_distill.runtime.interrupts import uninterrupted_imports


def make_targets(
    options: TargetOptions, images: Sequence[NDArray[np.uint8]], scale: int, where: str
) -> list[NDArray[np.uint8]]:
    """Make HR images in place of the given ones, (H, W, 3), uint8, RGB.

    Args:
        options: of the section.
        images: HR, of which the LR images are made.
        scale: factor between HR and LR images.
        where: the section, for messages.

    Raises:
        InputError: the network cannot be built, does not take the weights, or enlarges by another factor.
    """
    if options.type == 'hr':
        return list(images)
    network = _teacher(options, where)
    targets = []
    for rgb in images:
        lr = torch.from_numpy(make_lr(rgb, scale).transpose(2, 0, 1).copy()).float()[None] / 255
        with torch.inference_mode():
            output = network(lr)[0].clamp(0, 1)
        if output.shape[1:] != rgb.shape[:2]:
            raise InputError(
                f'{where}.network: makes {output.shape[2]}x{output.shape[1]} of a LR image whose HR image '
                f'is {rgb.shape[1]}x{rgb.shape[0]}; its scale must be {scale}.'
            )
        teacher = (output * 255).permute(1, 2, 0).double().numpy()
        mixed = teacher if options.type == 'teacher' else (teacher + rgb) / 2
        targets.append(mixed.round().astype(np.uint8))
    return targets


def _teacher(options: TargetOptions, where: str) -> torch.nn.Module:
    section: Any = options.network
    if isinstance(section, str):
        section = read_option_file(Path(section)).get('network_g')
    if not isinstance(section, dict) or not isinstance(section.get('type'), str):
        raise InputError(f"{where}.network: must be a section with the key 'type', or an option file with network_g.")
    with uninterrupted_imports():
        from basicsr_distill.host import hooks

        hooks.require_host()
        from basicsr.archs import build_network
        from basicsr.utils.registry import ARCH_REGISTRY

    if section['type'] not in ARCH_REGISTRY:
        raise InputError(f'{where}.network.type: no network is called {section["type"]}.')
    states = load_weights(str(options.weights))
    state = states.get('params_ema', states.get('params', states))
    try:
        network = build_network(dict(section))
        network.load_state_dict(state)
    except (TypeError, ValueError, RuntimeError, KeyError, AssertionError) as error:
        raise InputError(
            f'{where}: {section["type"]} and {options.weights} do not go with each other '
            f'({str(error).splitlines()[0][:160]}).'
        ) from error
    return network.eval().requires_grad_(False)
