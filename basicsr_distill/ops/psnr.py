"""How much of a patch survives bicubic down- and upsampling: the score that picks training patches."""

from functools import lru_cache

import cv2
import numpy as np
import torch
from torch import Tensor

from basicsr_distill.ops.bicubic import bicubic_downsample, bicubic_upsample
from basicsr_distill.options import PsnrMetric

# ITU-R BT.601 luma of 8-bit studio range, as MATLAB's rgb2ycbcr gives it; the offset cancels in a difference.
_Y_WEIGHTS = (65.481 / 255, 128.553 / 255, 24.966 / 255)
# Pillow's convert('L'): fixed-point BT.601 of 8-bit values, 16 fractional bits, rounded.
_GREY_WEIGHTS = (19595, 38470, 7471)


def psnr_after_bicubic(patches: Tensor, scale: int = 4, metric: PsnrMetric = 'matlab_rgb') -> Tensor:
    """PSNR of patches against their bicubic down- and upsampled selves, PSNR(X, up(down(X))).

    Nothing is rounded, clamped or shaved on the way.

    Source: Cho et al. (2025), Eq. 1.

    Args:
        patches: RGB, (N, 3, H, W), float32 in [0, 1]; H and W are multiples of ``scale``.
        scale: factor of the down- and upsampling.
        metric: ``matlab_rgb``: MATLAB's bicubic (antialiased), mean square error over the three channels.
            ``matlab_y``: the same on the luma of MATLAB's ``rgb2ycbcr``.
            ``cv2_grey``: OpenCV's INTER_CUBIC (not antialiased) on Pillow's 8-bit grey, as the authors' code does.

    Returns:
        PSNR in dB, (N,), float32; flat patches give ``inf``.
    """
    if metric == 'cv2_grey':
        levels = (patches * 255).round().to(torch.int64)
        red, green, blue = (levels[:, channel] * weight for channel, weight in enumerate(_GREY_WEIGHTS))
        x = ((red + green + blue + 0x8000) >> 16).to(torch.float32) / 255
        rows, columns = (_cv2_round_trip(length, scale).to(x.device) for length in x.shape[-2:])
        low_pass = rows @ (x @ columns.mT)
    else:
        x = patches
        if metric == 'matlab_y':
            x = torch.einsum('nchw,c->nhw', patches, patches.new_tensor(_Y_WEIGHTS))
        low_pass = bicubic_upsample(bicubic_downsample(x, scale), scale)
    mse = (x - low_pass).flatten(1).square().mean(dim=1)
    # Rounding noise of the filter is far below half an 8-bit step: what is flat in the picture counts as flat.
    return torch.where(mse < 1e-12, torch.inf, -10 * torch.log10(mse))


@lru_cache(maxsize=16)
def _cv2_round_trip(length: int, scale: int) -> Tensor:
    """OpenCV's INTER_CUBIC down and up along one axis of ``length`` samples, (length, length), float32."""
    down = cv2.resize(np.eye(length), (length, length // scale), interpolation=cv2.INTER_CUBIC)
    up = cv2.resize(np.eye(length // scale), (length // scale, length), interpolation=cv2.INTER_CUBIC)
    with torch.inference_mode(False):
        return torch.from_numpy(up @ down).float()
