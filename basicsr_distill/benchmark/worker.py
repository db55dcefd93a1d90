"""What a benchmark does in processes of its own: stages of a recipe, or a training and its test.

    python -m basicsr_distill.benchmark.worker stages FOLDER STAGE...
    python -m basicsr_distill.benchmark.worker cell FOLDER
    python -m basicsr_distill.benchmark.worker serve

The last one imports everything once and forks a process for each job that it reads from standard input, since the
imports take longer than a small network's test. Standard input is a pipe from the benchmark: its end means that the
benchmark is gone, and whatever runs ends with it. What a killed stage or training leaves behind, the next run goes on
from.
"""

import json
import logging
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from basicsr_distill.benchmark.cells import TEST, TRAIN, option_file, weights_path
from basicsr_distill.benchmark.costs import write_cost
from basicsr_distill.benchmark.jobs import JOB_LOCK
from basicsr_distill.benchmark.sets import RECIPE_NAME
from basicsr_distill.config.experiment import to_experiment
from basicsr_distill.config.recipe import Recipe
from basicsr_distill.errors import InputError
from basicsr_distill.io.files import sha256_file
from basicsr_distill.io.locks import lock_beside, locked
from basicsr_distill.runtime.interrupts import unwinding_signals
from basicsr_distill.stages.record import StagePlan, stage_folder


def run_stages(folder: Path, stages: Sequence[str]) -> None:
    """Run stages of the recipe in ``folder``, as ``basicsr distill`` does, and note how long each took.

    Stages that had been run before the benchmark was have no time.

    Raises:
        InputError: what ``basicsr distill`` refuses.
    """
    from basicsr_distill.stages.pipeline import distill, plan

    recipe = Recipe.load(folder / RECIPE_NAME)
    for stage in stages:
        started, was_done = time.perf_counter(), plan(recipe, stage).is_done
        distill(recipe, [stage])
        if not was_done:
            write_cost(folder, recipe, stage, time.perf_counter() - started)


def run_cell(folder: Path) -> None:
    """Train and test a cell whose two parts were begun in ``folder``; what is finished is left as it is.

    Raises:
        InputError: what ``basicsr train`` or ``basicsr test`` refuses.
    """
    from basicsr_distill.host import hooks

    hooks.require_host()
    for part, work in ((TRAIN, _train), (TEST, _test)):
        home = folder / part
        with stage_folder(StagePlan.begun(home)) as stage:
            if not stage.finished:
                started = time.perf_counter()
                facts = work(home)
                stage.finish({}, **facts, seconds=round(time.perf_counter() - started, 1))


def _train(home: Path) -> dict[str, Any]:
    """Train; what the record keeps of it."""
    from basicsr_distill.training.train import train

    recipe = Recipe.load(option_file(home))
    train(to_experiment(recipe, is_train=True, root=home, auto_resume=True))
    return {'weights_sha256': sha256_file(home / weights_path(recipe.name))}


def _test(home: Path) -> dict[str, Any]:
    """Test; what the record keeps of it."""
    from basicsr_distill.training.test import test

    recipe = Recipe.load(option_file(home))
    test(to_experiment(recipe, is_train=False, root=home))
    values = (home / 'results' / recipe.name / 'metrics.json').read_text(encoding='utf-8')
    return {
        'values': json.loads(values),
        'weights_sha256': sha256_file(home.parent / TRAIN / weights_path(recipe.name)),
    }


def die_with_stdin() -> None:
    """End this process, as kill -9 would, when the pipe at standard input ends."""

    def watch() -> None:
        while os.read(0, 1):
            pass
        os._exit(137)

    threading.Thread(target=watch, daemon=True).start()


def serve() -> None:
    """Fork a process for each line of standard input, ``{"arguments": [...], "log": PATH}``; print its exit code."""
    from basicsr_distill.host import hooks

    hooks.require_host()
    import basicsr_distill.stages.extract.stage
    import basicsr_distill.stages.sample.stage
    import basicsr_distill.stages.select.stage
    import basicsr_distill.training.test
    import basicsr_distill.training.train  # noqa: F401  (what the jobs need)

    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it is for the job, which may want to save something first
    while line := _read_line():
        job = json.loads(line)
        child = os.fork()
        if not child:
            os._exit(_run_forked(job))
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


def _read_line() -> bytes:
    """A line of standard input, and nothing beyond it, which a buffer would keep from the job's own watch."""
    line = b''
    while (byte := os.read(0, 1)) not in (b'', b'\n'):
        line += byte
    return line


def _run_forked(job: dict[str, Any]) -> int:
    with open(job['log'], 'ab') as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    die_with_stdin()
    try:
        return main(job['arguments'])
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else 1
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


def main(arguments: Sequence[str]) -> int:
    """Run one job; the exit codes are those of the ``basicsr`` command."""
    if list(arguments) == ['serve']:
        serve()
        return 0
    logging.basicConfig(level=logging.INFO, format='%(message)s')
    what, path, *stages = arguments
    try:
        folder = Path(path)
        # Should a job of an earlier run still be at it, it is waited for.
        with unwinding_signals(), locked(lock_beside(folder, JOB_LOCK), folder, wait=True):
            if what == 'stages':
                run_stages(folder, stages)
            else:
                run_cell(folder)
    except InputError as error:
        print(f'basicsr: {error}', file=sys.stderr)
        return 2
    return 0


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
