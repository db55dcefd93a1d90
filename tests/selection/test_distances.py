"""Distances, and choices of candidates that stand for other targets, against their definitions, written as loops."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import sklearn
from threadpoolctl import threadpool_limits

from basicsr_distill.selection import distances
from basicsr_distill.selection.core_sets import choose_by_herding, choose_k_center
from basicsr_distill.selection.distances import distance_to_others, nearest, paired_distances


@pytest.fixture
def features():
    generator = np.random.default_rng(0)
    return generator.normal(size=(30, 5)).astype(np.float32), generator.normal(size=(50, 5)).astype(np.float32)


def test_herding_picks_what_brings_the_mean_nearest(features):
    candidates, targets = features
    goal, picked = targets.astype(np.float64).mean(0), []
    for _ in range(12):
        gaps = {
            n: np.linalg.norm(np.mean([candidates[m] for m in [*picked, n]], axis=0, dtype=np.float64) - goal)
            for n in range(len(candidates))
            if n not in picked
        }
        picked.append(min(gaps, key=gaps.get))
    assert choose_by_herding(candidates, 12, targets).tolist() == picked


def test_k_center_covers_the_worst_target_each_time(features):
    candidates, targets = features
    gap = lambda r, c: np.linalg.norm(targets[r].astype(np.float64) - candidates[c])  # noqa: E731
    mean = targets.mean(0, dtype=np.float64)
    worst, picked = min(range(50), key=lambda r: np.linalg.norm(targets[r] - mean)), []
    for _ in range(12):
        picked.append(min((c for c in range(30) if c not in picked), key=lambda c: gap(worst, c)))
        worst = max(range(50), key=lambda r: min(gap(r, c) for c in picked))
    assert choose_k_center(candidates, 12, targets=targets).tolist() == picked


def test_both_can_take_everything_once(features):
    candidates, targets = features
    for select in (choose_by_herding, choose_k_center):
        assert sorted(select(candidates, 30, targets=targets).tolist()) == list(range(30))


def test_selections_stand_for_the_targets_better_than_chance(features):
    candidates, targets = features
    chosen = candidates[choose_by_herding(candidates, 5, targets)].mean(0)
    generator = np.random.default_rng(1)
    random = [candidates[generator.permutation(30)[:5]].mean(0) for _ in range(50)]
    goal = targets.mean(0)
    assert np.linalg.norm(chosen - goal) < min(np.linalg.norm(mean - goal) for mean in random)


def test_nearest(features):
    candidates, targets = features
    index, distance = nearest(candidates, targets)
    for n in range(30):
        gaps = np.linalg.norm(targets.astype(np.float64) - candidates[n], axis=1)
        assert index[n] == gaps.argmin() and distance[n] == pytest.approx(gaps.min(), rel=1e-6)


def test_distance_to_others_leaves_out_the_point_itself(features):
    points = features[0].astype(np.float64)
    points[7] = points[3]
    expected = [min(np.linalg.norm(points[n] - points[m]) for m in range(30) if m != n) for n in (3, 11, 29)]
    measured = distance_to_others(points.astype(np.float32), np.array([3, 11, 29]))
    np.testing.assert_allclose(measured, expected, atol=1e-6)
    assert measured[0] == 0
    assert distance_to_others(features[0][:1], np.array([0])).tolist() == [0]


def test_equal_points_are_at_distance_zero_of_each_other() -> None:
    points = np.full((600, 16), 123.456, np.float32)
    points[:3] += 1
    index, distance = nearest(points, points)
    assert distance.tolist() == [0.0] * 600
    assert ((index < 3) == (np.arange(600) < 3)).all()
    assert distance_to_others(points, np.array([0, 2, 599])).tolist() == [0.0] * 3


def test_blocks_and_threads_do_not_change_a_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(0)
    few, many = (generator.normal(size=(count, 24)).astype(np.float32) for count in (90, 3000))

    def results() -> list[bytes]:
        index = np.arange(3000) % 90
        arrays = [
            *nearest(few, many),
            *nearest(many, few),
            distance_to_others(many, index),
            choose_by_herding(few, 40, many),
            choose_k_center(few, 40, targets=many),
            choose_k_center(many, 40, targets=few),
            paired_distances(many, few, index),
        ]
        return [array.tobytes() for array in arrays]

    expected = results()
    for block_bytes, chunk, threads in ((1, 256, 1), (1 << 12, 64, 2), (1 << 30, 1000, 4)):
        monkeypatch.setattr(distances, '_BLOCK_BYTES', block_bytes)
        with sklearn.config_context(pairwise_dist_chunk_size=chunk), threadpool_limits(threads):
            assert results() == expected


def test_features_mapped_from_a_file_are_read_in_blocks(tmp_path: Path) -> None:
    points = np.lib.format.open_memmap(tmp_path / 'features.npy', 'w+', np.float32, (40_000, 64))
    points[:] = np.random.default_rng(0).normal(size=points.shape)
    few = np.array(points[:20])
    for work in (
        lambda: nearest(points, few),
        lambda: nearest(few, points),
        lambda: choose_k_center(few, 5, targets=points),
        lambda: distance_to_others(points, np.arange(20)),
        lambda: choose_by_herding(points, 3, few),
    ):
        tracemalloc.start()
        work()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < points.nbytes / 2
