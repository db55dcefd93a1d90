"""Comparisons that the tables show, by the first metric and the mean of the tests."""

from collections.abc import Mapping
from typing import TypeAlias

from basicsr_distill.benchmark.results import Results, Row, row_of
from basicsr_distill.benchmark.sets import PlannedSet
from basicsr_distill.benchmark.statistics import Gain, Verdict, compare, judge, summarize
from basicsr_distill.config.sections.benchmark import LOWER_IS_BETTER, BenchmarkOptions

# A value for each set of a row, by the seed that drew it; None is the seed of a set that is not drawn.
Values: TypeAlias = Mapping[Row, Mapping[int | None, float]]


def all_rows(options: BenchmarkOptions, results: Results) -> list[Row]:
    """Every row of the file, in its order, those without a result too; second schedules after them."""
    found = results.rows()
    known = {(row.name, row.own_schedule) for row in found}
    schedules = (False, True) if options.budget.full_total_iter else (False,)
    missing = [
        Row(name, own_schedule, False, row.full)
        for name, row in options.sets.items()
        for own_schedule in (schedules if row.full else (False,))
        if (name, own_schedule) not in known
    ]
    order = list(options.sets)
    return sorted([*found, *missing], key=lambda row: (row.own_schedule, order.index(row.name)))


def headline_values(options: BenchmarkOptions, results: Results, network: str, count: int) -> Values:
    """Values of the rows that have any at this count, and of the full pool."""
    values = {
        row: results.by_set(row, None if row.is_full else count, network, options.metrics[0], options.tests)
        for row in results.rows()
    }
    return {row: own for row, own in values.items() if own}


def best_row(options: BenchmarkOptions, values: Values) -> Row | None:
    """The row with the best mean; None where there is no row."""
    means = {row: summarize(list(own.values())).mean for row, own in values.items()}
    best = min if options.metrics[0] in LOWER_IS_BETTER else max
    return best(means, key=lambda row: means[row]) if means else None


def best_real(options: BenchmarkOptions, values: Values) -> Row | None:
    """The row of real patches with the best mean."""
    return best_row(options, {row: own for row, own in values.items() if row.is_real and not row.is_full})


def against_real(options: BenchmarkOptions, values: Values) -> dict[Row, Verdict]:
    """Verdicts on the rows of a count; without those that cannot be compared with every other real row."""
    gains = {}
    for row, own in values.items():
        found = [
            compare(own, theirs, options.metrics[0] in LOWER_IS_BETTER)
            for other, theirs in values.items()
            if other.is_real and not other.is_full and other != row
        ]
        known = [gain for gain in found if gain is not None]
        if known and len(known) == len(found) and not row.is_full:
            gains[row] = known
    return judge(gains, [row for row in gains if row.is_real])


def against_full(options: BenchmarkOptions, values: Values, row: Row) -> dict[Row, Gain | None]:
    """Differences to the full pool, at each of its schedules."""
    return {
        full: compare(values[row], own, options.metrics[0] in LOWER_IS_BETTER)
        for full, own in values.items()
        if full.is_full
    }


def improvement_over_random(options: BenchmarkOptions, results: Results, values: Values, row: Row) -> float | None:
    """IOR = (P - P_random) / (P_full - P_bicubic), the full pool at equal steps; the metric's direction cancels.

    Source: DD-Ranking (2025), arXiv 2505.13300, with interpolation in place of chance.

    Returns:
        None where there is no random or no full row, or the full pool is no better than interpolation.
    """
    metric = options.metrics[0]
    sets = {row_of(result.cell): result.cell.set for result in results.cells}
    random = _of_the_pool(sets, row, [other for other in values if _is_random(sets[other])])
    full = _of_the_pool(sets, row, [other for other in values if other.is_full and not other.own_schedule])
    bicubic = [results.bicubic.get(test, {}).get(metric) for test in options.tests]
    known = [value for value in bicubic if value is not None]
    if random is None or full is None or len(known) < len(bicubic):
        return None
    ours, theirs, pool = (summarize(list(values[key].values())).mean for key in (row, random, full))
    scale = pool - sum(known) / len(known)
    return None if (-scale if metric in LOWER_IS_BETTER else scale) <= 0 else (ours - theirs) / scale


def _is_random(planned: PlannedSet) -> bool:
    return planned.is_real and (planned.options.get('select') or {}).get('method') == 'random'


def _of_the_pool(sets: Mapping[Row, PlannedSet], row: Row, candidates: list[Row]) -> Row | None:
    """Of several rows the one whose recipe is that of ``row``, else the first."""
    same = [other for other in candidates if sets[other].shared == sets[row].shared]
    return next(iter([*same, *candidates]), None)
