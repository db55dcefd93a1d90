"""A benchmark from its file to its report: recipes, sets, cells, results; each goes on where it was interrupted."""

import contextlib
import logging
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from basicsr_distill.benchmark.cells import (
    CELLS_FOLDER,
    TEST_NAME,
    TRAIN_NAME,
    Cell,
    load_networks,
    plan_cells,
    test_options,
    train_options,
    write_cell,
)
from basicsr_distill.benchmark.jobs import Job, Launcher, last_line, make_launcher, run_jobs
from basicsr_distill.benchmark.records import (
    DONE_NAME,
    JOB_LOCK,
    is_finished,
    what_changed,
    write_plan,
)
from basicsr_distill.benchmark.report.page import write_report
from basicsr_distill.benchmark.results import collect, write_results
from basicsr_distill.benchmark.sets import RECIPE_NAME, PlannedSet, SharedRecipe, hr_folder, plan_sets, stage_folder
from basicsr_distill.benchmark.tables import shown
from basicsr_distill.benchmark.trial import print_plan
from basicsr_distill.config.benchmark_file import BenchmarkFile
from basicsr_distill.config.recipe import Recipe
from basicsr_distill.errors import InputError
from basicsr_distill.io.images import find_images, fingerprint_images
from basicsr_distill.io.locks import lock_beside, locked, locked_folder
from basicsr_distill.io.manifest import read_json
from basicsr_distill.runtime.device import resolve_num_gpu
from basicsr_distill.stages.record import STAGE_NAME, fingerprint_stage
from basicsr_distill.training.keys import check_components

_LOGGER = logging.getLogger(__name__)


def benchmark(file: BenchmarkFile, dry_run: bool = False) -> int:
    """Run a benchmark, or print what it would do.

    Args:
        file: the benchmark file, checked.
        dry_run: print the cells, with the time and the disk they will take, and do nothing.

    Returns:
        0, or 1 where a set or a cell failed; the others are in the results.

    Raises:
        InputError: the file or what it names is wrong; nothing has been written then.
    """
    root = Path('experiments', file.name)
    sets = plan_sets(file, root)
    networks = load_networks(file)
    cells = plan_cells(file.options, sets)
    _check(file, networks, sets)
    if dry_run:
        print_plan(file, cells, networks)
        return 0
    tests = {name: fingerprint_images(find_images([Path(folder)])) for name, folder in file.options.tests.items()}
    with locked_folder(root):
        launcher = make_launcher(file.options.jobs, root / 'submitit', resolve_num_gpu('auto'))
        with contextlib.closing(launcher):
            made, failed = _make_sets(sets, launcher)
            failed += _run_cells(root, file, [cell for cell in cells if cell.set.identity in made], networks, tests,
                                 launcher)
        results = collect(file, root, cells, next(iter(networks.values())).scale, tests)
        write_results(root, results)
        write_report(file, root, results, failed)
    left = len(cells) - len(results.cells)
    _LOGGER.info('%s: %d of %d cells; %s', root / 'report.html', len(results.cells), len(cells), root / 'results.csv')
    for line in failed:
        _LOGGER.error('failed: %s', line)
    return 1 if left else 0


def _check(file: BenchmarkFile, networks: Mapping[str, Recipe], sets: Sequence[PlannedSet]) -> None:
    """Refuse what can be refused before any work.

    Raises:
        InputError: names the file and the key.
    """
    where = f'{file.path}: benchmark'
    for name, folder in file.options.tests.items():
        if not Path(folder).is_dir() or not find_images([Path(folder)]):
            raise InputError(f'{where}.tests.{name}: {folder} holds no images; correct the path.')
    scales = {f'networks.{name}': recipe.scale for name, recipe in networks.items()}
    scales |= {f'sets.{planned.row}': planned.shared.recipe.scale for planned in sets if planned.shared}
    if len(set(scales.values())) > 1:
        listed = ', '.join(f'{name} is for x{scale}' for name, scale in scales.items())
        raise InputError(f'{where}: {listed}; let them agree.')
    for planned in sets:
        if planned.shared is None and planned.count is not None:
            available = len(find_images([hr_folder(planned)]))
            if available < planned.count:
                raise InputError(f'{where}.sets.{planned.row}.path: {planned.folder} has {available} images, but '
                                 f'counts names {planned.count}; leave that count out.')
    for recipe in (*networks.values(), *{planned.shared.home: planned.shared.recipe for planned in sets
                                         if planned.shared}.values()):
        check_components(recipe)


