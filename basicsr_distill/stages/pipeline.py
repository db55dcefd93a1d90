"""The stages of a recipe, run in the order of the method."""

import importlib
import logging
import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from basicsr_distill.config import STAGE_ORDER
from basicsr_distill.config.recipe import Recipe
from basicsr_distill.config.sections.extract import ExtractOptions
from basicsr_distill.errors import InputError
from basicsr_distill.runtime import distributed
from basicsr_distill.runtime.interrupts import uninterrupted_imports
from basicsr_distill.stages.record import STAGE_NAME, StagePlan, StageResult

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
    for stage in STAGE_ORDER:
        if stage in stages:
            _run(stage, recipe)
            if stage == 'extract' and report:
                _write_report(recipe)


def plan(recipe: Recipe, stage: str) -> StagePlan:
    """Return what a stage is asked to make, as the stage itself holds it against its folder.

    Args:
        recipe: a checked recipe with the sections of the stage.
        stage: its name.

    Raises:
        InputError: what the stage needs is not there, or its folder cannot be used.
    """
    made: StagePlan = _module(stage).plan(recipe)
    return made


def _module(stage: str) -> Any:
    """Import a stage: ``stages/NAME.py``, or ``stages/NAME/stage.py``, with ``run(recipe)`` and ``plan(recipe)``."""
    with uninterrupted_imports():
        module = importlib.import_module(f'basicsr_distill.stages.{stage}')
        return importlib.import_module(f'{module.__name__}.stage') if hasattr(module, '__path__') else module


def _run(stage: str, recipe: Recipe) -> None:
    """Run a stage, and say in one line what it made and how long that took."""
    module = _module(stage)
    started = time.monotonic()
    result: StageResult = module.run(recipe)
    folder = result.folder
    if not distributed.is_main():
        return
    if folder.is_absolute() and folder.is_relative_to(Path.cwd()):
        folder = folder.relative_to(Path.cwd())
    counts = ', '.join(f'{name.replace("_", " ")} {count}' for name, count in result.counts.items() if count)
    took = 'done before' if result.done_before else str(timedelta(seconds=round(time.monotonic() - started)))
    log.info('%-8s %s: %s (%s)', stage, folder, counts, took)


def _check_training(recipe: Recipe) -> None:
    """Refuse misspelt keys of BasicSR's components before the first stage; a finished training is not looked at."""
    if not Path('experiments', recipe.name, STAGE_NAME).is_file():
        with uninterrupted_imports():
            from basicsr_distill.host.hooks import require_host

            require_host()
            from basicsr_distill.training.keys import check_components

        check_components(recipe)


def _write_report(recipe: Recipe) -> None:
    with uninterrupted_imports():
        from basicsr_distill.stages.extract.report import write_report

    assert recipe.extract is not None
    with distributed.broadcast_failure():
        if distributed.is_main():
            write_report(recipe.extract)


def _suggest(options: ExtractOptions) -> None:
    with uninterrupted_imports():
        from basicsr_distill.stages.extract.suggesting import suggest

    suggest(options)
