"""A benchmark from its file to its report: recipes, sets, cells, results; each goes on where it was interrupted.

Recipes, sets and cells are stages with records: what is asked now is held against what lies there, and nothing else
counts. A set or a cell of other options or inputs is made again; a recipe's folders are its own, so that their stages
refuse.
"""

import contextlib
import hashlib
import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import yaml

from basicsr_distill.benchmark.cells import (
    CELLS_FOLDER,
    TEST,
    TRAIN,
    Cell,
    begin_part,
    is_measured,
    load_networks,
    plan_cells,
    plan_part,
    test_options,
    train_options,
    weights_changed,
)
from basicsr_distill.benchmark.jobs import JOB_LOCK, Job, Launcher, last_line, make_launcher, run_jobs
from basicsr_distill.benchmark.leaks import find_scenes, refuse_identical
from basicsr_distill.benchmark.report.page import remove_report, write_report
from basicsr_distill.benchmark.results import RESULTS_NAME, collect, write_results
from basicsr_distill.benchmark.sets import (
    LIST_NAME,
    RECIPE_NAME,
    PlannedSet,
    SharedRecipe,
    fingerprint_contents,
    images_of,
    plan_sets,
    stage_folder,
)
from basicsr_distill.benchmark.tables import shown
from basicsr_distill.benchmark.trial import print_plan
from basicsr_distill.config.benchmark_file import BenchmarkFile
from basicsr_distill.config.recipe import Recipe
from basicsr_distill.config.sections.datasets import DistilledPatchDatasetOptions
from basicsr_distill.data._pairs import find_pairs
from basicsr_distill.errors import InputError
from basicsr_distill.io.files import write_atomic
from basicsr_distill.io.images import file_bytes, find_images, fingerprint_images
from basicsr_distill.io.inputs import experiment_inputs
from basicsr_distill.io.locks import lock_beside, locked, locked_folder
from basicsr_distill.io.manifest import json_text
from basicsr_distill.runtime.device import resolve_num_gpu
from basicsr_distill.stages.pipeline import plan
from basicsr_distill.stages.record import StagePlan, fingerprint_stage, read_stage
from basicsr_distill.training.keys import check_components

_LOGGER = logging.getLogger(__name__)

# A cell with the plans of its training and its test.
Parts = tuple[Cell, StagePlan, StagePlan]


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
    if file.options.leak_check:
        refuse_identical(file, sets)
    if dry_run:
        print_plan(file, cells, networks)
        return 0
    tests = {name: fingerprint_images(find_images([Path(folder)])) for name, folder in file.options.tests.items()}
    with locked_folder(root):
        launcher = make_launcher(file.options.jobs, root / 'submitit', resolve_num_gpu('auto'))
        with contextlib.closing(launcher):
            # What an earlier run said may hold no longer; where it does, it is said again in seconds.
            (root / RESULTS_NAME).unlink(missing_ok=True)
            remove_report(root)
            checked = find_scenes(file, root, sets) if file.options.leak_check else []
            made, failed = _make_sets(sets, launcher)
            parts, failed_cells = _run_cells(
                root, file, [cell for cell in cells if cell.set.identity in made], networks, tests, launcher
            )
        results = collect(file, root, parts, next(iter(networks.values())).scale, tests)
        write_results(root, results)
        failed += failed_cells
        write_report(file, root, results, failed, checked)
    left = len(cells) - len(results.cells)
    _LOGGER.info('%s: %d of %d cells; %s', root / 'report.html', len(results.cells), len(cells), root / RESULTS_NAME)
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
        try:
            find_pairs(DistilledPatchDatasetOptions(name=name, dataroot_gt=folder), next(iter(networks.values())).scale)
        except InputError as error:
            raise InputError(f'{where}.tests.{name}: {str(error).removeprefix("dataroot_gt: ")}') from None
    scales = {f'networks.{name}': recipe.scale for name, recipe in networks.items()}
    scales |= {f'sets.{planned.row}': planned.shared.recipe.scale for planned in sets if planned.shared}
    if len(set(scales.values())) > 1:
        listed = ', '.join(f'{name} is for x{scale}' for name, scale in scales.items())
        raise InputError(f'{where}: {listed}; let them agree.')
    for recipe in (
        *networks.values(),
        *{planned.shared.home: planned.shared.recipe for planned in sets if planned.shared}.values(),
    ):
        check_components(recipe)


