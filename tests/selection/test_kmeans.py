import itertools

import numpy as np
import pytest
import torch

from basicsr_distill.selection import kmeans
from basicsr_distill.selection.kmeans import choose_num_clusters, cluster, distances, equal_sizes


def blobs(sizes: list[int], spread: float = 0.1) -> tuple[np.ndarray, np.ndarray]:
    """Well-separated groups in shuffled order, and the group of every row."""
    random = np.random.default_rng(0)
    owner = random.permutation(np.repeat(np.arange(len(sizes)), sizes))
    centers = 10 * np.eye(len(sizes), 8)
    return (centers[owner] + spread * random.standard_normal((len(owner), 8))).astype(np.float32), owner


def inertia(features: np.ndarray, labels: np.ndarray) -> float:
    return sum(
        float(np.square(features[labels == label] - features[labels == label].mean(axis=0)).sum())
        for label in np.unique(labels)
    )


def test_finds_groups_largest_first() -> None:
    features, owner = blobs([5, 20, 11])
    found = cluster(features, 3, seed=0)
    np.testing.assert_array_equal(found.labels, np.array([2, 0, 1])[owner])
    assert found.sizes == [20, 11, 5]
    for label, group in enumerate([1, 2, 0]):
        np.testing.assert_allclose(found.centers[label], features[owner == group].mean(axis=0), atol=1e-6)


def test_is_as_tight_as_the_best_of_all_partitions() -> None:
    features = np.random.default_rng(1).standard_normal((9, 2)).astype(np.float32)
    best = min(
        inertia(features, np.array(labels)) for labels in itertools.product(range(2), repeat=9) if 0 < sum(labels) < 9
    )
    assert inertia(features, cluster(features, 2, seed=0).labels) == pytest.approx(best, rel=1e-5)


def test_the_seed_settles_the_result_on_any_number_of_threads() -> None:
    features = np.random.default_rng(2).standard_normal((3000, 16)).astype(np.float32)
    before = torch.get_num_threads()
    results = []
    for threads in (1, 4):
        torch.set_num_threads(threads)
        results.append(cluster(features, 7, seed=5))
    torch.set_num_threads(before)
    np.testing.assert_array_equal(results[0].labels, results[1].labels)
    assert results[0].centers.tobytes() == results[1].centers.tobytes()
    assert (cluster(features, 7, seed=6).labels != results[0].labels).any()


def test_minibatches_find_the_same_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    features, _ = blobs([500, 400, 300])
    full = cluster(features, 3, seed=0)
    monkeypatch.setattr(kmeans, 'MINIBATCH_ABOVE', 1000)
    monkeypatch.setattr(kmeans, 'KMeans', None)
    np.testing.assert_array_equal(cluster(features, 3, seed=0).labels, full.labels)


def test_identical_features_give_fewer_clusters_densely_numbered() -> None:
    features = np.repeat(np.array([[0, 0], [5, 5]], np.float32), [3, 4], axis=0)
    found = cluster(features, 5, seed=0)
    assert found.labels.tolist() == [1, 1, 1, 0, 0, 0, 0]
    assert found.centers.tolist() == [[5, 5], [0, 0]]
    assert cluster(np.ones((6, 3), np.float32), 4, seed=0).sizes == [6]


def test_rounding_does_not_part_equal_features(monkeypatch: pytest.MonkeyPatch) -> None:
    features = np.float32([[0, 0], [0, 0], [5, 0.1], [5, 0.1], [5, 0.1]])
    # Centres 1 and 2 are equal: a difference in a last bit may decide for either.
    monkeypatch.setattr(kmeans.KMeans, 'fit_predict', lambda self, features: np.array([0, 0, 1, 2, 1]))
    found = cluster(features, 3, seed=0)
    assert found.labels.tolist() == [1, 1, 0, 0, 0] and found.sizes == [3, 2]
    np.testing.assert_array_equal(found.centers, features[[2, 0]])


@pytest.mark.parametrize('groups', [2, 3, 6])
def test_auto_finds_the_number_of_groups(groups: int) -> None:
    assert choose_num_clusters(blobs([12] * groups)[0], seed=0) == groups


def test_auto_of_too_little_is_one() -> None:
    assert choose_num_clusters(np.ones((10, 3), np.float32), seed=0) == 1
    assert choose_num_clusters(np.eye(2, dtype=np.float32), seed=0) == 1


def test_equal_sizes_differ_by_one_at_most_and_move_the_cheapest() -> None:
    features, _ = blobs([10, 4, 4])
    found = cluster(features, 3, seed=0, balance=True)
    assert sorted(found.sizes) == [6, 6, 6]
    line = np.array([[0.0], [0.1], [0.2], [3.9], [10.0]], np.float32)
    assert equal_sizes(distances(line, np.array([[0.0], [10.0]], np.float32))).tolist() == [0, 0, 0, 1, 1]
    assert equal_sizes(np.zeros((3, 1), np.float32)).tolist() == [0, 0, 0]


def test_distances_equal_the_definition() -> None:
    random = np.random.default_rng(3)
    features, centers = (
        random.standard_normal((40, 5)).astype(np.float32),
        random.standard_normal((3, 5)).astype(np.float32),
    )
    expected = [[np.sqrt(((row - center) ** 2).sum()) for center in centers] for row in features.astype(np.float64)]
    np.testing.assert_allclose(distances(features, centers), expected, rtol=1e-6)
