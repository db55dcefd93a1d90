"""A benchmark from its file to its report: recipes, sets, cells, results; each goes on where it was interrupted."""

import contextlib
import logging
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from basicsr_distill.benchmark.cells import (
    CELLS_FOLDER,
    TEST_NAME,
    TRAIN_NAME,
    Cell,
    load_networks,
    plan_cells,
    rebased,
    test_options,
    train_options,
)
from basicsr_distill.benchmark.jobs import Job, Launcher, last_line, make_launcher, run_jobs
from basicsr_distill.benchmark.records import (
    DONE_NAME,
    PLAN_NAME,
    is_finished,
    read_record,
    what_changed,
)
from basicsr_distill.benchmark.report.page import write_report
from basicsr_distill.benchmark.results import collect, write_results
from basicsr_distill.benchmark.sets import RECIPE_NAME, PlannedSet, SharedRecipe, plan_sets
from basicsr_distill.benchmark.trial import print_plan
from basicsr_distill.config.benchmark_file import BenchmarkFile
from basicsr_distill.config.recipe import Recipe
from basicsr_distill.errors import InputError
from basicsr_distill.io.files import write_atomic
from basicsr_distill.io.images import find_images, fingerprint_images
from basicsr_distill.io.locks import locked_folder
from basicsr_distill.io.manifest import write_json
from basicsr_distill.runtime.device import resolve_num_gpu
from basicsr_distill.stages.record import STAGE_NAME, fingerprint_stage

_LOGGER = logging.getLogger(__name__)
_LOG_NAME = 'log.txt'


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
    with locked_folder(root):
        launcher = make_launcher(file.options.jobs, root / 'submitit', resolve_num_gpu('auto'))
        with contextlib.closing(launcher):
            made, failed = _make_sets(sets, launcher)
            failed += _run_cells(root, file, [cell for cell in cells if cell.set.identity in made], networks, launcher)
        results = collect(file, root, cells, networks)
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
            available = len(_images_of(planned))
            if available < planned.count:
                raise InputError(f'{where}.sets.{planned.row}.path: {planned.folder} has {available} images, but '
                                 f'counts names {planned.count}; leave that count out.')
    from basicsr_distill.host import hooks

    hooks.require_host()
    from basicsr_distill.training.keys import check_components

    for recipe in (*networks.values(), *{planned.shared.home: planned.shared.recipe for planned in sets
                                         if planned.shared}.values()):
        check_components(recipe)


def _make_sets(sets: Sequence[PlannedSet], launcher: Launcher) -> tuple[set[str], list[str]]:
    """Run the shared stages and make the sets; the identities of those that are there, and what failed."""
    shared = {planned.shared.home: planned.shared for planned in sets if planned.shared is not None}
    jobs = [_shared_job(recipe) for recipe in shared.values()]
    failures = _run('recipe', [job for job in jobs if not _has_run(job)], launcher)
    usable = [planned for planned in sets if planned.shared is None or str(planned.shared.home) not in failures]
    set_jobs = {planned.identity: _set_job(planned) for planned in usable if planned.stages}
    failures |= _run('set', [job for job in set_jobs.values() if not is_finished(Path(job.arguments[1]))], launcher)
    made = {planned.identity for planned in usable
            if planned.identity not in set_jobs or is_finished(Path(set_jobs[planned.identity].arguments[1]))}
    return made, list(failures.values())


def _shared_job(recipe: SharedRecipe) -> Job:
    _write_plan(recipe.home, {'options': dict(recipe.options), 'stages': list(recipe.stages)},
                {RECIPE_NAME: recipe.options}, keep=True)
    return Job(str(recipe.home), ('stages', str(recipe.home), *recipe.stages), recipe.home / _LOG_NAME)


def _has_run(job: Job) -> bool:
    """Whether a recipe's stages stand; they themselves say so, for their folders are the recipe's own."""
    recipe = Recipe.load(Path(job.arguments[1]) / RECIPE_NAME)
    folders = [Path('experiments', recipe.name) if stage == 'finetune' else Path(getattr(recipe, stage).save_dir)
               for stage in job.arguments[2:]]
    return is_finished(Path(job.arguments[1])) and all((folder / STAGE_NAME).is_file() for folder in folders)


