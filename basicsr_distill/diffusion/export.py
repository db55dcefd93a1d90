"""The trained denoiser as a plain diffusers model, for others' code."""

import os
import shutil
from pathlib import Path
from typing import Any

from basicsr_distill.archs.minimax_dit_arch import load_trained
from basicsr_distill.errors import InputError
from basicsr_distill.files import TEMP_SUFFIX


def export_dit(host: dict[str, Any], folder: Path, weights: str = 'params_ema') -> None:
    """Write ``config.json`` and the weights, as ``network_g: {pretrained: FOLDER, label_init: rows}`` or diffusers reads them.

    What was trained beside the weights is folded into them. diffusers alone departs from DiT by 2-4 % at large timesteps;
    see :mod:`basicsr_distill.diffusion.dit`.

    Args:
        host: option dictionary of the training.
        folder: to make; it appears whole.
        weights: ``params_ema`` or ``params``.

    Raises:
        InputError: nothing was trained, or the folder exists.
    """
    if host['network_g'].get('type') != 'MinimaxDiT':
        raise InputError('network_g.type: only a MinimaxDiT can be exported.')
    if folder.exists():
        raise InputError(f'{folder}: exists already; choose another folder.')
    network = load_trained(host['network_g'], Path(host['path']['models']) / 'net_g_latest.pth', weights)
    temp = folder.with_name(f'{folder.name}{TEMP_SUFFIX}')
    shutil.rmtree(temp, ignore_errors=True)
    network.to_plain().save_pretrained(temp)
    os.replace(temp, folder)
