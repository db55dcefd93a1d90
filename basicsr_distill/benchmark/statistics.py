"""What may be said of a few seeds: mean, spread, and differences paired by seed with a bootstrap interval."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

Key = TypeVar('Key')
_RESAMPLES = 10_000
_LEVEL = 0.95


@dataclass(frozen=True)
class Summary:
    """mean, sd (of a sample; 0 for one value) and worst of some values, and how many there are."""

    mean: float
    sd: float
    worst: float
    number: int


@dataclass(frozen=True)
class Gain:
    """How much better one row is than another, paired by seed.

    mean: of the differences, positive is better.  low, high: bounds of the interval; both are the mean for one seed.
    spread: run-to-run spread, the larger standard deviation of the two rows.  number: of pairs.
    """

    mean: float
    low: float
    high: float
    spread: float
    number: int

    @property
    def is_inside_spread(self) -> bool:
        """Whether it is no gain: the interval holds 0, the mean is within the spread, or there is but one seed."""
        return self.number < 2 or self.low <= 0 <= self.high or abs(self.mean) <= self.spread


def summarize(values: Sequence[float], lower_is_better: bool = False) -> Summary:
    """Mean, standard deviation and worst value.

    >>> summarize([1.0, 2.0, 3.0])
    Summary(mean=2.0, sd=1.0, worst=1.0, number=3)
    """
    array = np.asarray(values, np.float64)
    sd = float(array.std(ddof=1)) if len(array) > 1 else 0.0
    return Summary(float(array.mean()), sd, float(array.max() if lower_is_better else array.min()), len(array))


def paired_gain(ours: Mapping[Key, float], theirs: Mapping[Key, float], lower_is_better: bool = False) -> Gain | None:
    """How much better ours are than theirs, over the seeds that both have.

    Returns:
        None where they have no seed in common.

    >>> paired_gain({0: 2.0, 1: 3.0}, {0: 1.0, 1: 1.0}).mean
    1.5
    """
    common = [key for key in ours if key in theirs]
    if not common:
        return None
    sign = -1 if lower_is_better else 1
    gains = [sign * (ours[key] - theirs[key]) for key in common]
    low, high = bootstrap_interval(gains)
    spread = max(summarize([row[key] for key in common]).sd for row in (ours, theirs))
    return Gain(float(np.mean(gains)), low, high, spread, len(common))


def bootstrap_interval(values: Sequence[float], seed: int = 0) -> tuple[float, float]:
    """The 95 % percentile interval of the mean under resampling with replacement.

    Source: Efron (1979); 10,000 resamples.

    >>> bootstrap_interval([0.5, 0.5, 0.5])
    (0.5, 0.5)
    """
    array = np.asarray(values, np.float64)
    draws = np.random.default_rng(seed).integers(len(array), size=(_RESAMPLES, len(array)))
    low, high = np.quantile(array[draws].mean(axis=1), [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
    return float(low), float(high)