def _set_job(planned: PlannedSet) -> Job:
    assert planned.home is not None and planned.shared is not None
    inputs = {stage: fingerprint_stage(planned.shared.folder_of(stage)) for stage in planned.shared.stages
              if planned.stages != ('select',) or stage != 'finetune'}
    _write_plan(planned.home, {'options': dict(planned.options), 'inputs': inputs}, {RECIPE_NAME: planned.options})
    return Job(planned.identity, ('stages', str(planned.home), *planned.stages), planned.home / _LOG_NAME)


def _run_cells(root: Path, file: BenchmarkFile, cells: Sequence[Cell], networks: Mapping[str, Recipe],
               launcher: Launcher) -> list[str]:
    tests = {name: fingerprint_images(find_images([Path(folder)])) for name, folder in file.options.tests.items()}
    trained_on = {planned.identity: (fingerprint_set(planned), planned.count or len(_images_of(planned)))
                  for planned in {cell.set.identity: cell.set for cell in cells}.values()}
    first = file.options.metrics[0]
    jobs = []
    for cell in cells:
        folder = root / CELLS_FOLDER / cell.identity
        fingerprint, num_images = trained_on[cell.set.identity]
        options = {TRAIN_NAME: train_options(cell, networks[cell.network], num_images),
                   TEST_NAME: test_options(cell, networks[cell.network], file.options)}
        _write_plan(folder, {**options, 'inputs': {'set': fingerprint, **tests}}, options, rebase=True)
        _link_weights(folder)
        if not is_finished(folder):
            jobs.append(Job(cell.identity, ('cell', str(folder)), folder / _LOG_NAME))
    if len(jobs) < len(cells):
        _LOGGER.info('cells: %d of %d were done before.', len(cells) - len(jobs), len(cells))

    def ended(job: Job) -> str:
        done = read_record(Path(job.arguments[1]) / DONE_NAME)
        values = ', '.join(f'{test} {metrics[first]:.{2 if "psnr" in first else 4}f}'
                           for test, metrics in done['values'].items() if metrics.get(first) is not None)
        return f'{first} {values} ({done["train_s"] + done["test_s"]:.0f} s)'

    return list(_run('cell', jobs, launcher, ended).values())


def _run(kind: str, jobs: Sequence[Job], launcher: Launcher, ended: Any = lambda job: 'made') -> dict[str, str]:
    """Run jobs; what failed, by name, with the last line that it printed."""
    logs = {job.name: job.log for job in jobs}
    return {name: f'{kind} {name} (exit code {code}): {last_line(logs[name])}'
            for name, code in run_jobs(jobs, launcher, ended).items()}


def _write_plan(home: Path, plan: Mapping[str, Any], files: Mapping[str, Mapping[str, Any]], rebase: bool = False,
                keep: bool = False) -> None:
    """Write a folder's option files and plan; what another plan left there is removed first, and that is said."""
    if changed := what_changed(home, plan):
        _LOGGER.info('%s: made again (%s).', home.name, changed)
        if not keep:
            shutil.rmtree(home)
    home.mkdir(parents=True, exist_ok=True)
    for name, options in files.items():
        text = yaml.safe_dump(rebased(options, home) if rebase else dict(options), sort_keys=False, allow_unicode=True)
        write_atomic(home / name, text)
    write_json(home / PLAN_NAME, plan)


def _link_weights(folder: Path) -> None:
    """Let a cell find the weights of losses and metrics, which BasicSR looks for below the working folder."""
    weights, link = Path('experiments', 'pretrained_models'), folder / 'experiments' / 'pretrained_models'
    if weights.is_dir() and not link.is_symlink():
        link.parent.mkdir(exist_ok=True)
        link.symlink_to(weights.resolve(), target_is_directory=True)


def fingerprint_set(planned: PlannedSet) -> str:
    """Of what a cell is trained on."""
    folder = planned.shared.folder_of('extract') if planned.is_full and planned.shared else planned.folder
    return fingerprint_stage(folder) if (folder / STAGE_NAME).is_file() else fingerprint_images(_images_of(planned))


def _images_of(planned: PlannedSet) -> list[Any]:
    hr = planned.folder / 'HR'
    return find_images([hr if hr.is_dir() else planned.folder])


