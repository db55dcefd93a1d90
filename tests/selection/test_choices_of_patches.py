"""Choices of real patches against their definitions, written as loops, on 200 points."""

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from basicsr_distill.selection.core_sets import choose_by_herding, choose_k_center
from basicsr_distill.selection.kmeans import cluster
from basicsr_distill.selection.medoids import choose_medoids
from basicsr_distill.selection.random_choice import (
    choose_in_band,
    choose_per_cluster,
    choose_random,
    choose_under_threshold,
    in_band,
)
from basicsr_distill.selection.ranked import choose_hardest, choose_highest
from basicsr_distill.stages.select.choose import METHODS

COUNT = 200


@pytest.fixture(scope='module')
def features():
    generator = np.random.default_rng(0)
    centers = generator.normal(scale=4, size=(6, 8))
    return (centers[generator.integers(6, size=COUNT)] + generator.normal(size=(COUNT, 8))).astype(np.float32)


@pytest.fixture(scope='module')
def psnr_db():
    scores = np.random.default_rng(1).normal(25, 4, COUNT).astype(np.float32)
    scores[[3, 77]] = np.inf
    return scores


@pytest.fixture(scope='module')
def labels():
    return np.random.default_rng(2).choice(4, p=[0.5, 0.3, 0.15, 0.05], size=COUNT)


def drawn(seed):
    return np.random.Generator(np.random.PCG64(seed)).permutation(COUNT).tolist()


def gap(a, b):
    return sum((float(x) - float(y)) ** 2 for x, y in zip(a, b))


def test_random_choices_thin_out_one_permutation(psnr_db):
    finite = sorted(float(score) for score in psnr_db if score < np.inf)
    median = (finite[98] + finite[99]) / 2
    assert choose_random(COUNT, 9, seed=5).tolist() == drawn(5)[:9]
    assert choose_under_threshold(psnr_db, 25.0, 9, 5).tolist() == [n for n in drawn(5) if psnr_db[n] < 25][:9]
    assert choose_under_threshold(psnr_db, 'median', 9, 5).tolist() == [n for n in drawn(5) if psnr_db[n] < median][:9]
    low, high = np.quantile(finite, 0.05), np.quantile(finite, 0.5)
    assert choose_in_band(psnr_db, 0.05, 0.5, 9, 5).tolist() == [n for n in drawn(5) if low <= psnr_db[n] <= high][:9]


def test_flat_patches_lie_in_no_band(psnr_db):
    assert in_band(psnr_db, 0, 1).tolist() == [score < np.inf for score in psnr_db.tolist()]
    assert not in_band(np.full(3, np.inf, np.float32), 0, 1).any()


@pytest.mark.parametrize('count', [1, 4, 21, COUNT])
def test_clusters_take_turns(labels, count):
    waiting = {label: [n for n in drawn(7) if labels[n] == label] for label in range(4)}
    expected = []
    while any(waiting.values()):
        expected += [waiting[label].pop(0) for label in range(4) if waiting[label]]
    chosen = choose_per_cluster(labels, count, 7)
    assert chosen.tolist() == expected[:count]
    if count == 21:
        assert np.bincount(labels[chosen]).tolist() == [6, 5, 5, 5]


def test_medoids_are_nearest_to_the_centres(features):
    centers, picked = cluster(features, 12, 3).centers, []
    for center in centers:
        picked.append(min((n for n in range(COUNT) if n not in picked), key=lambda n: gap(features[n], center)))
    assert choose_medoids(features, 12, 3).tolist() == picked


def test_medoids_are_distinct_where_features_repeat():
    points = np.repeat(np.eye(3, dtype=np.float32), 5, axis=0)
    chosen = choose_medoids(points, 7, 0)
    assert len(set(chosen.tolist())) == 7
    assert {tuple(points[n]) for n in chosen[:3]} == {tuple(row) for row in np.eye(3)}


