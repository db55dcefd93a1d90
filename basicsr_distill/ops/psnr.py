"""How much of a patch survives bicubic down- and upsampling: the score that picks training patches."""

from functools import lru_cache

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from basicsr_distill.ops.bicubic import axis_matrix, mirror
from basicsr_distill.options import PsnrMetric

# ITU-R BT.601 luma of 8-bit studio range, as MATLAB's rgb2ycbcr gives it; the offset cancels in a difference.
_Y_WEIGHTS = (65.481 / 255, 128.553 / 255, 24.966 / 255)
# Pillow's convert('L'): fixed-point BT.601 of 8-bit values, 16 fractional bits, rounded.
_GREY_WEIGHTS = (19595, 38470, 7471)


# Values filtered at once on a CPU: they stay in the core's own cache, larger stacks are slower.
_CPU_CHUNK = 1 << 18
# An enlarged sample depends on no input farther away than this.
_REACH = 2


def psnr_after_bicubic(patches: Tensor, scale: int = 4, metric: PsnrMetric = 'matlab_rgb') -> Tensor:
    """PSNR of patches against their bicubic down- and upsampled selves, PSNR(X, up(down(X))).

    Nothing is rounded, clamped or shaved on the way.

    Source: Cho et al. (2025), Eq. 1.

    Args:
        patches: RGB, (N, 3, H, W), float32 in [0, 1] or uint8; H and W are multiples of ``scale``.
        scale: factor of the down- and upsampling.
        metric: ``matlab_rgb``: MATLAB's bicubic (antialiased), mean square error over the three channels.
            ``matlab_y``: the same on the luma of MATLAB's ``rgb2ycbcr``.
            ``cv2_grey``: OpenCV's INTER_CUBIC (not antialiased) on Pillow's 8-bit grey, as the authors' code does.

    Returns:
        PSNR in dB, (N,), float32; flat patches give ``inf``.
    """
    white = 1 if patches.is_floating_point() else 255
    x = _planes(patches, metric, white)
    height, width = x.shape[-2:]
    planes = x.reshape(-1, height, width)
    chunk = max(1, _CPU_CHUNK // (height * width)) if x.device.type == 'cpu' else len(planes)
    errors = torch.cat([_mean_square_error(part, scale, metric == 'cv2_grey') for part in planes.split(chunk)])
    mse = errors.view(x.shape[:2]).mean(dim=1) / white**2
    # Rounding noise of the filter is far below half an 8-bit step: what is flat in the picture counts as flat.
    return torch.where(mse < 1e-12, torch.inf, -10 * torch.log10(mse))


def _planes(patches: Tensor, metric: PsnrMetric, white: float) -> Tensor:
    """What the score compares: RGB, luma or grey, (N, C, H, W), in [0, ``white``]; uint8 only for RGB."""
    if metric == 'matlab_rgb':
        return patches
    patches = patches.to(torch.float32)
    if metric == 'matlab_y':
        return torch.einsum('nchw,c->nhw', patches, patches.new_tensor(_Y_WEIGHTS))[:, None]
    levels = (patches * (255 / white)).round().to(torch.int32)
    red, green, blue = (levels[:, channel] * weight for channel, weight in enumerate(_GREY_WEIGHTS))
    return ((red + green + blue + 0x8000) >> 16)[:, None].to(torch.float32) * (white / 255)


def _mean_square_error(planes: Tensor, scale: int, cv2_grey: bool) -> Tensor:
    """What shrinking and enlarging loses of every plane, (N, H, W) -> (N,)."""
    count, height, width = planes.shape
    # Image rows outermost: a map of the rows then acts on contiguous rows of all planes at once.
    rows = planes.permute(1, 0, 2).to(torch.float32, memory_format=torch.contiguous_format).reshape(height, -1)
    shrink, enlarge = _row_maps(height, scale, cv2_grey, planes.device)
    columns = _column_map(width, scale, cv2_grey, planes.device)
    shrunk = ((shrink @ rows).view(-1, width) @ columns[0].mT @ columns[1].mT).view(-1, rows.shape[1])
    windows = shrunk.unfold(0, 2 * _REACH + 1, 1).mT
    error = torch.baddbmm(rows.view(-1, scale, rows.shape[1]), enlarge.expand(len(windows), -1, -1), windows, beta=-1)
    # Row by row first: one long sum in float32 would be off by 1e-4 dB.
    return torch.linalg.vector_norm(error.view(height, count, width), dim=2).square_().mean(dim=0) / width


@lru_cache(maxsize=32)
def _column_map(length: int, scale: int, cv2_grey: bool, device: torch.device) -> tuple[Tensor, Tensor]:
    """The maps (outputs, inputs) that shrink an axis of ``length`` samples and enlarge it again, float32."""
    with torch.inference_mode(False):
        down, up = (torch.as_tensor(matrix, dtype=torch.float32, device=device)
                    for matrix in (_shrink(length, scale, cv2_grey), _enlarge(length // scale, scale, cv2_grey)))
    return down, up


@lru_cache(maxsize=32)
def _row_maps(length: int, scale: int, cv2_grey: bool, device: torch.device) -> tuple[Tensor, Tensor]:
    """The same for image rows, where few weights differ from zero.

    Returns:
        The map that shrinks, (length / scale + 4, length), with two rows beyond either border; and the weights (scale, 5)
        of the shrunk rows around each that give its enlarged ones, the same for every row.
    """
    down = _shrink(length, scale, cv2_grey)
    beyond = np.arange(-_REACH, len(down) + _REACH)
    inside = np.clip(beyond, 0, len(down) - 1) if cv2_grey else mirror(beyond, len(down))
    middle = 2 * _REACH
    around = _enlarge(2 * middle + 1, scale, cv2_grey)[middle * scale:(middle + 1) * scale, _REACH:-_REACH]
    with torch.inference_mode(False):
        shrink = torch.as_tensor(down[inside], dtype=torch.float32, device=device)
        enlarge = torch.as_tensor(around, dtype=torch.float32, device=device)
        return shrink.to_sparse() if device.type == 'cpu' else shrink, enlarge


def _shrink(length: int, scale: int, cv2_grey: bool) -> NDArray[np.float64]:
    if cv2_grey:  # OpenCV's own resizing of the unit vectors
        return cv2.resize(np.eye(length), (length, length // scale), interpolation=cv2.INTER_CUBIC)
    return axis_matrix(length, scale, up=False)


def _enlarge(length: int, scale: int, cv2_grey: bool) -> NDArray[np.float64]:
    if cv2_grey:
        return cv2.resize(np.eye(length), (length, length * scale), interpolation=cv2.INTER_CUBIC)
    return axis_matrix(length, scale, up=True)