def _make_sets(sets: Sequence[PlannedSet], launcher: Launcher) -> tuple[set[str], list[str]]:
    """Run the shared stages and make the sets; the identities of those that are there, and what failed."""
    shared = {planned.shared.home: planned.shared for planned in sets if planned.shared is not None}
    jobs = [_shared_job(recipe) for recipe in shared.values() if not _has_run(recipe)]
    failures = _run('recipe', jobs, launcher)
    usable = [planned for planned in sets if planned.shared is None or str(planned.shared.home) not in failures]
    set_jobs = {planned.identity: _set_job(planned) for planned in usable if planned.stages}
    failures |= _run('set', [job for job in set_jobs.values() if not is_finished(job.home)], launcher)
    made = {planned.identity for planned in usable
            if planned.identity not in set_jobs or is_finished(set_jobs[planned.identity].home)}
    return made, list(failures.values())


def _shared_plan(recipe: SharedRecipe) -> dict[str, Any]:
    return {'options': dict(recipe.recipe.options), 'stages': list(recipe.stages)}


def _has_run(recipe: SharedRecipe) -> bool:
    """Whether a recipe's stages stand; they themselves say so, for their folders are the recipe's own."""
    return (is_finished(recipe.home) and not what_changed(recipe.home, _shared_plan(recipe))
            and all((stage_folder(recipe.recipe, stage) / STAGE_NAME).is_file() for stage in recipe.stages))


def _shared_job(recipe: SharedRecipe) -> Job:
    plan = _shared_plan(recipe)
    _say_what_changed(recipe.home, plan)
    write_plan(recipe.home, plan, {RECIPE_NAME: recipe.recipe.options})
    return Job(str(recipe.home), recipe.home, recipe.stages)


def _set_job(planned: PlannedSet) -> Job:
    assert planned.home is not None and planned.shared is not None
    inputs = {stage: fingerprint_stage(stage_folder(planned.shared.recipe, stage)) for stage in planned.shared.stages
              if planned.stages != ('select',) or stage != 'finetune'}
    plan = {'options': dict(planned.options), 'inputs': inputs}
    _remove_other(planned.home, plan)
    write_plan(planned.home, plan, {RECIPE_NAME: planned.options})
    return Job(planned.identity, planned.home, planned.stages)


def _run_cells(root: Path, file: BenchmarkFile, cells: Sequence[Cell], networks: Mapping[str, Recipe],
               tests: Mapping[str, str], launcher: Launcher) -> list[str]:
    trained_on = {planned.identity: _fingerprint_and_size(planned)
                  for planned in {cell.set.identity: cell.set for cell in cells}.values()}
    first = file.options.metrics[0]
    jobs = []
    for cell in cells:
        folder = root / CELLS_FOLDER / cell.identity
        fingerprint, num_images = trained_on[cell.set.identity]
        options = {TRAIN_NAME: train_options(cell, networks[cell.network], num_images),
                   TEST_NAME: test_options(cell, networks[cell.network], file.options)}
        plan = {**options, 'inputs': {'set': fingerprint, **tests}}
        _remove_other(folder, plan)
        write_cell(folder, plan, options)
        if not is_finished(folder):
            jobs.append(Job(cell.identity, folder))
    if len(jobs) < len(cells):
        _LOGGER.info('cells: %d of %d were done before.', len(cells) - len(jobs), len(cells))

    def ended(job: Job) -> str:
        done = read_json(job.home / DONE_NAME)
        values = ', '.join(f'{test} {shown(metrics[first], first)}' for test, metrics in done['values'].items()
                           if metrics.get(first) is not None)
        return f'{first} {values} ({done["train_s"] + done["test_s"]:.0f} s)'

    return list(_run('cell', jobs, launcher, ended).values())


def _run(kind: str, jobs: Sequence[Job], launcher: Launcher, ended: Any = lambda job: 'made') -> dict[str, str]:
    """Run jobs; what failed, by name, with the last line that it printed."""
    logs = {job.name: job.log for job in jobs}
    return {name: f'{kind} {name} (exit code {code}): {last_line(logs[name])}'
            for name, code in run_jobs(jobs, launcher, ended).items()}


def _say_what_changed(home: Path, plan: Mapping[str, Any]) -> bool:
    if changed := what_changed(home, plan):
        _LOGGER.info('%s: made again (%s).', home.name, changed)
    return bool(changed)


def _remove_other(home: Path, plan: Mapping[str, Any]) -> None:
    """Remove what another plan left in a folder, and say so.

    Raises:
        InputError: a job of an earlier run, on a cluster, is still at it.
    """
    if _say_what_changed(home, plan):
        with locked(lock_beside(home, JOB_LOCK), home):
            shutil.rmtree(home)


def _fingerprint_and_size(planned: PlannedSet) -> tuple[str, int]:
    """Of what a cell is trained on: a fingerprint, and how many images it uses."""
    folder = planned.folder
    if planned.is_full and planned.shared:
        folder = stage_folder(planned.shared.recipe, 'extract')
    images = find_images([hr_folder(planned)])
    fingerprint = fingerprint_stage(folder) if (folder / STAGE_NAME).is_file() else fingerprint_images(images)
    return fingerprint, planned.count or len(images)
