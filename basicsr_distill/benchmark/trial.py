"""``--dry-run``: what a benchmark would do, how long that takes and how much disk, by a trial of each network."""

import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import numpy as np

from basicsr_distill.benchmark.cells import TEST, TRAIN, Cell, begin_part, plan_part, test_options, train_options
from basicsr_distill.benchmark.jobs import Job, LocalLauncher, last_line
from basicsr_distill.benchmark.sets import PlannedSet, images_of
from basicsr_distill.config.benchmark_file import BenchmarkFile
from basicsr_distill.config.recipe import Recipe
from basicsr_distill.config.sections.benchmark import JobOptions
from basicsr_distill.data._pairs import crop_side
from basicsr_distill.io.headers import ImageHeader, read_headers
from basicsr_distill.io.images import file_bytes, write_png
from basicsr_distill.runtime.device import resolve_num_gpu
from basicsr_distill.stages.record import read_stage

TRIAL_ITERATIONS = 20
_WARM_UP_ITERATIONS = 2


@dataclass(frozen=True)
class Cost:
    """Of a network on this machine.  start_s: of a training and a test, without their work.  iteration_s: of training.
    test_s: of all tests.  cell_bytes: that a cell leaves."""

    start_s: float
    iteration_s: float
    test_s: float
    cell_bytes: int

    def seconds(self, total_iter: int) -> float:
        """Of a whole cell."""
        return self.start_s + self.iteration_s * total_iter + self.test_s


def print_plan(file: BenchmarkFile, cells: Sequence[Cell], networks: Mapping[str, Recipe]) -> None:
    """Print every cell and, by network, what it costs; nothing is left behind."""
    side_px = _side_px([cell.set for cell in cells], next(iter(networks.values())).scale)
    costs = {name: measure_cost(file, name, recipe, side_px) for name, recipe in networks.items()}
    seconds, num_bytes, unknown = 0.0, 0, 0
    for cell in cells:
        cost = costs[cell.network]
        if isinstance(cost, Cost):
            seconds += cost.seconds(cell.total_iter)
            num_bytes += cost.cell_bytes
            print(
                f'{cell.identity}: {cell.total_iter} iterations, '
                f'{timedelta(seconds=round(cost.seconds(cell.total_iter)))}'
            )
        else:
            unknown += 1
            print(f'{cell.identity}: {cell.total_iter} iterations')
    for name, cost in costs.items():
        print(
            f'{name}: {cost.iteration_s:.3f} s an iteration, {cost.test_s:.0f} s of tests, '
            f'{cost.cell_bytes / 1e6:.1f} MB a cell'
            if isinstance(cost, Cost)
            else f'{name}: not measured: {cost}'
        )
    sets = Counter(cell.set.row for cell in {cell.set.identity: cell for cell in cells}.values())
    listed = ', '.join(f'{row} {number}' for row, number in sets.items())
    print(
        f'{len(cells)} cells on {sum(sets.values())} sets ({listed}); one after the other on this machine '
        f'{timedelta(seconds=round(seconds))} and {num_bytes / 1e9:.2f} GB'
        + (f', without {unknown} cells that were not measured' if unknown else '')
        + '; the making of the sets is not in it.'
    )


def _side_px(sets: Sequence[PlannedSet], scale: int) -> int:
    """Side of the images that most trainings will see, which bounds their crop: of the first set's."""
    for planned in sets:
        if planned.shared and planned.shared.recipe.extract:
            return planned.shared.recipe.extract.patch_size
    headers = read_headers([str(path) for path in images_of(sets[0], scale)])
    sides = [min(header.width, header.height) // scale * scale for header in headers if isinstance(header, ImageHeader)]
    return crop_side(max(sides), sides)


def measure_cost(file: BenchmarkFile, name: str, network: Recipe, side_px: int) -> Cost | str:
    """Train a network for 20 iterations and test it; what failed, where it does.

    Args:
        file: the benchmark file, with the tests.
        name: of the network.
        network: its option file.
        side_px: of the images that are trained on; what they show has no say in the time.
    """
    home = Path(tempfile.mkdtemp(prefix='.trial_', dir='.'))
    noise = np.random.default_rng(0).integers(256, size=(side_px, side_px, 3), dtype=np.uint8)
    (home / 'images').mkdir()
    write_png(home / 'images' / 'noise.png', noise)
    planned = PlannedSet('trial', 'trial', None, None, False, False, home / 'images')
    cell = Cell(planned, name, 0, TRIAL_ITERATIONS, False, True)
    launcher = LocalLauncher(JobOptions(processes=1), resolve_num_gpu('auto'))
    try:
        times = []
        for total_iter in (_WARM_UP_ITERATIONS, TRIAL_ITERATIONS):
            job = Job('trial', home / str(total_iter))
            for part, options in (
                (TRAIN, train_options(replace(cell, total_iter=total_iter), network, 1)),
                (TEST, test_options(cell, network, file.options, job.home)),
            ):
                begin_part(plan_part(job.home, part, options, {}))
            started = time.perf_counter()
            if launcher(job):
                return last_line(job.log)
            times.append(
                (time.perf_counter() - started, *(read_stage(job.home / part)['seconds'] for part in (TRAIN, TEST)))
            )
        (_, few_s, _), (whole_s, many_s, test_s) = times
        iteration_s = max(0.0, many_s - few_s) / (TRIAL_ITERATIONS - _WARM_UP_ITERATIONS)
        num_bytes = sum(file_bytes(path) for path in job.home.rglob('*') if path.is_file() and not path.is_symlink())
        return Cost(whole_s - test_s - iteration_s * TRIAL_ITERATIONS, iteration_s, test_s, num_bytes)
    finally:
        launcher.close()
        shutil.rmtree(home, ignore_errors=True)
