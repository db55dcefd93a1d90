"""The trained denoiser as a plain diffusers model, for others' code."""

import os
import shutil
from pathlib import Path
from typing import Any

from basicsr_distill.errors import InputError
from basicsr_distill.io.files import TEMP_SUFFIX


def export_dit(network: Any, folder: Path) -> None:
    """Write ``config.json`` and the weights, as ``network_g: {pretrained: FOLDER, label_init: rows}`` or diffusers reads them.

    What was trained beside the weights is folded into them, and ``network`` with it. diffusers alone departs from DiT by
    2-4 % at large timesteps; see :mod:`basicsr_distill.diffusion.dit`.

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
    os.replace(temp, folder)
