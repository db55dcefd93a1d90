import numpy as np
import pytest

from basicsr_distill.selection.thresholds import hardest_db, histogram_text, threshold_db

SCORES = np.array([21, 30, np.inf, 24, 27, 22, np.inf, 29], np.float32)


@pytest.mark.parametrize(
    ('threshold', 'below'), [('median', 3), ('q50', 3), ('q34', 2), ('q100', 6), (24.0, 2), (5.0, 0)]
)
def test_thresholds_count_finite_scores_alone(threshold: float | str, below: int) -> None:
    assert (threshold_db(SCORES, threshold) > SCORES).sum() == below


def test_the_median_lies_between_the_middle_scores() -> None:
    assert threshold_db(SCORES, 'median') == 25.5


def test_flat_patches_alone_have_a_finite_threshold() -> None:
    assert threshold_db(np.full(3, np.inf, np.float32), 'median') == 0


def test_the_hardest_share() -> None:
    assert (hardest_db(SCORES, 0.2) > SCORES).sum() == 1
    assert hardest_db(SCORES, 0) == -np.inf


def test_histogram_counts_every_finite_score() -> None:
    text = histogram_text(SCORES, bins=5)
    assert text == '21-23 dB: 2, 23-25 dB: 1, 25-27 dB: 0, 27-29 dB: 1, 29-31 dB: 2'
    assert histogram_text(np.full(3, 22.5, np.float32), bins=2) == '22-22.5 dB: 0, 22.5-23 dB: 3'
    assert histogram_text(np.full(3, np.inf, np.float32)) == 'all 3 patches are flat'
