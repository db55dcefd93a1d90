"""The real patches that stand nearest to the centres of the pool."""

import numpy as np

from basicsr_distill.selection.choices import Features, Indices, check_count
from basicsr_distill.selection.distances import squared_distances
from basicsr_distill.selection.kmeans import cluster

# k-means sees no more patches than this, or this many for each centre: more hardly move a mean, and cost minutes.
_SEEN = 20_000
_SEEN_PER_CENTER = 10


def choose_medoids(features: Features, count: int, seed: int) -> Indices:
    """Choose the patch nearest to each centre of k-means with k = count.

    Of large pools, k-means sees a random part (20,000 patches or more); the nearest patch is sought in the whole pool.
    Centres choose in the order of their clusters' sizes, the largest first; a patch that is taken leaves a centre its
    next nearest. Where k-means finds fewer clusters than asked for (repeated features), the centres choose again.
    Choices of different counts do not nest.

    >>> choose_medoids(np.float32([[0], [1], [2], [10], [11], [12], [13]]), count=2, seed=0).tolist()
    [4, 1]

    Args:
        features: of the pool, (N, D), finite.
        count: patches chosen.
        seed: of k-means.

    Returns:
        Indices, largest cluster first, (count,), int64, each once.

    Raises:
        ValueError: ``count`` exceeds N.
    """
    check_count(count, len(features))
    centers = cluster(_seen(features, count, seed), count, seed).centers
    free = np.ones(len(features), bool)
    picks: list[int] = []
    while len(picks) < count:
        center = centers[len(picks) % len(centers)].astype(np.float64)
        pick = int(np.where(free, squared_distances(features, center), np.inf).argmin())
        picks.append(pick)
        free[pick] = False
    return np.array(picks, np.int64)


def _seen(features: Features, count: int, seed: int) -> Features:
    """The part of the pool that k-means is run on, in the pool's order."""
    limit = max(_SEEN, _SEEN_PER_CENTER * count)
    if len(features) <= limit:
        return features
    part = np.random.Generator(np.random.PCG64(seed)).choice(len(features), limit, replace=False)
    return features[np.sort(part)]
