"""Statistics of a few sets: mean and spread, Student's t intervals of differences, and claims that keep their level.

The unit is the set: whoever calls averages the trainings of a set first.
"""

import math
from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from scipy.special import stdtr, stdtrit

Key = TypeVar('Key', bound=Hashable)
Claim = Literal['', 'better', 'worse']

SETS_OF_AN_INTERVAL = 3
SETS_OF_A_CLAIM = 5
# Chance that a table of equal rows claims anything; half of it for better, half for worse.
LEVEL = 0.05


@dataclass(frozen=True)
class Summary:
    """mean, sd (of a sample; 0 for one value) and worst of some values, and how many there are."""

    mean: float
    sd: float
    worst: float
    number: int


@dataclass(frozen=True)
class Gain:
    """How much better one row is than another.

    mean: of the difference, positive is better.  error: its standard error.  spread: from set to set, the larger
    standard deviation of the two rows.  number: of independent sets.  is_paired: the difference is taken set by set;
    otherwise one of the rows is a single set, which is placed among the sets of the other.
    """

    mean: float
    error: float
    spread: float
    number: int
    is_paired: bool

    def bounds(self, tail: float = LEVEL / 2) -> tuple[float, float] | None:
        """Ends of Student's t interval, each exceeded with the chance ``tail``; None under three sets.

        Of a single set it is where the difference to one more set of the other row is expected.
        """
        if self.number < SETS_OF_AN_INTERVAL:
            return None
        half = self.error * float(stdtrit(self.number - 1, 1 - tail))
        return self.mean - half, self.mean + half

    @property
    def is_inside_spread(self) -> bool:
        """Whether it is no gain: the interval holds 0, the mean is within the spread, or there is no interval."""
        bounds = self.bounds()
        return bounds is None or bounds[0] <= 0 <= bounds[1] or abs(self.mean) <= self.spread

    def p_value(self, sign: Literal[1, -1]) -> float:
        """One-sided p-value of a gain (``sign`` 1) or a loss (-1); 1 under five sets or within the spread."""
        gain = sign * self.mean
        if self.number < SETS_OF_A_CLAIM or gain <= self.spread:
            return 1.0
        return float(stdtr(self.number - 1, -gain / self.error)) if self.error else 0.0


@dataclass(frozen=True)
class Verdict:
    """A row against all real rows.

    least: its gain over the real row over which it gains least.  bounds: of the gain over whichever real row is truly
    the best, at 95 %; None under three sets.  number: of independent sets, the fewest of its comparisons.  claim: what
    may be said of it.
    """

    least: Gain
    bounds: tuple[float, float] | None
    number: int
    claim: Claim

    @property
    def is_inside_spread(self) -> bool:
        """Whether it is neither a gain nor a loss: the interval holds 0, or the difference is within the spread."""
        return self.bounds is None or self.bounds[0] <= 0 <= self.bounds[1] or abs(self.least.mean) <= self.least.spread


def summarize(values: Sequence[float], lower_is_better: bool = False) -> Summary:
    """Mean, standard deviation and worst value.

    >>> summarize([1.0, 2.0, 3.0])
    Summary(mean=2.0, sd=1.0, worst=1.0, number=3)
    """
    mean = math.fsum(values) / len(values)
    sd = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)) if len(values) > 1 else 0.0
    return Summary(mean, sd, max(values) if lower_is_better else min(values), len(values))


def compare(
    ours: Mapping[int | None, float], theirs: Mapping[int | None, float], lower_is_better: bool = False
) -> Gain | None:
    """How much better ours are than theirs.

    Drawn rows are paired by seed. A row that is not drawn is one set: a paired test would take its one value for as
    many as the other row has sets, so the standard error is that of one more set, sd sqrt(1 + 1 / n).

    Args:
        ours: values of the sets by the seed that drew them; None is the seed of a set that is not drawn.
        theirs: likewise.
        lower_is_better: of the metric.

    Returns:
        None where a row has no value, or drawn rows have no seed in common.

    >>> compare({0: 2.0, 1: 3.0}, {0: 1.0, 1: 1.0}).mean
    1.5
    """
    sign = -1 if lower_is_better else 1
    if ours and theirs and (None in ours or None in theirs):
        first, second = summarize(list(ours.values())), summarize(list(theirs.values()))
        number, sd = max(first.number, second.number), max(first.sd, second.sd)
        return Gain(sign * (first.mean - second.mean), sd * math.sqrt(1 + 1 / number), sd, number, False)
    common = [key for key in ours if key in theirs]
    if not common:
        return None
    gains = summarize([sign * (ours[key] - theirs[key]) for key in common])
    spread = max(summarize([row[key] for key in common]).sd for row in (ours, theirs))
    return Gain(gains.mean, gains.sd / math.sqrt(gains.number), spread, gains.number, True)


def judge(gains: Mapping[Key, Sequence[Gain]], real: Collection[Key]) -> dict[Key, Verdict]:
    """Claims of a table's rows against the real rows; if all rows are equal, any is made with a chance of 5 % at most.

    Better, of a row that is not real: than every real row, each by its own t-test (an intersection-union test, whose
    p-value is the largest one). Worse, of any: than one real row, the smallest p-value times their number. Either is
    corrected over the rows by Holm's method: seven rows beside one real row share its bad luck. Nothing is claimed of a
    row that is not drawn, and none makes another worse; but what is better has to leave it outside its sets.

    Source: Berger (1982), intersection-union tests; Holm (1979).

    Args:
        gains: of every row over each real row but itself; not empty.
        real: rows of real patches.
    """
    paired = {row: [gain for gain in own if gain.is_paired] for row, own in gains.items()}
    tested = [row for row in gains if paired[row]]
    better = _holm({row: max(gain.p_value(1) for gain in gains[row]) for row in tested if row not in real})
    worse = _holm({row: len(paired[row]) * min(gain.p_value(-1) for gain in paired[row]) for row in tested})
    return {
        row: Verdict(
            min(own, key=lambda gain: gain.mean),
            _bounds(own),
            min(gain.number for gain in own),
            'better' if row in better else 'worse' if row in worse else '',
        )
        for row, own in gains.items()
    }


def _bounds(gains: Sequence[Gain]) -> tuple[float, float] | None:
    """Ends of the interval of the least of several true gains: the lower one is safe whichever is the least, the upper
    one by Bonferroni."""
    intervals = [(gain.bounds(), gain.bounds(LEVEL / 2 / len(gains))) for gain in gains]
    known = [(own[0], corrected[1]) for own, corrected in intervals if own and corrected]
    return (min(low for low, _ in known), min(high for _, high in known)) if len(known) == len(gains) else None


def _holm(p_values: Mapping[Key, float]) -> set[Key]:
    """Hypotheses that are rejected at half the level, together."""
    rejected = set()
    for number, key in enumerate(sorted(p_values, key=lambda key: p_values[key])):
        if p_values[key] > LEVEL / 2 / (len(p_values) - number):
            break
        rejected.add(key)
    return rejected
