"""k-means with everything a recipe may ask of it: a seed that fixes the result, a choice of k, equal sizes."""

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import KMeans, MiniBatchKMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import silhouette_score
from sklearn.metrics.pairwise import euclidean_distances
from threadpoolctl import threadpool_limits

# Above this, full passes over the features cost more than they gain.
MINIBATCH_ABOVE = 200_000
_MINIBATCH_SIZE = 4096
_STARTS = 10
# The choice of k looks at no more than this many features, and at no larger k.
_CHOICE_SAMPLE = 4000
_MAX_CHOICE = 16
# Features looked at in one go: those of a large set are mapped from a file and do not fit into memory.
_BLOCK_ROWS = 1 << 14


@dataclass(frozen=True)
class Clusters:
    """A clustering of N features.

    >>> Clusters(np.array([0, 0, 1]), np.float32([[9.5], [0]])).sizes
    [2, 1]
    """

    labels: NDArray[np.int64]  # (N,), from 0, largest cluster first
    centers: NDArray[np.float32]  # (k, D), means of the members

    @property
    def sizes(self) -> list[int]:
        """Members of every cluster."""
        return np.bincount(self.labels, minlength=len(self.centers)).tolist()


def cluster(features: NDArray[np.float32], num_clusters: int, seed: int, balance: bool = False) -> Clusters:
    """k-means of features; the same seed gives the same clusters on any number of cores.

    Args:
        features: (N, D), finite.
        num_clusters: k, at most N; fewer clusters come back when fewer features are distinct.
        seed: of the starts.
        balance: make all sizes equal to within one, see :func:`equal_sizes`.

    >>> cluster(np.float32([[0], [9], [10]]), 2, seed=0).labels.tolist()
    [1, 0, 0]
    """
    # Partial sums of several threads would meet in any order.
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter('ignore', ConvergenceWarning)  # empty clusters show in their number
        if len(features) > MINIBATCH_ABOVE:
            model = MiniBatchKMeans(num_clusters, random_state=seed, n_init=3, batch_size=_MINIBATCH_SIZE)
        else:
            model = KMeans(num_clusters, random_state=seed, n_init=_STARTS)
        labels = model.fit_predict(features).astype(np.int64)
        if balance:
            return _by_size(features, equal_sizes(distances(features, model.cluster_centers_)))
    found = _by_size(features, labels)
    # Where there are fewer distinct features than clusters, rounding deals equal ones out to equal centres.
    distinct, owner = np.unique(found.centers, axis=0, return_inverse=True)
    return found if len(distinct) == len(found.centers) else _by_size(features, owner.reshape(-1)[found.labels])


def choose_num_clusters(features: NDArray[np.float32], seed: int) -> int:
    """The k from 2 to 16 with the best silhouette on a sample; 1 for fewer than three distinct features.

    Source: Rousseeuw (1987).

    >>> choose_num_clusters(np.float32([[0], [1], [50], [51], [100], [101]]), seed=0)
    3
    """
    sample = np.random.default_rng(seed).permutation(len(features))[:_CHOICE_SAMPLE]
    chosen = np.asarray(features[np.sort(sample)])
    distinct = len(np.unique(chosen, axis=0))
    scores = {}
    for k in range(2, min(_MAX_CHOICE, distinct - 1) + 1):
        labels = cluster(chosen, k, seed).labels
        scores[k] = float(silhouette_score(chosen, labels)) if labels.max() else -1.0
    return max(scores, key=lambda k: scores[k]) if scores else 1


def distances(features: NDArray[np.float32], centers: NDArray[np.float32]) -> NDArray[np.float32]:
    """Euclidean distances, (N, k), float32.

    >>> distances(np.float32([[0, 0], [3, 4]]), np.float32([[0, 0]])).tolist()
    [[0.0], [5.0]]
    """
    result = np.empty((len(features), len(centers)), np.float32)
    with threadpool_limits(1):
        for first in range(0, len(features), _BLOCK_ROWS):  # the arithmetic is done in double precision
            result[first : first + _BLOCK_ROWS] = euclidean_distances(features[first : first + _BLOCK_ROWS], centers)
    return result


def equal_sizes(distance: NDArray[np.float32]) -> NDArray[np.int64]:
    """Assign samples to clusters of equal size (to within one), those first that would lose most by waiting.

    Args:
        distance: of every sample to every centre, (N, k).

    Returns:
        Labels, (N,).

    >>> equal_sizes(np.float32([[0, 9], [1, 5], [2, 3], [3, 2]])).tolist()
    [0, 0, 1, 1]
    """
    count, k = distance.shape
    preferences = np.argsort(distance, axis=1, kind='stable')
    ordered = np.take_along_axis(distance, preferences, axis=1)
    loss = ordered[:, min(1, k - 1)] - ordered[:, 0]
    wanted = np.bincount(preferences[:, 0], minlength=k)
    room = np.full(k, count // k)
    room[np.argsort(-wanted, kind='stable')[: count % k]] += 1
    labels = np.empty(count, np.int64)
    for sample in np.argsort(-loss, kind='stable'):
        labels[sample] = next(label for label in preferences[sample] if room[label])
        room[labels[sample]] -= 1
    return labels


def _by_size(features: NDArray[np.float32], labels: NDArray[np.int64]) -> Clusters:
    """Number the occupied clusters densely, by falling size and then by first member, and take their means."""
    occupied, first, dense, sizes = np.unique(labels, return_index=True, return_inverse=True, return_counts=True)
    order = np.lexsort((first, -sizes))
    rank = np.empty(len(occupied), np.int64)
    rank[order] = np.arange(len(occupied))
    labels = rank[dense]
    centers = [_mean(features, np.flatnonzero(labels == label)) for label in range(len(occupied))]
    return Clusters(labels, np.stack(centers).astype(np.float32))


def _mean(features: NDArray[np.float32], members: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the mean of some of the features, (D,): one sum from the first to the last, whatever the blocks."""
    total = np.zeros((1, features.shape[1]))
    for first in range(0, len(members), _BLOCK_ROWS):
        block = features[members[first : first + _BLOCK_ROWS]].astype(np.float64)
        total = np.concatenate([total, block]).sum(axis=0, keepdims=True)
    return total[0] / len(members)