def test_herding_brings_the_mean_nearest(features):
    goal, picked = features.astype(np.float64).mean(0), []
    for _ in range(15):
        gaps = {
            n: gap(np.mean([features[m] for m in [*picked, n]], axis=0, dtype=np.float64), goal)
            for n in range(COUNT)
            if n not in picked
        }
        picked.append(min(gaps, key=gaps.get))
    assert choose_by_herding(features, 15).tolist() == picked


@pytest.mark.parametrize('outliers', [0.0, 0.2])
def test_k_center_picks_the_farthest_that_is_not_passed_over(features, outliers):
    goal = features.astype(np.float64).mean(0)
    picked = [min(range(COUNT), key=lambda n: gap(features[n], goal))]
    while len(picked) < 12:
        uncovered = {n: min(gap(features[n], features[m]) for m in picked) for n in range(COUNT) if n not in picked}
        order = sorted(uncovered, key=lambda n: (-uncovered[n], n))
        picked.append(order[int(outliers * COUNT)])
    assert choose_k_center(features, 12, outliers).tolist() == picked


def test_k_center_leaves_outliers_alone(features):
    points = features.copy()
    points[:10] *= 50
    assert set(choose_k_center(points, 6).tolist()) & set(range(10))
    assert not set(choose_k_center(points, 6, outliers=0.05).tolist()) & set(range(10))


@pytest.mark.parametrize('skip', [0.0, 0.05])
def test_hardest_without_the_very_hardest(skip):
    losses = np.random.default_rng(3).integers(40, size=COUNT) / 40  # with ties
    order = sorted(range(COUNT), key=lambda n: (-losses[n], n))
    assert choose_hardest(losses, 20, skip).tolist() == order[int(skip * COUNT) :][:20]
    assert choose_highest(losses, 20).tolist() == order[:20]


def methods(features, psnr_db, labels):
    return {
        'random': lambda count: choose_random(COUNT, count, 1),
        'threshold': lambda count: choose_under_threshold(psnr_db, 'median', count, 1),
        'band': lambda count: choose_in_band(psnr_db, 0.05, 0.5, count, 1),
        'uniform': lambda count: choose_per_cluster(labels, count, 1),
        'medoids': lambda count: choose_medoids(features, count, 1),
        'herding': lambda count: choose_by_herding(features, count),
        'k_center': lambda count: choose_k_center(features, count, 0.1),
        'loss': lambda count: choose_hardest(features[:, 0], count),
        'file': lambda count: choose_highest(features[:, 0], count),
    }


def test_what_is_said_to_nest_nests(features, psnr_db, labels):
    for name, method in methods(features, psnr_db, labels).items():
        nested = method(30)[:7].tolist() == method(7).tolist()
        assert nested == METHODS[name].is_nested, name


def test_more_than_there_is_is_refused(features, psnr_db, labels):
    for name, method in methods(features, psnr_db, labels).items():
        for count in (0, COUNT + 1):
            with pytest.raises(ValueError, match=f'{count} patches cannot be chosen from'):
                method(count)
        assert len(set(method(60).tolist())) == 60, name
    with pytest.raises(ValueError, match='cluster 1 is empty'):
        choose_per_cluster(np.array([0, 2, 0]), 2, 0)
    with pytest.raises(ValueError, match='patch 1 is not finite'):
        choose_highest(np.array([0.0, np.nan]), 1)


def test_everything_can_be_chosen_once(features):
    points = np.repeat(features[:20], 2, axis=0)  # each twice
    for chosen in (choose_by_herding(points, 40), choose_k_center(points, 40), choose_medoids(points, 40, 0)):
        assert sorted(chosen.tolist()) == list(range(40))


def test_threads_do_not_change_a_choice():
    points = np.random.default_rng(0).normal(size=(3000, 64)).astype(np.float32)
    chosen = []
    for threads in (1, 4):
        with threadpool_limits(threads):
            chosen.append(
                [
                    choose_by_herding(points, 20).tolist(),
                    choose_k_center(points, 20, 0.1).tolist(),
                    choose_medoids(points, 20, 0).tolist(),
                ]
            )
    assert chosen[0] == chosen[1]
