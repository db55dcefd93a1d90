"""How strongly JPEG's blocks of 8 pixels show in an image."""

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.fft import dct

from basicsr_distill.ops.profiles import GridSpectrum, has_room, middle
from basicsr_distill.ops.scratch import scratch

_BLOCK_PX = 8
# ITU-R BT.601.
_RED, _GREEN, _BLUE = 0.299, 0.587, 0.114
# Frequencies of blocks that were shrunk, cycles a pixel, and the height of a peak that is worth a look.
_SHRUNK_BLOCKS = 0.13, 0.18
_LEAST_PEAK = 8.0
# Along one axis alone; photographs have 4.6 in the median, seven of eight less than this.
_FIRST_PEAK = 6.0
# Variation that is nothing but rounding, as a share of the largest pixel: coefficients that are zero in theory come out
# as up to 4e-7 of it, which depends on the processor. Photographs have 1e-4 and more.
_ROUNDING = 1e-5


def blockiness(grey: NDArray[np.floating]) -> float:
    """DiverSeg's measure: what sets the grid of JPEG's blocks apart from the same grid shifted by half a block.

    The variation V of a coefficient of the orthonormal DCT is the mean over interior blocks of
    sqrt((left + right - 2 centre)^2 + (top + bottom - 2 centre)^2), of the same coefficient of neighbouring blocks; B
    is the sum over coefficients of abs(V shifted - V) / V (DiverSeg, ECCV 2024), of those that vary by more than 1e-5
    of the largest pixel. It does not change when the image's values are scaled. Photographs at JPEG quality 95 have
    about 6, at 70 about 90.

    Args:
        grey: (H, W); any range.

    Returns:
        B, at least 0; 0 where an image is too small for three blocks along an axis, or flat.

    >>> blockiness(np.random.default_rng(0).normal(size=(400, 400))) < 2
    True
    """
    own, shifted = _variation(grey), _variation(grey[_BLOCK_PX // 2 :, _BLOCK_PX // 2 :])
    if own is None or shifted is None:
        return 0.0
    varies = own > _ROUNDING * cv2.norm(grey, cv2.NORM_INF)
    return float((np.abs(shifted - own)[varies] / own[varies]).sum())


def blockiness_at_any_size(rgb: NDArray[np.uint8]) -> float:
    """:func:`blockiness` of the middle of an image (1024 px a side), also of one that was shrunk after its compression.

    Where rows and columns repeat every 5.6 to 7.7 pixels, the image is enlarged until its blocks have 8 again, and the
    larger of both values counts. Shrinking takes most of the artefacts away: photographs of quality 30 have 240, and 28
    after shrinking to three quarters; nothing is found of them after shrinking to a half.

    >>> blockiness_at_any_size(np.full((64, 64, 3), 7, np.uint8))
    0.0

    Args:
        rgb: (H, W, 3), uint8.
    """
    pixels = _unrounded_grey(middle(rgb, multiple=_BLOCK_PX))
    own = blockiness(pixels)
    if not has_room(pixels):
        return own
    # Blocks show along both axes: where there is little along one, the other need not be looked at.
    if GridSpectrum(pixels, order=3, axes=(1,)).peak(*_SHRUNK_BLOCKS)[1] < _FIRST_PEAK:
        return own
    frequency, height = GridSpectrum(pixels, order=3).peak(*_SHRUNK_BLOCKS)
    if height < _LEAST_PEAK:
        return own
    factor = _BLOCK_PX * frequency
    return max(own, blockiness(cv2.resize(pixels, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC)))


def _unrounded_grey(rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Grey in scratch memory, float32, of [0, 255], not rounded: that hides the faint blocks of good JPEGs."""
    height, width = rgb.shape[:2]
    planes = [
        memory.view(np.uint8).reshape(-1)[: height * width].reshape(height, width)
        for memory in scratch(3, height, width)
    ]
    (grey,) = scratch(1, height, width, use='grey')
    cv2.split(rgb, planes)
    cv2.addWeighted(planes[0], _RED / _BLUE, planes[1], _GREEN / _BLUE, 0, dst=grey, dtype=cv2.CV_32F)
    cv2.accumulate(planes[2], grey)
    return np.multiply(grey, _BLUE, out=grey)


def _variation(grey: NDArray[np.floating]) -> NDArray[np.float64] | None:
    """V of each coefficient, (8, 8); None without interior blocks."""
    rows, columns = grey.shape[0] // _BLOCK_PX, grey.shape[1] // _BLOCK_PX
    if min(rows, columns) < 3:
        return None
    first, second, third = scratch(3, _BLOCK_PX, rows, columns * _BLOCK_PX)
    pixels = grey[: rows * _BLOCK_PX, : columns * _BLOCK_PX].reshape(rows, _BLOCK_PX, -1)
    np.copyto(first, pixels.swapaxes(0, 1), casting='same_kind')
    # Two products of large matrices: several times as fast as the transform of every block by itself.
    np.matmul(_DCT, first.reshape(_BLOCK_PX, -1), out=second.reshape(_BLOCK_PX, -1))
    np.matmul(second.reshape(-1, _BLOCK_PX), _DCT.T, out=first.reshape(-1, _BLOCK_PX))
    lines, across, down = (array.reshape(_BLOCK_PX * rows, -1) for array in (first, second, third))
    cv2.filter2D(lines, -1, _ACROSS, dst=across)
    cv2.filter2D(lines, -1, _DOWN, dst=down)
    cv2.magnitude(across, down, magnitude=across)
    sizes = across.reshape(_BLOCK_PX, rows, columns, _BLOCK_PX)
    sizes[:, 0] = sizes[:, -1] = 0
    sizes[:, :, 0] = sizes[:, :, -1] = 0
    # A product with ones is the fastest sum; of a row in float32, of the rows in float64.
    of_rows = np.matmul(np.ones((1, columns), np.float32), sizes)[:, :, 0]
    return np.asarray(of_rows.sum(axis=1, dtype=np.float64) / ((rows - 2) * (columns - 2)))


# Second differences of neighbouring blocks, where a line holds a block's coefficients and then the next one's.
_DOWN = np.array([[1], [-2], [1]], np.float32)
_ACROSS = np.zeros((1, 2 * _BLOCK_PX + 1), np.float32)
_ACROSS[0, [0, _BLOCK_PX, -1]] = 1, -2, 1
_DCT = np.ascontiguousarray(dct(np.eye(_BLOCK_PX), axis=0, norm='ortho'), np.float32)
