"""The trained denoiser as a plain diffusers model, for others' code."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

from basicsr_distill.errors import InputError
from basicsr_distill.io.files import TEMP_SUFFIX
from basicsr_distill.io.manifest import write_json

ORIGIN_NAME = 'origin.json'


def export_dit(network: Any, folder: Path) -> None:
    """Write ``config.json`` and the weights, for ``network_g: {pretrained: FOLDER, label_init: rows}`` or diffusers.

    What was trained beside the weights is folded into them, and ``network`` with it. diffusers alone departs from DiT
    by 2-4 % at large timesteps; see :mod:`basicsr_distill.diffusion.dit`. ``origin.json`` beside them says which
    published weights they were made from, whose licence they keep.

    Args:
        network: a trained MinimaxDiT.
        folder: to make; it appears whole.

    Raises:
        InputError: the folder exists.
    """
    if folder.exists():
        raise InputError(f'{folder}: exists already; choose another folder.')
    temp = folder.with_name(f'{folder.name}{TEMP_SUFFIX}')
    shutil.rmtree(temp, ignore_errors=True)
    network.to_plain().save_pretrained(temp)
    write_json(temp / ORIGIN_NAME, {'made_by': 'basicsr-distill', 'pretrained': original_weights(network.pretrained)})
    os.replace(temp, folder)


def original_weights(pretrained: str | None) -> str | None:
    """The published weights that a denoiser's come from, through however many exports of ours.

    Args:
        pretrained: as in ``network_g``: hub id, folder or file; None for random weights.

    Returns:
        The same, or what the folder's ``origin.json`` names; None for weights that began as random ones.

    >>> original_weights('facebook/DiT-XL-2-256')
    'facebook/DiT-XL-2-256'
    """
    if pretrained is None:
        return None
    try:
        origin = json.loads(Path(pretrained, ORIGIN_NAME).read_text(encoding='utf-8'))['pretrained']
    except (OSError, ValueError, KeyError, TypeError):
        return pretrained
    return origin if origin is None or isinstance(origin, str) else pretrained
