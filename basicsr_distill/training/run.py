"""What both loops do before they start: the device, the ranks, the lock, the log."""

import logging
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from logging.handlers import MemoryHandler
from pathlib import Path
from typing import Any

import basicsr
import torch
from basicsr.utils import (
    get_root_logger,
    get_time_str,
    set_random_seed,
)

from basicsr_distill import __version__
from basicsr_distill.config.experiment import Experiment
from basicsr_distill.io.files import write_atomic
from basicsr_distill.io.locks import lock_beside, locked
from basicsr_distill.runtime import distributed
from basicsr_distill.runtime.device import resolve_num_gpu
from basicsr_distill.training import keys, preflight


def prepare_run(experiment: Experiment, quiet: bool = False) -> None:
    """Resolve the device and the ranks, and check what needs no building.

    Args:
        experiment: about to run; its dictionary gets the device and the ranks.
        quiet: the terminal gets BasicSR's warnings alone.

    Raises:
        InputError: a component or its weights are wrong.
    """
    _open_terminal(quiet)
    _remember_messages()
    opt = experiment.opt
    opt['num_gpu'] = resolve_num_gpu(opt['num_gpu'])
    opt['rank'], opt['world_size'] = distributed.rank(), distributed.world_size()
    opt['dist'] = opt['world_size'] > 1
    keys.check_components(experiment.recipe)
    preflight.check_sections(experiment)
    set_random_seed(opt['manual_seed'] + opt['rank'])
    torch.backends.cudnn.benchmark = True


def _open_terminal(quiet: bool) -> None:
    """Let BasicSR's logger speak on the terminal, or its warnings alone; an earlier run's log file is closed."""
    logger = get_root_logger()
    for handler in list(logger.handlers):
        if isinstance(handler, logging.FileHandler):
            logger.removeHandler(handler)
            handler.close()
        elif isinstance(handler, logging.StreamHandler):
            handler.setLevel(logging.WARNING if quiet else logging.NOTSET)
    if distributed.is_main():
        logger.setLevel(logging.INFO)


@contextmanager
def locked_experiment(folder: str | Path) -> Iterator[None]:
    """Hold an experiment by the lock beside its folder, which may itself be moved aside.

    Raises:
        InputError: on every rank, another run holds it.
    """
    with ExitStack() as stack:
        with distributed.broadcast_failure():
            if distributed.is_main():
                stack.enter_context(locked(lock_beside(Path(folder)), Path(folder)))
        yield


def start_log(path: Path, text: str, opt: dict[str, Any], dump: str, command: str) -> None:
    """Copy the option file into the folder, and log into a file there from now on.

    Args:
        path: of the option file.
        text: its content.
        opt: BasicSR's dictionary.
        dump: its listing, made before the models took their types out of it.
        command: ``train`` or ``test``.
    """
    folder = Path(opt['path']['log'])
    if distributed.is_main():
        write_atomic(folder / path.name, f'# {" ".join(sys.argv)}\n{text}')
    logger = get_root_logger()
    if distributed.is_main():
        handler = logging.FileHandler(folder / f'{command}_{opt["name"]}_{get_time_str()}.log', encoding='utf-8')
        handler.setFormatter(logging.Formatter('%(asctime)s %(levelname)s: %(message)s'))
        logger.addHandler(handler)
        _hand_over_messages(handler)
    logger.info(
        'basicsr-distill %s on BasicSR %s (%s), torch %s; %s',
        __version__,
        basicsr.__version__,
        Path(basicsr.__file__).parent,
        torch.__version__,
        ' '.join(sys.argv),
    )
    logger.info(dump)


def _remember_messages() -> None:
    """Keep what BasicSR's logger says before the experiment's log exists: a warning belongs with the results."""
    logger = get_root_logger()
    _remove_memory(logger)
    # No record is of a level that would empty the memory.
    logger.addHandler(MemoryHandler(10_000, flushLevel=logging.CRITICAL + 1, flushOnClose=False))


def _hand_over_messages(handler: logging.Handler) -> None:
    """Give what was kept to the handler of the experiment's log."""
    for memory in _remove_memory(get_root_logger()):
        for record in memory.buffer:
            handler.handle(record)


def _remove_memory(logger: logging.Logger) -> list[MemoryHandler]:
    found = [handler for handler in logger.handlers if isinstance(handler, MemoryHandler)]
    for handler in found:
        logger.removeHandler(handler)
    return found
