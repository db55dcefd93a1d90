"""What the cells of a benchmark measured: ``results.csv``, and the values by row, count and seed."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from basicsr_distill import __version__
from basicsr_distill.benchmark.cells import CELLS_FOLDER, Cell, metric_section
from basicsr_distill.benchmark.records import DONE_NAME, is_finished
from basicsr_distill.benchmark.sets import PlannedSet, hr_folder
from basicsr_distill.config.benchmark_file import BenchmarkFile
from basicsr_distill.errors import InputError
from basicsr_distill.io.headers import ImageHeader, read_headers
from basicsr_distill.io.images import file_bytes, find_images, read_rgb
from basicsr_distill.io.manifest import read_json, write_csv, write_json
from basicsr_distill.ops.bicubic import bicubic_upsample, make_lr

RESULTS_NAME = 'results.csv'
BICUBIC_NAME = 'bicubic.json'
# The last three are times, which differ from run to run; the others do not.
COLUMNS = ('set', 'count', 'network', 'set_seed', 'train_seed', 'test', 'metric', 'value', 'total_iter', 'images',
           'pixels', 'set_bytes', 'set_fingerprint', 'weights_sha256', 'version', 'make_s', 'train_s', 'test_s')

# (set seed, training seed); the first is None where nothing is drawn.
Seeds = tuple[int | None, int]


@dataclass(frozen=True)
class SetFacts:
    """images, pixels, num_bytes: of the HR files in use.  make_s: of the set alone; None where it was there before, or
    nothing is made.  shared_s: of the recipe's stages before it, likewise."""

    images: int
    pixels: int
    num_bytes: int
    make_s: float | None
    shared_s: float | None


@dataclass(frozen=True)
class CellResult:
    """One cell.  values: by test and metric; None where a metric could not be computed."""

    cell: Cell
    values: Mapping[str, Mapping[str, float | None]]
    facts: SetFacts
    set_fingerprint: str
    weights_sha256: str
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

    def values(self, row: Row, count: int | None, network: str, metric: str,
               tests: Iterable[str]) -> dict[Seeds, float]:
        """Means over tests, by seeds; seeds of which a value is missing are left out.

        Args:
            count: None for the full pool.
        """
        found = {}
        for result in self.cells:
            if row_of(result.cell) == row and result.cell.set.count == count and result.cell.network == network:
                values = [result.values.get(test, {}).get(metric) for test in tests]
                known = [value for value in values if value is not None]
                if known and len(known) == len(values):
                    found[result.seeds] = sum(known) / len(known)
        return found

    def by_set(self, row: Row, count: int | None, network: str, metric: str,
               tests: Iterable[str]) -> dict[int | None, float]:
        """Means over the trainings of each set, by its seed; None is that of a set that is not drawn."""
        trainings: dict[int | None, list[float]] = {}
        for (set_seed, _), value in self.values(row, count, network, metric, tests).items():
            trainings.setdefault(set_seed, []).append(value)
        return {seed: sum(values) / len(values) for seed, values in trainings.items()}


def collect(file: BenchmarkFile, root: Path, cells: Sequence[Cell], scale: int,
            tests: Mapping[str, str]) -> Results:
    """The results of the cells that are finished; ``tests`` are fingerprints of the tests, by name."""
    facts: dict[str, SetFacts] = {}
    found = []
    for cell in cells:
        folder = root / CELLS_FOLDER / cell.identity
        if not is_finished(folder):
            continue
        done = read_json(folder / DONE_NAME)
        if cell.set.identity not in facts:
            facts[cell.set.identity] = set_facts(cell.set)
        found.append(CellResult(cell, done['values'], facts[cell.set.identity], done['plan']['inputs']['set'],
                                done['weights_sha256'], done['train_s'], done['test_s']))
    return Results(scale, found, _bicubic(file, root, scale, tests))


def set_facts(planned: PlannedSet) -> SetFacts:
    """Size and cost of a set."""
    paths = [image.path for image in find_images([hr_folder(planned)])]
    if planned.count is not None:
        paths = paths[:planned.count]
    sizes = [header for header in read_headers([str(path) for path in paths]) if isinstance(header, ImageHeader)]
    own = None if planned.home is None else read_json(planned.home / DONE_NAME).get('make_s')
    shared = None if planned.shared is None else read_json(planned.shared.home / DONE_NAME).get('make_s')
    return SetFacts(len(paths), sum(header.width * header.height for header in sizes), sum(map(file_bytes, paths)), own,
                    shared)


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
            yield (cell.set.row, count, cell.network, seed, cell.train_seed, test, metric,
                   '' if value is None else f'{value:.6f}', cell.total_iter, facts.images, facts.pixels,
                   facts.num_bytes, result.set_fingerprint, result.weights_sha256, __version__, *times)


def row_of(cell: Cell) -> Row:
    """The row of the tables that a cell belongs to."""
    return Row(cell.set.row, cell.own_schedule, cell.set.is_real, cell.set.is_full)


def _bicubic(file: BenchmarkFile, root: Path, scale: int, tests: Mapping[str, str]) -> dict[str, dict[str, float]]:
    """What interpolation alone reaches on every test, kept for the next run."""
    plan = {'scale': scale, 'metrics': file.options.metrics, 'tests': dict(tests)}
    known = read_json(root / BICUBIC_NAME)
    if known.get('plan') == json.loads(json.dumps(plan)):
        return dict(known['values'])
    values = {name: _bicubic_on(Path(folder), scale, file.options.metrics)
              for name, folder in file.options.tests.items()}
    write_json(root / BICUBIC_NAME, {'plan': plan, 'values': values})
    return values


def _bicubic_on(folder: Path, scale: int, metrics: Sequence[str]) -> dict[str, float]:
    from basicsr.metrics import calculate_metric

    sums = dict.fromkeys(metrics, 0.0)
    images = find_images([folder])
    for image in images:
        hr = read_rgb(image.path)
        hr = hr[:hr.shape[0] // scale * scale, :hr.shape[1] // scale * scale]
        pair = {'img': upsampled(hr, scale)[..., ::-1], 'img2': hr[..., ::-1]}
        for metric in metrics:
            try:
                sums[metric] += float(calculate_metric(pair, metric_section(metric, scale)))
            except InputError:  # weights of a metric that are not at hand: the row is left empty
                sums[metric] = float('nan')
    return {metric: total / len(images) for metric, total in sums.items() if total == total}


def upsampled(hr: Any, scale: int) -> Any:
    """What bicubic interpolation makes of an image's LR version; (H, W, 3), uint8, RGB in and out."""
    lr = torch.from_numpy(make_lr(hr, scale)).permute(2, 0, 1).float()
    return bicubic_upsample(lr, scale).round().clamp(0, 255).byte().permute(1, 2, 0).numpy()
