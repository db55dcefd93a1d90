"""What a window lacks or shows too much of: flat, white or black shares, and periodic patterns."""

import cv2
import numpy as np
from numpy.typing import NDArray

_TILE_PX = 16
_FLAT_SIGMA = 2.5  # of 255: the noise of a clear sky and a half
_BLACK, _WHITE = 5, 250


def flat_share(grey: NDArray[np.uint8]) -> float:
    """Share of the tiles of 16 pixels whose standard deviation is below 2.5: sky, walls, paper.

    Args:
        grey: (H, W), uint8, at least 16 on each side.

    Returns:
        In [0, 1].

    >>> flat_share(np.full((64, 64), 9, np.uint8))
    1.0
    """
    rows, columns = grey.shape[0] // _TILE_PX, grey.shape[1] // _TILE_PX
    tiles = grey[: rows * _TILE_PX, : columns * _TILE_PX].astype(np.float32)
    mean, mean_square = (
        cv2.resize(values, (columns, rows), interpolation=cv2.INTER_AREA) for values in (tiles, tiles * tiles)
    )
    return float(np.mean(mean_square - mean * mean < _FLAT_SIGMA**2))


def saturated_share(rgb: NDArray[np.uint8]) -> float:
    """Share of the pixels whose channels all are white (250 or more) or all black (5 or less).

    Args:
        rgb: (H, W, 3), uint8.

    Returns:
        In [0, 1].

    >>> saturated_share(np.array([[[255, 255, 250], [0, 5, 0], [255, 0, 0], [128, 128, 128]]], np.uint8))
    0.5
    """
    darkest, brightest = channel_range(rgb)
    return (
        cv2.countNonZero(cv2.inRange(darkest, _WHITE, 255)) + cv2.countNonZero(cv2.inRange(brightest, 0, _BLACK))
    ) / darkest.size


def channel_range(rgb: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The weakest and the strongest channel of every pixel, (H, W) each, uint8.

    >>> [part.tolist() for part in channel_range(np.array([[[1, 9, 5], [7, 7, 8]]], np.uint8))]
    [[[1, 7]], [[9, 8]]]
    """
    red, green, blue = cv2.split(rgb)
    return cv2.min(cv2.min(red, green), blue), cv2.max(cv2.max(red, green), blue)


def colourfulness(rgb: NDArray[np.uint8]) -> float:
    """Mean difference between the strongest and the weakest channel, of 255: 0 for a grey picture.

    >>> colourfulness(np.array([[[255, 0, 5], [7, 7, 7]]], np.uint8))
    127.5
    """
    weakest, strongest = channel_range(rgb)
    return float(cv2.mean(strongest - weakest)[0])
