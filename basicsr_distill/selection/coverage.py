"""Choosing a few candidates that stand for many targets, both given as features."""

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics.pairwise import euclidean_distances
from threadpoolctl import threadpool_limits

Features = NDArray[np.float32]


def k_center(candidates: Features, targets: Features, count: int) -> NDArray[np.int64]:
    """Greedy k-centre: each pick is the candidate nearest to the target that is covered worst so far.

    Source: Gonzalez (1985), with centres restricted to candidates; the first target is the one nearest the mean.

    Args:
        candidates: (M, D).
        targets: (R, D).
        count: picks, at most M.

    Returns:
        Indices of candidates in the order picked, (count,), each once.
    """
    distance = _distances(targets, candidates)
    free = np.ones(len(candidates), bool)
    centre = targets.mean(0, keepdims=True, dtype=np.float64)
    worst = int(_distances(targets, centre)[:, 0].argmin())
    covered = np.full(len(targets), np.inf)
    picks = []
    for _ in range(count):
        pick = int(np.where(free, distance[worst], np.inf).argmin())
        picks.append(pick)
        free[pick] = False
        covered = np.minimum(covered, distance[:, pick])
        worst = int(covered.argmax())
    return np.array(picks, np.int64)


def herding(candidates: Features, targets: Features, count: int) -> NDArray[np.int64]:
    """Herding: each pick brings the mean of all picks nearest to the mean of the targets.

    Source: Welling (2009), in the form of iCaRL (Rebuffi et al. 2017).

    Args:
        candidates: (M, D).
        targets: (R, D).
        count: picks, at most M.

    Returns:
        Indices of candidates in the order picked, (count,), each once.
    """
    points = candidates.astype(np.float64)
    goal = targets.mean(0, dtype=np.float64)
    free = np.ones(len(points), bool)
    total = np.zeros_like(goal)
    picks = []
    for number in range(1, count + 1):
        gap = np.square((total + points) / number - goal).sum(1)
        pick = int(np.where(free, gap, np.inf).argmin())
        picks.append(pick)
        free[pick] = False
        total += points[pick]
    return np.array(picks, np.int64)


def nearest(samples: Features, references: Features) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The nearest reference of each sample, and its Euclidean distance, both (N,)."""
    distance = _distances(samples, references)
    index = distance.argmin(1)
    return index, distance[np.arange(len(samples)), index]


def distance_to_others(points: Features, chosen: NDArray[np.int64]) -> NDArray[np.float64]:
    """Euclidean distance of some of the points, given by index, to the nearest other point, (N,); 0 where there is none."""
    if len(points) == 1:
        return np.zeros(len(chosen))
    distance = _distances(points[chosen], points)
    distance[np.arange(len(chosen)), chosen] = np.inf
    return distance.min(1)


def _distances(a: NDArray[np.floating], b: NDArray[np.floating]) -> NDArray[np.float64]:
    # Partial sums of several threads would meet in any order.
    with threadpool_limits(1):
        return euclidean_distances(a.astype(np.float64), b.astype(np.float64))