def _make_sets(sets: Sequence[PlannedSet], launcher: Launcher) -> tuple[set[str], list[str]]:
    """Run the shared stages and make the sets; the identities of those that are there, and what failed."""
    shared = {planned.shared.home: planned.shared for planned in sets if planned.shared is not None}
    broken = _run(
        'recipe',
        [
            Job(_name(recipe), _written(recipe.home, recipe.recipe.options), recipe.stages)
            for recipe in shared.values()
            if not _are_current(recipe.recipe, recipe.stages)
        ],
        launcher,
    )
    failed = [
        f'{", ".join(dict.fromkeys(planned.row for planned in sets if _name(planned.shared) == name))}: {cause}'
        for name, cause in broken.items()
    ]
    made, jobs = set(), []
    for planned in sets:
        if _name(planned.shared) in broken:
            continue
        try:
            is_current = _set_is_current(planned)
        except InputError as error:
            failed.append(f'set {planned.identity}: {error}')
            continue
        made.add(planned.identity)
        if not is_current:
            assert planned.home is not None
            jobs.append(Job(planned.identity, _written(planned.home, planned.options), planned.stages))
    broken = _run('set', jobs, launcher)
    return made - broken.keys(), failed + list(broken.values())


def _name(recipe: SharedRecipe | None) -> str:
    """Of a recipe in messages; one file with several changes has several."""
    return '' if recipe is None else recipe.home.name.removeprefix('recipe_')


def _set_is_current(planned: PlannedSet) -> bool:
    """Whether a set is there; the list of one that is a choice of a folder's images is written.

    Raises:
        InputError: it is of other options, and a job of an earlier run, on a cluster, is still at it.
    """
    if planned.home is None:
        return True
    if planned.listed is None:
        return _are_current(planned.recipe, planned.stages, removes=planned.home)
    planned.home.mkdir(parents=True, exist_ok=True)
    write_atomic(planned.home / LIST_NAME, '\n'.join(planned.listed) + '\n')
    return True


def _written(home: Path, options: Mapping[str, object]) -> Path:
    """A job's folder, with its recipe."""
    home.mkdir(parents=True, exist_ok=True)
    write_atomic(home / RECIPE_NAME, yaml.safe_dump(dict(options), sort_keys=False, allow_unicode=True))
    return home


def _are_current(recipe: Recipe, stages: Sequence[str], removes: Path | None = None) -> bool:
    """Whether stages have made what a recipe asks now.

    Args:
        recipe: of the stages.
        stages: their names.
        removes: folder of a set, which is the benchmark's own: what others than these options or inputs made of it is
            removed.
    """
    for number, stage in enumerate(stages):
        try:
            asked = plan(recipe, stage)
        except InputError:  # the job will say so
            return False
        if asked.is_done:
            continue
        if removes is not None:
            changes = asked.changes
            for later in stages[number if changes else number + 1 :]:
                _remove(removes, stage_folder(recipe, later), changes)
        return False
    return True


