"""What the cells of a benchmark measured: ``results.csv``, and the values by row, count and seed."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from basicsr_distill.benchmark.cells import Cell, is_measured, metric_section
from basicsr_distill.benchmark.costs import read_cost
from basicsr_distill.benchmark.sets import PlannedSet, fingerprint_contents, images_of
from basicsr_distill.config.benchmark_file import BenchmarkFile
from basicsr_distill.config.sections.datasets import DistilledPatchDatasetOptions
from basicsr_distill.data._pairs import crop_side, find_pairs
from basicsr_distill.errors import InputError
from basicsr_distill.io.headers import ImageHeader, read_headers
from basicsr_distill.io.images import file_bytes, read_rgb
from basicsr_distill.io.manifest import read_json, write_csv, write_json
from basicsr_distill.ops.bicubic import bicubic_upsample, make_lr
from basicsr_distill.stages.record import StagePlan, read_stage
from basicsr_distill.stages.select.choose import METHODS

RESULTS_NAME = 'results.csv'
BICUBIC_NAME = 'bicubic.json'
# The last three are times, which differ from run to run; the others do not.
COLUMNS = (
    'set',
    'count',
    'network',
    'set_seed',
    'train_seed',
    'test',
    'metric',
    'value',
    'total_iter',
    'images',
    'pixels',
    'crop_px',
    'set_bytes',
    'pool',
    'set_fingerprint',
    'weights_sha256',
    'version',
    'make_s',
    'train_s',
    'test_s',
)

# (set seed, training seed); the first is None where nothing is drawn.
Seeds = tuple[int | None, int]


@dataclass(frozen=True)
class SetFacts:
    """images, pixels, num_bytes: of the HR files in use.  make_s: of the set alone; None where it was there before, or
    nothing is made.  shared_s: of the recipe's stages that it needs, likewise.  pool: what it was taken from.  side_px:
    what the shorter sides of half of the images reach.  content: fingerprint of the images, whatever was asked for to
    get them."""

    images: int
    pixels: int
    num_bytes: int
    make_s: float | None
    shared_s: float | None
    pool: str
    side_px: int
    content: str


@dataclass(frozen=True)
class CellResult:
    """One cell.  values: by test and metric; None where a metric could not be computed.  version: of the package, when
    it was measured.  crop_px: side of the crops that were trained on.  train_s, test_s: seconds of the
    attempts that finished."""

    cell: Cell
    values: Mapping[str, Mapping[str, float | None]]
    facts: SetFacts
    set_fingerprint: str
    weights_sha256: str
    version: str
    crop_px: int
    train_s: float
    test_s: float

    @property
    def seeds(self) -> Seeds:
        return self.cell.set.seed, self.cell.train_seed


@dataclass(frozen=True)
class Row:
    """A row of the tables: a set of the benchmark file, and its own schedule where it is the full pool's second."""

    name: str
    own_schedule: bool
    is_real: bool
    is_full: bool

    def label(self, full_total_iter: int | None) -> str:
        """As it is printed."""
        return f'{self.name}, {full_total_iter} iterations' if self.own_schedule else self.name


@dataclass(frozen=True)
class Results:
    """Of a benchmark.  scale: factor between LR and HR.  bicubic: what interpolation alone reaches, by test and
    metric."""

    scale: int
    cells: Sequence[CellResult]
    bicubic: Mapping[str, Mapping[str, float]]

    def rows(self) -> list[Row]:
        """Every row, in the order of the file; second schedules after it."""
        rows = dict.fromkeys(row_of(result.cell) for result in self.cells)
        return sorted(rows, key=lambda row: row.own_schedule)

    def values(
        self, row: Row, count: int | None, network: str, metric: str, tests: Iterable[str]
    ) -> dict[Seeds, float]:
        """Return means over tests, by seeds; seeds of which a value is missing are left out.

        Args:
            row: of the table.
            count: images of the set, None for the full pool.
            network: name of the trained network.
            metric: name of the metric.
            tests: names of the test sets.
        """
        found = {}
        for result in self.cells:
            if row_of(result.cell) == row and result.cell.set.count == count and result.cell.network == network:
                values = [result.values.get(test, {}).get(metric) for test in tests]
                known = [value for value in values if value is not None]
                if known and len(known) == len(values):
                    found[result.seeds] = sum(known) / len(known)
        return found

    def by_set(
        self, row: Row, count: int | None, network: str, metric: str, tests: Iterable[str]
    ) -> dict[int | None, float]:
        """Means over the trainings of each set, by its seed; None is that of a set that is not drawn.

        A way of choosing without chance makes one set of all seeds: it counts as one, which is not drawn.
        """
        contents = {
            result.cell.set.seed: result.facts.content
            for result in self.cells
            if row_of(result.cell) == row and result.cell.set.count == count
        }
        trainings: dict[str, list[float]] = {}
        seeds: dict[str, int | None] = {}
        measured = self.values(row, count, network, metric, tests)
        for (seed, _), value in measured.items():
            trainings.setdefault(contents[seed], []).append(value)
            seeds.setdefault(contents[seed], seed)
        if len(trainings) == 1 and len({seed for seed, _ in measured}) > 1:
            seeds = dict.fromkeys(seeds)
        return {seeds[content]: sum(values) / len(values) for content, values in trainings.items()}


