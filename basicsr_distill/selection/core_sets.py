"""Core-sets by features: patches of a pool that stand for the pool."""

import numpy as np

from basicsr_distill.selection.choices import Features, Indices, check_count
from basicsr_distill.selection.points import mean_point, squared_distances


def choose_by_herding(features: Features, count: int) -> Indices:
    """Herding: each pick brings the mean of all picks nearest to the mean of the pool.

    Source: Welling (2009), in the form of iCaRL (Rebuffi et al. 2017): the pick x minimises
    ||(i + 1) mu - sum of the i picks before - x||.

    >>> choose_by_herding(np.float32([[-1], [0], [2], [3]]), count=2).tolist()
    [1, 2]

    Args:
        features: of the pool, (N, D), finite.

    Returns:
        Indices in the order picked, (count,), int64, each once; ties go to the smaller index.

    Raises:
        ValueError: ``count`` exceeds N.
    """
    check_count(count, len(features))
    mean = mean_point(features)
    wanted = np.zeros_like(mean)  # what the next pick would have to be for the mean to be met
    free = np.ones(len(features), bool)
    picks = np.empty(count, np.int64)
    for number in range(count):
        wanted += mean
        pick = int(np.where(free, squared_distances(features, wanted), np.inf).argmin())
        picks[number] = pick
        free[pick] = False
        wanted -= features[pick]
    return picks


def choose_k_center(features: Features, count: int, outliers: float = 0.0) -> Indices:
    """Greedy k-centre: each pick is the patch farthest from all picks so far; the first is nearest to the mean.

    With ``outliers``, that share of the pool, farthest first, is passed over at every pick: the radius is allowed to
    leave it uncovered, as in k-centre with outliers (Charikar et al. 2001). Without, the first picks are the oddest
    patches.

    Source: Gonzalez (1985).

    >>> points = np.float32([[0], [1], [2], [3], [4], [5], [6], [7], [8], [50]])
    >>> choose_k_center(points, 2).tolist(), choose_k_center(points, 2, outliers=0.1).tolist()
    ([8, 9], [8, 0])

    Args:
        features: of the pool, (N, D), finite.
        outliers: share of the pool, in [0, 1).

    Returns:
        Indices in the order picked, (count,), int64, each once; ties go to the smaller index.

    Raises:
        ValueError: ``count`` exceeds N, or N without the outliers.
    """
    passed_over = int(outliers * len(features))
    check_count(count, len(features) - passed_over)
    pick = int(squared_distances(features, mean_point(features)).argmin())
    uncovered = np.full(len(features), np.inf)
    picks = [pick]
    while len(picks) < count:
        uncovered = np.minimum(uncovered, squared_distances(features, features[pick].astype(np.float64)))
        uncovered[pick] = -1.0  # below any distance: a patch is picked once, even where others equal it
        rank = len(features) - 1 - passed_over
        pick = int((uncovered == np.partition(uncovered, rank)[rank]).argmax())
        picks.append(pick)
    return np.array(picks, np.int64)
