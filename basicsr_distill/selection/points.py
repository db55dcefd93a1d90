"""Distances of many points to one, in double precision, a block at a time."""

import numpy as np
from numpy.typing import NDArray

from basicsr_distill.selection.choices import Features

# Small enough for a core's cache with 512 numbers a point.
_BLOCK_BYTES = 1 << 20


def squared_distances(points: Features, target: NDArray[np.float64]) -> NDArray[np.float64]:
    """Squared Euclidean distance of every point to one target.

    Differences are taken before squaring, so that equal points have distance 0; and every point by itself, without
    BLAS, so that neither threads nor neighbours change a bit.

    >>> squared_distances(np.float32([[0, 0], [3, 4]]), np.zeros(2)).tolist()
    [0.0, 25.0]

    Args:
        points: (N, D), float32.
        target: (D,), float64.

    Returns:
        (N,), float64.
    """
    rows = max(1, _BLOCK_BYTES // (8 * points.shape[1]))
    result = np.empty(len(points))
    for first in range(0, len(points), rows):
        gap = points[first : first + rows] - target
        np.einsum('nd,nd->n', gap, gap, out=result[first : first + rows])
    return result


def mean_point(points: Features) -> NDArray[np.float64]:
    """The mean of points (N, D), in double precision, (D,); the same whatever the number of threads.

    >>> mean_point(np.float32([[0, 0], [3, 4]])).tolist()
    [1.5, 2.0]
    """
    return points.mean(0, dtype=np.float64)