def collect(
    file: BenchmarkFile,
    root: Path,
    parts: Sequence[tuple[Cell, StagePlan, StagePlan]],
    scale: int,
    tests: Mapping[str, str],
) -> Results:
    """Gather the results of the cells that were measured as this run planned them.

    Args:
        file: the benchmark file.
        root: of the benchmark.
        parts: cells with the plans of their training and test.
        scale: factor between LR and HR.
        tests: fingerprints of the tests, by name.
    """
    facts: dict[str, SetFacts] = {}
    found = []
    for cell, training, test in parts:
        if not is_measured(training, test):
            continue
        trained, tested = read_stage(training.folder), read_stage(test.folder)
        if cell.set.identity not in facts:
            facts[cell.set.identity] = set_facts(cell.set, scale)
        found.append(
            CellResult(
                cell,
                tested['values'],
                facts[cell.set.identity],
                trained['inputs']['set'],
                trained['weights_sha256'],
                tested['versions'].get('basicsr-distill', ''),
                min(trained['options']['datasets']['train']['gt_size'], facts[cell.set.identity].side_px),
                trained['seconds'],
                tested['seconds'],
            )
        )
    return Results(scale, found, _bicubic(file, root, scale, tests))


def set_facts(planned: PlannedSet, scale: int) -> SetFacts:
    """Size, cost and origin of a set."""
    paths = images_of(planned, scale)
    sizes = [header for header in read_headers([str(path) for path in paths]) if isinstance(header, ImageHeader)]
    sides = [min(header.width, header.height) // scale * scale for header in sizes]
    shared = planned.shared
    return SetFacts(
        len(paths),
        sum(header.width * header.height for header in sizes),
        sum(map(file_bytes, paths)),
        read_cost(planned.home, planned.recipe, planned.stages) if planned.home and planned.stages else None,
        read_cost(shared.home, shared.recipe, planned.stages_before) if shared else None,
        pool_of(planned),
        crop_side(max(sides), sides),
        fingerprint_contents(paths),
    )


def pool_of(planned: PlannedSet) -> str:
    """What a set was taken from: a folder, or the patches of a recipe and the band of them that a choice allows."""
    if planned.shared is None or planned.shared.recipe.extract is None:
        return str(planned.folder)
    extract = planned.shared.recipe.extract
    counts = read_stage(Path(extract.save_dir)).get('counts', {})
    threshold = (
        f'under {extract.threshold} dB'
        if isinstance(extract.threshold, float)
        else ('all' if extract.threshold == 'q100' else f'under the {extract.threshold}')
    )
    text = f'{extract.save_dir}: {counts.get("patches_kept")} of {counts.get("patches_scored")} windows ({threshold})'
    select = planned.recipe.select if planned.stages == ('select',) else None
    if select is None or not METHODS[select.method].uses_band:
        return text
    return f'{text}, band {"all" if select.band is None else "{:g}-{:g}".format(*select.band)}'


def write_results(root: Path, results: Results) -> None:
    """``results.csv``: a row a cell, test and metric."""
    write_csv(root / RESULTS_NAME, COLUMNS, (line for result in results.cells for line in _lines(result)))


def _lines(result: CellResult) -> Iterable[Sequence[str | int]]:
    cell, facts = result.cell, result.facts
    count = facts.images if cell.set.count is None else cell.set.count
    seed = '' if cell.set.seed is None else cell.set.seed
    times = ['' if value is None else f'{value:.1f}' for value in (facts.make_s, result.train_s, result.test_s)]
    for test, values in result.values.items():
        for metric, value in values.items():
            yield (
                cell.set.row,
                count,
                cell.network,
                seed,
                cell.train_seed,
                test,
                metric,
                '' if value is None else f'{value:.6f}',
                cell.total_iter,
                facts.images,
                facts.pixels,
                result.crop_px,
                facts.num_bytes,
                facts.pool,
                result.set_fingerprint,
                result.weights_sha256,
                result.version,
                *times,
            )


def row_of(cell: Cell) -> Row:
    """The row of the tables that a cell belongs to."""
    return Row(cell.set.row, cell.own_schedule, cell.set.is_real, cell.set.is_full)


def _bicubic(file: BenchmarkFile, root: Path, scale: int, tests: Mapping[str, str]) -> dict[str, dict[str, float]]:
    """What interpolation alone reaches on every test, kept for the next run."""
    plan = {'scale': scale, 'metrics': file.options.metrics, 'tests': dict(tests)}
    known = read_json(root / BICUBIC_NAME)
    if known.get('plan') == json.loads(json.dumps(plan)):
        return dict(known['values'])
    values = {
        name: _bicubic_on(name, folder, scale, file.options.metrics) for name, folder in file.options.tests.items()
    }
    if all(len(measured) == len(file.options.metrics) for measured in values.values()):
        write_json(root / BICUBIC_NAME, {'plan': plan, 'values': values})
    return values


def _bicubic_on(name: str, folder: str, scale: int, metrics: Sequence[str]) -> dict[str, float]:
    from basicsr.metrics import calculate_metric

    sums = dict.fromkeys(metrics, 0.0)
    pairs = find_pairs(DistilledPatchDatasetOptions(name=name, dataroot_gt=folder), scale)  # what cells are tested on
    for found in pairs:
        hr = read_rgb(found.hr)
        hr = hr[: hr.shape[0] // scale * scale, : hr.shape[1] // scale * scale]
        pair = {'img': upsampled(hr, scale)[..., ::-1], 'img2': hr[..., ::-1]}
        for metric in metrics:
            try:
                sums[metric] += float(calculate_metric(pair, metric_section(metric, scale)))
            except InputError:  # weights of a metric that are not at hand: the row is left empty
                sums[metric] = float('nan')
    return {metric: total / len(pairs) for metric, total in sums.items() if total == total}


def upsampled(hr: Any, scale: int) -> Any:
    """What bicubic interpolation makes of an image's LR version; (H, W, 3), uint8, RGB in and out."""
    lr = torch.from_numpy(make_lr(hr, scale)).permute(2, 0, 1).float()
    return bicubic_upsample(lr, scale).round().clamp(0, 255).byte().permute(1, 2, 0).numpy()
