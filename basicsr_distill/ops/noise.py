"""How noisy an image is."""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from basicsr_distill.ops.scratch import scratch

# Daubechies' wavelet with two vanishing moments (db2), high-pass.
_HIGH_PASS = np.array([-0.48296291314453416, 0.8365163037378079, -0.2241438680420134, -0.12940952255126037])
# The median of the absolute value of a standard normal number.
_MEDIAN_OF_NORMAL = 0.6744897501960817


# Wavelet coefficients along the side of a tile, and which of the tiles is asked: most of them have texture.
_TILE = 16
_QUIET_TILE = 0.2


def noise_sigma(channel: NDArray[Any]) -> float:
    """Standard deviation of white Gaussian noise, from the finest diagonal wavelet coefficients (Donoho, Johnstone).

    The median absolute value of a tile's coefficients over 0.6745, of tiles of 32 pixels; of the tiles that of the
    quietest fifth, as fine texture would count as noise.

    Args:
        channel: (H, W), of an image.

    Returns:
        In the units of ``channel``; 0 for an image smaller than a tile.

    >>> round(noise_sigma(np.random.default_rng(0).normal(100, 5, (512, 512))), 1)
    4.8
    """
    if min(channel.shape) < 2 * _TILE + len(_HIGH_PASS):
        return 0.0
    values = channel if channel.dtype == np.uint8 else np.asarray(channel, np.float32)
    (filtered,) = scratch(1, *channel.shape)
    cv2.sepFilter2D(values, cv2.CV_32F, _HIGH_PASS, _HIGH_PASS, dst=filtered)
    detail = np.abs(filtered[2:-1:2, 2:-1:2])
    rows, columns = detail.shape[0] // _TILE, detail.shape[1] // _TILE
    tiles = detail[: rows * _TILE, : columns * _TILE].reshape(rows, _TILE, columns, _TILE).swapaxes(1, 2)
    ordered = np.sort(tiles.reshape(rows * columns, -1), axis=1)  # faster than a median
    medians = ordered[:, _TILE * _TILE // 2 - 1 : _TILE * _TILE // 2 + 1].mean(axis=1)
    return float(np.quantile(medians, _QUIET_TILE) / _MEDIAN_OF_NORMAL)
