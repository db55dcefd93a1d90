"""Core-sets by features: patches of a pool, or images drawn, that stand for the pool."""

import numpy as np

from basicsr_distill.selection.choices import Features, Indices, check_count
from basicsr_distill.selection.distances import mean_point, squared_distances


def choose_by_herding(features: Features, count: int, targets: Features | None = None) -> Indices:
    """Choose by herding: each pick brings the mean of all picks nearest to the mean of the targets.

    Source: Welling (2009), in the form of iCaRL (Rebuffi et al. 2017): the pick x minimises
    ||(i + 1) mu - sum of the i picks before - x||.

    >>> choose_by_herding(np.float32([[-1], [0], [2], [3]]), count=2).tolist()
    [1, 2]

    Args:
        features: of what is chosen from, (N, D), finite.
        count: picks.
        targets: what they stand for, (M, D), finite; the features themselves when absent.

    Returns:
        Indices in the order picked, (count,), int64, each once; ties go to the smaller index.

    Raises:
        ValueError: ``count`` exceeds N.
    """
    check_count(count, len(features))
    mean = mean_point(features if targets is None else targets)
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


def choose_k_center(features: Features, count: int, outliers: float = 0.0, targets: Features | None = None) -> Indices:
    """Choose by greedy k-centre: each pick is nearest to the target that is farthest from all picks so far.

    The first is nearest to the target that is nearest to the mean. With ``outliers``, that share of the targets,
    farthest first, is passed over at every pick: the radius is allowed to leave it uncovered, as in k-centre with
    outliers (Charikar et al. 2001). Without, the first picks are the oddest patches.

    Source: Gonzalez (1985); with ``targets``, centres are restricted to candidates.

    >>> points = np.float32([[0], [1], [2], [3], [4], [5], [6], [7], [8], [50]])
    >>> choose_k_center(points, 2).tolist(), choose_k_center(points, 2, outliers=0.1).tolist()
    ([8, 9], [8, 0])
    >>> choose_k_center(np.float32([[0], [4], [9]]), 2, targets=np.float32([[0], [1], [8]])).tolist()
    [0, 2]

    Args:
        features: of what is chosen from, (N, D), finite.
        count: picks.
        outliers: share of the targets, in [0, 1).
        targets: what is covered, (M, D), finite; the features themselves when absent.

    Returns:
        Indices in the order picked, (count,), int64, each once; ties go to the smaller index.

    Raises:
        ValueError: ``count`` exceeds N, or, without targets, N without the outliers.
    """
    covered = features if targets is None else targets
    passed_over = int(outliers * len(covered))
    check_count(count, len(features) - (passed_over if targets is None else 0))
    worst = int(squared_distances(covered, mean_point(covered)).argmin())
    gap = np.full(len(covered), np.inf)
    free = np.ones(len(features), bool)
    picks = np.empty(count, np.int64)
    for number in range(count):
        pick = worst
        if targets is not None:
            pick = int(np.where(free, squared_distances(features, targets[worst]), np.inf).argmin())
        picks[number] = pick
        free[pick] = False
        gap = np.minimum(gap, squared_distances(covered, features[pick]))
        if targets is None:
            gap[pick] = -1.0  # below any distance: a patch is picked once, even where others equal it
        rank = len(covered) - 1 - passed_over
        worst = int((gap == np.partition(gap, rank)[rank]).argmax())
    return picks