def _run_cells(
    root: Path,
    file: BenchmarkFile,
    cells: Sequence[Cell],
    networks: Mapping[str, Recipe],
    tests: Mapping[str, str],
    launcher: Launcher,
) -> tuple[list[Parts], list[str]]:
    """Train and test; the cells as they are planned, and what failed."""
    inputs, failed = {}, []
    for planned in {cell.set.identity: cell.set for cell in cells}.values():
        try:
            inputs[planned.identity] = _fingerprint_and_size(planned, networks[cells[0].network].scale)
        except InputError as error:
            failed.append(f'set {planned.identity}: {error}')
    files = {name: experiment_inputs(recipe) for name, recipe in networks.items()}
    parts, jobs = [], []
    for cell in [cell for cell in cells if cell.set.identity in inputs]:
        home, (fingerprint, num_images) = root / CELLS_FOLDER / cell.identity, inputs[cell.set.identity]
        training = plan_part(
            home,
            TRAIN,
            train_options(cell, networks[cell.network], num_images),
            {'set': fingerprint, **files[cell.network]},
        )
        test = plan_part(
            home,
            TEST,
            test_options(cell, networks[cell.network], file.options, home),
            {
                'training': hashlib.sha256(json_text(training.header).encode()).hexdigest(),
                **{f'tests.{name}': fingerprint for name, fingerprint in tests.items()},
            },
        )
        try:
            is_done = _prepare(home, training, test)
        except InputError as error:
            failed.append(f'cell {cell.identity}: {error}')
            continue
        parts.append((cell, training, test))
        if not is_done:
            jobs.append(Job(cell.identity, home))
    if len(jobs) < len(parts):
        _LOGGER.info('cells: %d of %d were done before.', len(parts) - len(jobs), len(cells))
    ended = partial(_described, file.options.metrics[0])
    return parts, failed + list(_run('cell', jobs, launcher, ended).values())


def _prepare(home: Path, training: StagePlan, test: StagePlan) -> bool:
    """Begin the parts of a cell that are not done; whether both are.

    Raises:
        InputError: a job of an earlier run, on a cluster, is still at it.
    """
    if is_measured(training, test):
        return True
    if changes := training.changes or weights_changed(training):
        _remove(home, home, changes)
    elif (changes := test.changes) or read_stage(test.folder):
        _remove(home, test.folder, changes)
    for part in (training, test):
        if not part.is_done:
            begin_part(part)
    return False


def _remove(home: Path, folder: Path, changes: str) -> None:
    """Remove what other options or inputs made, and say so.

    It gets another name first: of a folder that a kill left half removed nothing could be told.

    Raises:
        InputError: a job of an earlier run, on a cluster, is still at it.
    """
    doomed = folder.with_name(f'.{folder.name}.removed')
    if folder.exists():
        with locked(lock_beside(home, JOB_LOCK), home):
            if changes:
                _LOGGER.info('%s: made again (%s).', home.name, changes)
            shutil.rmtree(doomed, ignore_errors=True)
            folder.rename(doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def _described(metric: str, job: Job) -> str:
    """A cell that has ended, in words: a metric, by test, and its time."""
    training, test = (read_stage(job.home / part) for part in (TRAIN, TEST))
    values = ', '.join(
        f'{name} {shown(metrics[metric], metric)}'
        for name, metrics in test['values'].items()
        if metrics.get(metric) is not None
    )
    return f'{metric} {values} ({training["seconds"] + test["seconds"]:.0f} s)'


def _run(
    kind: str, jobs: Sequence[Job], launcher: Launcher, ended: Callable[[Job], str] = lambda job: 'made'
) -> dict[str, str]:
    """Run jobs; what failed, by name, with the last line that it printed."""
    logs = {job.name: (job.log, file_bytes(job.log)) for job in jobs}
    return {
        name: f'{kind} {name} (exit code {code}): {last_line(*logs[name])}'
        for name, code in run_jobs(jobs, launcher, ended).items()
    }


def _fingerprint_and_size(planned: PlannedSet, scale: int) -> tuple[str, int]:
    """Of what a cell is trained on: a fingerprint, and how many images it uses."""
    images = images_of(planned, scale)
    if planned.shared is None:  # somebody else's folder: its record says nothing of what was done to it since
        made = fingerprint_images(find_images([planned.folder]))
    else:
        made = fingerprint_stage(stage_folder(planned.shared.recipe, 'extract') if planned.is_full else planned.folder)
    return hashlib.sha256(f'{made} {fingerprint_contents(images)}'.encode()).hexdigest(), len(images)
