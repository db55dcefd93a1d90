"""Distances of points, given as features: to one point, to the nearest of others, in pairs.

Features may be mapped from a file that is larger than memory: they are read a block at a time. Distances that decide or
are reported are sums of squared differences in double precision, every point by itself, so that neither blocks nor
threads change a bit.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from sklearn.neighbors import NearestNeighbors
from threadpoolctl import threadpool_limits

from basicsr_distill.selection.choices import Features

# Small enough for a core's cache.
_BLOCK_BYTES = 1 << 20


def mean_point(points: Features) -> NDArray[np.float64]:
    """Return the mean of points (N, D), in double precision, (D,); the same whatever the number of threads.

    >>> mean_point(np.float32([[0, 0], [3, 4]])).tolist()
    [1.5, 2.0]
    """
    return points.mean(0, dtype=np.float64)


def squared_distances(points: Features, target: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the squared Euclidean distance of every point to one target; equal points have distance 0.

    >>> squared_distances(np.float32([[0, 0], [3, 4]]), np.zeros(2)).tolist()
    [0.0, 25.0]

    Args:
        points: (N, D).
        target: (D,).

    Returns:
        (N,), float64.
    """
    return np.concatenate(
        [_squared_norms(np.subtract(points[part], target, dtype=np.float64)) for part in _blocks(points)]
    )


def nearest(samples: Features, references: Features) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the nearest reference of each sample, and its Euclidean distance, both (N,).

    >>> index, distance = nearest(np.float32([[0, 0], [9, 9]]), np.float32([[3, 4], [9, 9]]))
    >>> index.tolist(), distance.tolist()
    ([0, 1], [5.0, 0.0])

    Args:
        samples: (N, D).
        references: (M, D).
    """
    index = _neighbours(samples, references, 1)[:, 0]
    return index, paired_distances(samples, references, index)


def distance_to_others(points: Features, chosen: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the distance of some of the points, given by index, to the nearest other, (N,); 0 where there is none.

    >>> distance_to_others(np.float32([[0], [1], [3]]), np.array([0, 2])).tolist()
    [1.0, 2.0]
    """
    if len(points) == 1:
        return np.zeros(len(chosen))
    two = _neighbours(points[chosen], points, 2)
    # Where many points are equal, a point need not be the first of its neighbours, nor one of the two.
    other = np.where(two[:, 0] == chosen, two[:, 1], two[:, 0])
    return paired_distances(points[chosen], points, other)


def paired_distances(samples: Features, references: Features, index: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the Euclidean distance of each sample to the reference with the index given for it, (N,).

    >>> paired_distances(np.float32([[0, 0]]), np.float32([[9, 9], [3, 4]]), np.array([1])).tolist()
    [5.0]

    Args:
        samples: (N, D).
        references: (M, D).
        index: (N,).
    """
    return np.sqrt(
        np.concatenate(
            [
                _squared_norms(np.subtract(samples[part], references[index[part]], dtype=np.float64))
                for part in _blocks(samples)
            ]
        )
    )


def _neighbours(samples: Features, references: Features, count: int) -> NDArray[np.int64]:
    """Indices of the references nearest to each sample, the nearest first, (N, ``count``)."""
    # scikit-learn goes through both in blocks of its own; how it deals them out depends on the number of threads.
    with threadpool_limits(1):
        search = NearestNeighbors(n_neighbors=count, algorithm='brute').fit(references)
        return search.kneighbors(samples, return_distance=False)


def _squared_norms(gaps: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.einsum('nd,nd->n', gaps, gaps)


def _blocks(points: Features) -> Iterator[slice]:
    rows = max(1, _BLOCK_BYTES // (8 * points.shape[1]))
    return (slice(first, first + rows) for first in range(0, len(points), rows))
