"""Means, spreads and paired differences against scipy and cases with known answers."""

import numpy as np
import pytest
from scipy import stats

from basicsr_distill.benchmark.statistics import bootstrap_interval, paired_gain, summarize


def test_the_interval_is_that_of_scipy() -> None:
    values = np.random.default_rng(3).normal(0.1, 0.5, 12)
    ours = bootstrap_interval(values)
    theirs = stats.bootstrap((values,), np.mean, method='percentile', n_resamples=40_000, confidence_level=0.95,
                             vectorized=True, random_state=np.random.default_rng(1)).confidence_interval
    assert ours == pytest.approx((theirs.low, theirs.high), abs=0.01)


def test_two_values_have_a_known_interval() -> None:
    """The mean of two draws from {0, 1} is 0, 1/2, 1 with chances 1/4, 1/2, 1/4: 95 % of them reach from 0 to 1."""
    assert bootstrap_interval([0.0, 1.0]) == (0.0, 1.0)


def test_three_values_by_all_27_resamples() -> None:
    values = [0.02, 0.11, 0.05]
    means = sorted((a + b + c) / 3 for a in values for b in values for c in values)
    # One in 27 is more than 2.5 %: the interval reaches to the extremes.
    assert bootstrap_interval(values) == pytest.approx((means[0], means[-1]))


def test_differences_are_paired() -> None:
    """Seeds that move both rows alike do not hide a gain; unpaired, its spread would be that of the seeds."""
    theirs = {0: 27.0, 1: 27.5, 2: 26.5}
    gain = paired_gain({seed: value + 0.6 + 0.01 * seed for seed, value in theirs.items()}, theirs)
    assert gain is not None
    assert gain.mean == pytest.approx(0.61) and gain.high - gain.low < 0.03 and gain.number == 3
    assert gain.spread == pytest.approx(np.std([27.0, 27.5, 26.5], ddof=1))  # the larger of the two rows'
    assert not gain.is_inside_spread


@pytest.mark.parametrize(('ours', 'inside'), [
    ({0: 1.5, 1: 0.9, 2: 1.0}, True),  # the interval holds 0
    ({0: 1.06, 1: 1.05, 2: 1.07}, True),  # always better, by less than the seeds spread
    ({0: 3.0, 1: 3.1, 2: 2.9}, False),
    ({0: 3.0}, True),  # one seed says nothing
])
def test_what_counts_as_a_gain(ours: dict[int, float], inside: bool) -> None:
    gain = paired_gain(ours, {0: 1.0, 1: 0.9, 2: 1.1})
    assert gain is not None and gain.is_inside_spread is inside


def test_smaller_is_better_where_it_is() -> None:
    gain = paired_gain({0: 0.2, 1: 0.3}, {0: 0.4, 1: 0.4}, lower_is_better=True)
    assert gain is not None and gain.mean == pytest.approx(0.15)
    assert summarize([0.2, 0.3], lower_is_better=True).worst == 0.3 and summarize([0.2, 0.3]).worst == 0.2


def test_without_a_common_seed_there_is_nothing_to_compare() -> None:
    assert paired_gain({0: 1.0}, {1: 1.0}) is None
