"""Means, spreads, intervals and claims against scipy, a loop, and benchmarks simulated with and without differences."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from scipy import stats
from simulated import (
    SPREAD_OF_SETS,
    SimulatedRow,
    benchmark_options,
    drawn_values,
    path_values,
    simulated_results,
)

from basicsr_distill.benchmark.comparisons import against_real, headline_values
from basicsr_distill.benchmark.statistics import Gain, compare, judge, summarize
from basicsr_distill.benchmark.tables import headline_tables

NULLS = 1000
# Of 1,000 intervals at 95 %, 93 to 97 % hold the truth; of 1,000 tables of equal rows, 5 % claim anything, and 1.5 for
# chance.
COVERED, FALSE_CLAIMS = (0.93, 0.97), 0.065
MEAN = 27.0


def from_seed_0(values: Sequence[float]) -> dict[int | None, float]:
    return dict(enumerate(values))


def test_the_interval_and_the_tests_are_those_of_scipy() -> None:
    rng = np.random.default_rng(3)
    ours, theirs = rng.normal(0.2, 0.05, 7), rng.normal(0.0, 0.05, 7)
    gain = compare(from_seed_0(ours), from_seed_0(theirs))
    assert gain is not None and gain.number == 7 and gain.is_paired
    interval = stats.ttest_rel(ours, theirs).confidence_interval(0.95)
    assert gain.bounds() == pytest.approx((interval.low, interval.high))
    assert gain.p_value(1) == pytest.approx(stats.ttest_rel(ours, theirs, alternative='greater').pvalue) != 1
    assert gain.p_value(-1) == 1  # a loss is not even suggested
    lost = compare(from_seed_0(theirs), from_seed_0(ours))
    assert lost is not None and lost.p_value(-1) == pytest.approx(gain.p_value(1)) and lost.mean == -gain.mean


def test_differences_are_paired() -> None:
    """Seeds that move both rows alike do not hide a gain; unpaired, its spread would be that of the seeds."""
    theirs = {0: 27.0, 1: 27.5, 2: 26.5}
    gain = compare({seed: value + 0.6 + 0.01 * seed for seed, value in theirs.items()}, theirs)
    assert gain is not None and gain.bounds() is not None
    low, high = gain.bounds() or (0, 0)
    assert gain.mean == pytest.approx(0.61) and high - low < 0.06 and gain.number == 3
    assert gain.spread == pytest.approx(np.std([27.0, 27.5, 26.5], ddof=1))  # the larger of the two rows'
    assert not gain.is_inside_spread


@pytest.mark.parametrize(
    ('ours', 'inside'),
    [
        ({0: 1.5, 1: 0.9, 2: 1.0}, True),  # the interval holds 0
        ({0: 1.06, 1: 0.97, 2: 1.17}, True),  # always better, by less than the sets spread
        ({0: 3.0, 1: 3.1, 2: 2.9}, False),
        ({0: 3.0, 1: 3.1}, True),  # two sets have no interval
        ({0: 3.0}, True),
    ],
)
def test_what_is_inside_the_spread(ours: dict[int | None, float], inside: bool) -> None:
    gain = compare(ours, {0: 1.0, 1: 0.9, 2: 1.1})
    assert gain is not None and gain.is_inside_spread is inside
    assert (gain.bounds() is None) is (len(ours) < 3) and gain.p_value(1) == 1  # three sets claim nothing


def test_a_set_that_is_not_drawn_is_placed_and_not_copied() -> None:
    """One more set of five of mean m and deviation s lies within m +- t s sqrt(1 + 1/5)."""
    drawn = [27.0, 27.1, 26.9, 27.2, 27.05]
    half = stats.t.ppf(0.975, 4) * np.std(drawn, ddof=1) * np.sqrt(1.2)
    gain = compare({None: 27.3}, from_seed_0(drawn))
    assert gain is not None and not gain.is_paired and gain.number == 5
    assert gain.bounds() == pytest.approx((27.3 - np.mean(drawn) - half, 27.3 - np.mean(drawn) + half))
    mirrored = compare(from_seed_0(drawn), {None: 27.3})
    assert mirrored is not None and mirrored.mean == pytest.approx(-gain.mean) and mirrored.error == gain.error
    alone = compare({None: 27.3}, {None: 27.1})
    assert alone is not None and alone.bounds() is None and alone.number == 1


def test_smaller_is_better_where_it_is() -> None:
    gain = compare({0: 0.2, 1: 0.3}, {0: 0.4, 1: 0.4}, lower_is_better=True)
    assert gain is not None and gain.mean == pytest.approx(0.15)
    placed = compare({None: 0.2}, {0: 0.4, 1: 0.4}, lower_is_better=True)
    assert placed is not None and placed.mean == pytest.approx(0.2)
    assert summarize([0.2, 0.3], lower_is_better=True).worst == 0.3 and summarize([0.2, 0.3]).worst == 0.2


def test_without_a_common_seed_there_is_nothing_to_compare() -> None:
    assert compare({0: 1.0}, {1: 1.0}) is None and compare({}, {None: 1.0}) is None


def of_p(p_value: float, sign: int = 1) -> Gain:
    """A gain over five sets with this one-sided p-value, beyond its spread."""
    return Gain(float(sign * stats.t.isf(p_value, 4)), 1.0, 0.1, 5, True)


def test_better_is_better_than_every_real_row() -> None:
    gains = {'drawn': [of_p(0.001), of_p(0.024)], 'other': [of_p(0.001), of_p(0.026)]}
    assert [verdict.claim for verdict in judge({'drawn': gains['drawn']}, []).values()] == ['better']
    assert [verdict.claim for verdict in judge({'other': gains['other']}, []).values()] == ['']
    # Together they share the level: the smaller p-value has to be at most a half of 2.5 %.
    assert [verdict.claim for verdict in judge(gains, []).values()] == ['', '']
    assert judge({'drawn': gains['drawn']}, ['drawn'])['drawn'].claim == ''  # a real row is not the best one's rival


def test_worse_is_worse_than_one_real_row_after_holm() -> None:
    p_values = {'a': 0.001, 'b': 0.006, 'c': 0.0125, 'd': 0.2}
    expected, level = set(), 0.025
    for rank, (row, p_value) in enumerate(sorted(p_values.items(), key=lambda item: item[1])):
        if 2 * p_value > level / (len(p_values) - rank):  # two real rows
            break
        expected.add(row)
    verdicts = judge({row: [of_p(p_value, -1), of_p(0.3)] for row, p_value in p_values.items()}, [])
    assert {row for row, verdict in verdicts.items() if verdict.claim == 'worse'} == expected == {'a'}


def test_nothing_is_claimed_of_a_single_set_and_by_it() -> None:
    placed = Gain(5.0, 1.0, 0.1, 5, False)
    lost = Gain(-5.0, 1.0, 0.1, 5, False)
    verdicts = judge({'path': [placed, placed], 'drawn': [of_p(0.001), lost]}, [])
    assert [verdict.claim for verdict in verdicts.values()] == ['', '']
    assert judge({'drawn': [of_p(0.001), placed]}, [])['drawn'].claim == 'better'


Draw = Callable[[np.random.Generator], list[SimulatedRow]]


def drawn_rows(real: int, drawn: int, sets: int, trainings: int = 1, gain: float = 0.0) -> Draw:
    """Rows of one distribution, but for the first that is not real."""

    def draw(rng: np.random.Generator) -> list[SimulatedRow]:
        return [
            SimulatedRow(
                f'row{number}',
                drawn_values(rng, MEAN + gain * (number == real), sets, trainings),
                is_real=number < real,
            )
            for number in range(real + drawn)
        ]

    return draw


def beside_a_path(is_real: bool) -> Draw:
    """Five drawn sets, and one that is not drawn, of the same distribution."""

    def draw(rng: np.random.Generator) -> list[SimulatedRow]:
        return [
            SimulatedRow('path', path_values(rng, MEAN, 5), is_real=is_real),
            SimulatedRow('drawn', drawn_values(rng, MEAN, 5), is_real=not is_real),
        ]

    return draw


def simulate(draw: Draw) -> tuple[float | None, float, float]:
    """Shares of the intervals against the real rows that hold 0, of the tables that claim anything, and of those that
    call a row better."""
    rng = np.random.default_rng(0)
    intervals = held = claiming = better = 0
    for _ in range(NULLS):
        rows = draw(rng)
        options = benchmark_options([row.name for row in rows])
        verdicts = against_real(options, headline_values(options, simulated_results(rows), 'edsr', 7))
        assert verdicts
        for verdict in verdicts.values():
            if verdict.bounds is not None:
                intervals += 1
                held += verdict.bounds[0] <= 0 <= verdict.bounds[1]
        claims = {verdict.claim for verdict in verdicts.values()}
        claiming += claims != {''}
        better += 'better' in claims
    return held / intervals if intervals else None, claiming / NULLS, better / NULLS


@pytest.mark.long
@pytest.mark.parametrize(
    'draw',
    [
        drawn_rows(1, 1, 3),
        drawn_rows(1, 1, 5),
        drawn_rows(1, 1, 10),
        drawn_rows(1, 1, 3, 3),
        drawn_rows(1, 1, 5, 3),
        beside_a_path(False),
        beside_a_path(True),
        drawn_rows(1, 7, 5),
    ],
    ids=['3', '5', '10', '3 of 3 trainings', '5 of 3 trainings', 'path', 'real path', '1 and 7'],
)
def test_intervals_hold_the_truth_and_equal_rows_stay_equal(draw: Draw) -> None:
    covered, claiming, _ = simulate(draw)
    assert covered is not None and COVERED[0] <= covered <= COVERED[1]
    assert claiming <= FALSE_CLAIMS


@pytest.mark.long
@pytest.mark.parametrize('real', [4, 8])
def test_eight_equal_rows_with_several_real_ones(real: int) -> None:
    """The interval holds the gain over whichever of them is the best, so it is wide rather than narrow."""
    covered, claiming, _ = simulate(drawn_rows(real, 8 - real, 5))
    assert covered is not None and covered >= COVERED[0] and claiming <= FALSE_CLAIMS


def test_one_set_has_no_interval_and_no_claim_however_often_it_is_trained_on() -> None:
    assert simulate(drawn_rows(1, 1, 1, 3)) == (None, 0, 0)


def test_three_sets_claim_nothing_whatever_the_difference() -> None:
    assert simulate(drawn_rows(1, 1, 3, gain=20 * SPREAD_OF_SETS))[1] == 0


@pytest.mark.long
@pytest.mark.parametrize(
    ('draw', 'found'),
    [(drawn_rows(1, 1, 5, gain=3 * SPREAD_OF_SETS), 0.8), (drawn_rows(1, 7, 10, gain=3 * SPREAD_OF_SETS), 0.95)],
    ids=['2 rows of 5', '1 and 7 of 10'],
)
def test_a_difference_of_three_spreads_is_found(draw: Draw, found: float) -> None:
    assert simulate(draw)[2] >= found


def test_a_choice_without_chance_is_one_set_whatever_its_seeds() -> None:
    """Herding chooses the same patches with every seed: five trainings of one set are no five sets."""
    rng = np.random.default_rng(0)
    herding = SimulatedRow('herding', drawn_values(rng, 27.2, sets=5), is_real=True, content='the same')
    drawn = SimulatedRow('drawn', drawn_values(rng, 27.0, sets=5))
    results = simulated_results([herding, drawn])
    options = benchmark_options(['herding', 'drawn'])
    row = next(row for row in results.rows() if row.name == 'herding')
    ((seed, value),) = results.by_set(row, 7, 'edsr', 'psnr_y', ['held']).items()
    assert seed is None and value == pytest.approx(np.mean(list(herding.values.values())))
    (table,) = headline_tables(options, results)
    assert [line[2] for line in table.rows] == ['1', '5'] and 'the sets' in table.rows[1][4]
