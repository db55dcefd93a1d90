"""Where the square windows of a photograph lie: on a grid, where most is lost, or at random with a least distance."""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

# Scores this near to the best are its equals: rounding of the cells, up to 3e-6, depends on their place and on the
# processor.
_EQUAL = 1e-5
# Darts that are looked at together.
_DARTS = 256


def grid_windows(height: int, width: int, size: int, stride: int) -> NDArray[np.int32]:
    """Windows that start at multiples of the stride and lie wholly inside, row by row.

    >>> grid_windows(100, 150, size=64, stride=32).tolist()
    [[0, 0], [0, 32], [0, 64], [32, 0], [32, 32], [32, 64]]

    Args:
        height: of the image, pixels.
        width: of the image, pixels.
        size: side of the windows, pixels.
        stride: of the grid, pixels.

    Returns:
        Top and left, pixels, (N, 2), int32.
    """
    tops, lefts = np.arange(0, height - size + 1, stride), np.arange(0, width - size + 1, stride)
    return np.stack(np.meshgrid(tops, lefts, indexing='ij'), axis=-1).reshape(-1, 2).astype(np.int32)


def best_windows(cells: NDArray[np.float32], size: int, max_overlap: float = 0.0) -> NDArray[np.int32]:
    """Windows of the highest mean, greedily: the best of all places, then the best of those that overlap no earlier one
    by more than is allowed, until there is no place left or nothing in it.

    >>> best_windows(np.eye(4, 6, dtype=np.float32), size=2).tolist()
    [[0, 0], [2, 2]]

    Args:
        cells: what is averaged, at least 0, (rows, columns).
        size: side of the windows, cells.
        max_overlap: share of a window's area that it may have in common with an earlier one, in [0, 1).

    Returns:
        Top and left, cells, (N, 2), int32, best first; among equals (within 1e-5) the upper, then the left one
        first.
    """
    if min(cells.shape) < size:
        return np.zeros((0, 2), np.int32)
    sums = cv2.integral(np.asarray(cells, np.float32), sdepth=cv2.CV_64F)
    scores = sums[size:, size:] - sums[:-size, size:] - sums[size:, :-size] + sums[:-size, :-size]
    covered = 1 - np.abs(np.arange(1 - size, size)) / size
    near = np.outer(covered, covered) > max_overlap  # of the window in the middle, by offset
    # What rounding leaves of nothing is nothing.
    least = 1e-9 * max(float(scores.max()), 1e-30)
    places = []
    while (highest := float(scores.max())) > least:
        place = divmod(int((scores >= (1 - _EQUAL) * highest).argmax()), scores.shape[1])
        places.append(place)
        region, mask = _around(scores, place, near)
        region[mask] = -1
    return np.array(places, np.int32).reshape(-1, 2)


def poisson_windows(
    height: int, width: int, size: int, distance: float, step: int, rng: np.random.Generator
) -> NDArray[np.int32]:
    """Random windows whose corners keep a distance, until no further one finds room (Poisson disk sampling by darts).

    >>> poisson_windows(64, 64, size=64, distance=32, step=4, rng=np.random.default_rng(0)).tolist()
    [[0, 0]]

    Args:
        height: of the image, pixels.
        width: of the image, pixels.
        size: side of the windows, pixels.
        distance: least distance of two windows' corners, pixels.
        step: windows start at its multiples, pixels.
        rng: draws.

    Returns:
        Top and left, pixels, (N, 2), int32, in the order of the draw.
    """
    if min(height, width) < size:
        return np.zeros((0, 2), np.int32)
    free = np.ones(((height - size) // step + 1, (width - size) // step + 1), bool)
    reach = int(distance // step)
    offsets = np.arange(-reach, reach + 1) * step
    near = np.hypot(offsets[:, None], offsets) < distance
    places = []
    for darts in np.split(rng.permutation(free.size), range(_DARTS, free.size, _DARTS)):
        for dart in darts[free.flat[darts]].tolist():
            if free.flat[dart]:
                place = divmod(dart, free.shape[1])
                places.append(place)
                region, mask = _around(free, place, near)
                region[mask] = False
    return np.array(places, np.int32).reshape(-1, 2) * step


def _around(
    values: NDArray[Any], place: tuple[int, int], mask: NDArray[np.bool_]
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Return views, equal in shape, of the values under a mask that is centred on a place, and of the mask."""
    starts = [at - side // 2 for at, side in zip(place, mask.shape)]
    within = tuple(slice(max(0, start), start + side) for start, side in zip(starts, mask.shape))
    region = values[within]
    top, left = (max(0, -start) for start in starts)
    return region, mask[top : top + region.shape[0], left : left + region.shape[1]]
