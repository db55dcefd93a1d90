"""Windows on a grid, of the highest means, and at random, against plain loops."""

import numpy as np
import pytest
from numpy.typing import NDArray

from basicsr_distill.selection.windows import best_windows, grid_windows, poisson_windows


def best_by_loops(cells: NDArray[np.float64], size: int, max_overlap: float) -> list[list[int]]:
    """Every place is scored, and the best of those that are far enough from all earlier ones is taken."""
    scores = {
        (top, left): cells[top : top + size, left : left + size].sum()
        for top in range(cells.shape[0] - size + 1)
        for left in range(cells.shape[1] - size + 1)
    }
    taken: list[tuple[int, int]] = []
    while True:
        free = {
            place: score
            for place, score in scores.items()
            if score > 1e-9
            and all(
                max(0, size - abs(place[0] - top)) * max(0, size - abs(place[1] - left)) <= max_overlap * size**2
                for top, left in taken
            )
        }
        if not free:
            return [list(place) for place in taken]
        taken.append(max(free, key=lambda place: (round(free[place], 6), -place[0], -place[1])))


@pytest.mark.parametrize('max_overlap', [0.0, 0.25, 0.6])
@pytest.mark.parametrize('seed', range(3))
def test_the_best_are_those_of_a_search_by_loops(seed: int, max_overlap: float) -> None:
    cells = np.random.default_rng(seed).integers(0, 9, (17, 23)).astype(np.float32)
    cells[:6, :9] = 0
    found = best_windows(cells, 5, max_overlap)
    assert found.tolist() == best_by_loops(cells.astype(np.float64), 5, max_overlap)
    assert found.dtype == np.int32


def test_where_there_is_nothing_no_window_is_taken() -> None:
    assert best_windows(np.zeros((9, 9), np.float32), 3).shape == (0, 2)
    assert best_windows(np.ones((2, 9), np.float32), 3).shape == (0, 2)
    assert best_windows(np.ones((3, 3), np.float32), 3).tolist() == [[0, 0]]


def test_rounding_does_not_choose_among_equals() -> None:
    cells = np.tile(np.random.default_rng(0).uniform(1, 9, (4, 4)), (6, 9))
    rounded = cells * (1 + 2e-6 * np.random.default_rng(1).uniform(-1, 1, cells.shape))
    found = best_windows(rounded.astype(np.float32), 8)
    assert found.tolist() == [[top, left] for top in (0, 8, 16) for left in (0, 8, 16, 24)]


@pytest.mark.parametrize('shape', [(300, 500), (64, 400), (64, 64)])
def test_random_windows_keep_their_distance_and_leave_no_room(shape: tuple[int, int]) -> None:
    found = poisson_windows(*shape, size=64, distance=48, step=4, rng=np.random.default_rng(1))
    assert (found >= 0).all() and (found + 64 <= shape).all() and len(found)
    apart = np.hypot(*(found[:, None] - found).transpose(2, 0, 1).astype(float)) + 1e9 * np.eye(len(found))
    assert apart.min() >= 48
    rooms = grid_windows(*shape, 64, 4)
    nearest = np.hypot(*(rooms[:, None] - found).transpose(2, 0, 1).astype(float)).min(axis=1)
    assert nearest.max() < 48, 'no room for another one'


def test_the_draw_is_that_of_the_generator() -> None:
    def draw(seed: int) -> list[list[int]]:
        return poisson_windows(200, 300, 64, 40, 2, np.random.default_rng(seed)).tolist()

    assert draw(0) == draw(0) != draw(1)
    assert poisson_windows(50, 300, 64, 40, 2, np.random.default_rng(0)).shape == (0, 2)
