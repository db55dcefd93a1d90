"""The stages of a recipe, run in the order of the method."""

import logging
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path

from basicsr_distill.config.experiment import to_experiment
from basicsr_distill.config.recipe import Recipe
from basicsr_distill.config.sections.extract import ExtractOptions
from basicsr_distill.errors import InputError
from basicsr_distill.runtime import distributed
from basicsr_distill.runtime.interrupts import uninterrupted_imports
from basicsr_distill.stages.record import STAGE_NAME, StagePlan, read_stage

log = logging.getLogger(__name__)


def distill(recipe: Recipe, stages: Sequence[str] | None = None, report: bool = False) -> None:
    """Run stages in the order of the method; finished ones are skipped.

    Every section that will be needed is checked before the first stage starts. ``extract.thresholds: suggest`` prints
    its limits and runs nothing.

    Args:
        recipe: a checked recipe.
        stages: names of stages; when None, those whose sections the recipe has.
        report: write the contact sheet of extract, which must be among the stages.

    Raises:
        InputError: the recipe or what it points to is wrong.
    """
    stages = recipe.stages if stages is None else stages
    recipe.require(stages)
    if report and 'extract' not in stages:
        raise InputError('--report: shows what the stage extract keeps and drops; give it with --stage extract.')
    if 'extract' in stages and recipe.extract and recipe.extract.thresholds == 'suggest':
        return _suggest(recipe.extract)
    if {'select', 'finetune', 'sample'} & set(stages):
        recipe.check_agreement()
    if 'finetune' in stages:
        _check_training(recipe)
    if 'extract' in stages and recipe.extract:
        _extract(recipe.extract, report)
    if 'cluster' in stages and recipe.cluster and recipe.extract:
        with uninterrupted_imports():
            from basicsr_distill.stages import cluster

        _run('cluster', partial(cluster.run, recipe.cluster, Path(recipe.extract.save_dir)))
    if 'select' in stages:
        with uninterrupted_imports():
            from basicsr_distill.stages.select import stage as select

        _run('select', partial(select.run, recipe))
    if 'finetune' in stages:
        with uninterrupted_imports():
            from basicsr_distill.stages import finetune

        _run('finetune', partial(finetune.run, recipe))
    if 'sample' in stages and recipe.sample:
        with uninterrupted_imports():
            from basicsr_distill.stages.sample import stage as sample

        _run('sample', partial(sample.run, recipe.sample, to_experiment(recipe, is_train=True, root=Path.cwd())))


def plan(recipe: Recipe, stage: str) -> StagePlan:
    """Return what a stage is asked to make, as the stage itself holds it against its folder.

    Args:
        recipe: a checked recipe with the sections of the stage.
        stage: its name.

    Raises:
        InputError: what the stage needs is not there, or its folder cannot be used.
    """
    with uninterrupted_imports():
        from basicsr_distill.stages import cluster, finetune
        from basicsr_distill.stages.extract import stage as extract
        from basicsr_distill.stages.sample import stage as sample
        from basicsr_distill.stages.select import stage as select

    if stage == 'extract' and recipe.extract:
        return extract.plan(recipe.extract)
    if stage == 'cluster' and recipe.cluster and recipe.extract:
        return cluster.plan(recipe.cluster, Path(recipe.extract.save_dir))
    if stage == 'select':
        return select.plan(recipe)
    if stage == 'finetune':
        return finetune.plan(recipe)
    assert stage == 'sample' and recipe.sample
    return sample.plan(recipe.sample, to_experiment(recipe, is_train=True, root=Path.cwd()))


def _check_training(recipe: Recipe) -> None:
    """Refuse misspelt keys of BasicSR's components before the first stage; a finished training is not looked at."""
    if not Path('experiments', recipe.name, STAGE_NAME).is_file():
        with uninterrupted_imports():
            from basicsr_distill.host.hooks import require_host

            require_host()
            from basicsr_distill.training.keys import check_components

        check_components(recipe)


def _extract(options: ExtractOptions, report: bool) -> None:
    with uninterrupted_imports():
        from basicsr_distill.stages.extract import stage
        from basicsr_distill.stages.extract.report import write_report

    _run('extract', partial(stage.run, options))
    if report:
        with distributed.broadcast_failure():
            if distributed.is_main():
                write_report(options)


def _suggest(options: ExtractOptions) -> None:
    with uninterrupted_imports():
        from basicsr_distill.stages.extract.suggesting import suggest

    suggest(options)


def _run(stage: str, work: Callable[[], Path]) -> None:
    """Run a stage, and say in one line what it made and how long that took."""
    started = time.time()
    folder = work()
    if not distributed.is_main():
        return
    counts = {name.replace('_', ' '): count for name, count in read_stage(folder)['counts'].items() if count}
    if folder.is_absolute() and folder.is_relative_to(Path.cwd()):
        folder = folder.relative_to(Path.cwd())
    was_there = (folder / STAGE_NAME).stat().st_mtime < started
    took = 'done before' if was_there else str(timedelta(seconds=round(time.time() - started)))
    log.info('%-8s %s: %s (%s)', stage, folder, ', '.join(f'{name} {count}' for name, count in counts.items()), took)
