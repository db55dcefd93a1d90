"""Results of benchmarks that were never run: values of sets and trainings drawn from normal distributions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from basicsr_distill.benchmark.cells import Cell
from basicsr_distill.benchmark.results import CellResult, Results, SetFacts
from basicsr_distill.benchmark.sets import PlannedSet
from basicsr_distill.config.sections.benchmark import BenchmarkOptions

SPREAD_OF_SETS, SPREAD_OF_TRAININGS = 0.05, 0.01
# (set seed, training seed) -> value; the set seed is None where nothing is drawn.
CellValues = Mapping[tuple[int | None, int], float]


@dataclass(frozen=True)
class SimulatedRow:
    """A row of the file.  values: of its cells.  select: section that made its sets, empty where another stage did.
    content: of all its sets, where they are one."""

    name: str
    values: CellValues
    is_real: bool = False
    is_full: bool = False
    own_schedule: bool = False
    select: Mapping[str, object] = field(default_factory=dict)
    content: str = ''


def benchmark_options(
    names: Sequence[str], counts: Sequence[int] = (7,), full: Sequence[str] = (), metrics: Sequence[str] = ('psnr_y',)
) -> BenchmarkOptions:
    """Options of a benchmark with these rows, one network and one test."""
    return BenchmarkOptions.model_validate(
        {
            'recipe': 'pool.yml',
            'sets': {name: {'full': True} if name in full else {'select': {}} for name in names},
            'counts': list(counts),
            'networks': {'edsr': {'opt': 'edsr.yml'}},
            'budget': {'total_iter': 10, 'full_total_iter': 20},
            'tests': {'held': 'held'},
            'metrics': list(metrics),
        }
    )


def simulated_results(
    rows: Sequence[SimulatedRow], count: int = 7, metric: str = 'psnr_y', bicubic: float = 25.0
) -> Results:
    """The results of these rows at one count."""
    cells = []
    for row in rows:
        for (seed, train_seed), value in row.values.items():
            planned = PlannedSet(
                row=row.name,
                identity=f'{row.name}__{seed}',
                count=None if row.is_full else count,
                seed=seed,
                is_real=row.is_real,
                is_full=row.is_full,
                folder=Path(row.name),
                options={'select': row.select} if row.select else {},
            )
            facts = SetFacts(
                images=count,
                pixels=count * 64 * 64,
                num_bytes=1000,
                make_s=1.0,
                shared_s=2.0,
                pool='patches',
                side_px=64,
                content=row.content or planned.identity,
            )
            cell = Cell(
                set=planned,
                network='edsr',
                train_seed=train_seed,
                total_iter=10,
                own_schedule=row.own_schedule,
                saves_images=False,
            )
            cells.append(
                CellResult(
                    cell=cell,
                    values={'held': {metric: value}},
                    facts=facts,
                    set_fingerprint='',
                    weights_sha256='',
                    version='0',
                    crop_px=64,
                    train_s=1.0,
                    test_s=1.0,
                )
            )
    return Results(4, cells, {'held': {metric: bicubic}})


def drawn_values(
    rng: np.random.Generator, mean: float, sets: int, trainings: int = 1
) -> dict[tuple[int | None, int], float]:
    """Values of drawn sets, each trained on ``trainings`` times: alone with its own seed, else with those from 0."""
    of_sets = rng.normal(mean, SPREAD_OF_SETS, sets)
    return {
        (seed, training if trainings > 1 else seed): float(value + rng.normal(0, SPREAD_OF_TRAININGS))
        for seed, value in enumerate(of_sets)
        for training in range(trainings)
    }


def path_values(rng: np.random.Generator, mean: float, trainings: int) -> dict[tuple[int | None, int], float]:
    """Values of one set that is not drawn, trained on several times."""
    value = rng.normal(mean, SPREAD_OF_SETS)
    return {(None, seed): float(value + rng.normal(0, SPREAD_OF_TRAININGS)) for seed in range(trainings)}
