"""Choosing a few candidates that stand for many targets, and how well they do, both given as features.

Features may be mapped from a file that is larger than memory: they are read a block at a time. Distances that decide or
are reported are sums of squared differences in double precision, every point by itself, so that neither blocks nor
threads change a bit.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from sklearn.neighbors import NearestNeighbors
from threadpoolctl import threadpool_limits

Features = NDArray[np.float32]
# Small enough for a core's cache.
_BLOCK_BYTES = 1 << 20


def k_center(candidates: Features, targets: Features, count: int) -> NDArray[np.int64]:
    """Greedy k-centre: each pick is the candidate nearest to the target that is covered worst so far.

    Source: Gonzalez (1985), with centres restricted to candidates; the first target is the one nearest the mean.

    >>> k_center(np.float32([[0], [4], [9]]), np.float32([[0], [1], [8]]), 2).tolist()
    [0, 2]

    Args:
        candidates: (M, D).
        targets: (R, D).
        count: picks, at most M.

    Returns:
        Indices of candidates in the order picked, (count,), each once.
    """
    free = np.ones(len(candidates), bool)
    worst = int(_squared_distances(targets, targets.mean(0, dtype=np.float64)).argmin())
    covered = np.full(len(targets), np.inf)
    picks = []
    for _ in range(count):
        pick = int(np.where(free, _squared_distances(candidates, targets[worst]), np.inf).argmin())
        picks.append(pick)
        free[pick] = False
        np.minimum(covered, _squared_distances(targets, candidates[pick]), out=covered)
        worst = int(covered.argmax())
    return np.array(picks, np.int64)


def herding(candidates: Features, targets: Features, count: int) -> NDArray[np.int64]:
    """Herding: each pick brings the mean of all picks nearest to the mean of the targets.

    Source: Welling (2009), in the form of iCaRL (Rebuffi et al. 2017).

    >>> herding(np.float32([[0], [4], [9]]), np.float32([[0], [1], [8]]), 2).tolist()
    [1, 0]

    Args:
        candidates: (M, D).
        targets: (R, D).
        count: picks, at most M.

    Returns:
        Indices of candidates in the order picked, (count,), each once.
    """
    goal = targets.mean(0, dtype=np.float64)
    free = np.ones(len(candidates), bool)
    total = np.zeros_like(goal)
    picks = []
    for number in range(1, count + 1):
        gap = np.concatenate(
            [np.square((total + candidates[part]) / number - goal).sum(1) for part in _blocks(candidates)]
        )
        pick = int(np.where(free, gap, np.inf).argmin())
        picks.append(pick)
        free[pick] = False
        total += candidates[pick]
    return np.array(picks, np.int64)


def nearest(samples: Features, references: Features) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The nearest reference of each sample, and its Euclidean distance, both (N,).

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
    """Euclidean distance of some of the points, given by index, to the nearest other, (N,); 0 where there is none.

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
    """Euclidean distance of each sample to the reference with the index given for it, (N,).

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


def _squared_distances(points: Features, target: NDArray[np.floating]) -> NDArray[np.float64]:
    """Of every point to one target, (N,)."""
    return np.concatenate(
        [_squared_norms(np.subtract(points[part], target, dtype=np.float64)) for part in _blocks(points)]
    )


def _squared_norms(gaps: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.einsum('nd,nd->n', gaps, gaps)


def _blocks(points: Features) -> Iterator[slice]:
    rows = max(1, _BLOCK_BYTES // (8 * points.shape[1]))
    return (slice(first, first + rows) for first in range(0, len(points), rows))
