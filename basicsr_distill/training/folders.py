"""The folder of an experiment or of a test: an earlier one of the same name is moved aside, as late as possible."""

import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from basicsr.utils import get_root_logger, get_time_str

from basicsr_distill.errors import InputError
from basicsr_distill.runtime import distributed

_SUBFOLDERS = ('models', 'training_states', 'visualization')
# Files of a training that is worth keeping.
_CHECKPOINTS = ('models/*.pth', 'training_states/*.state')


def check_writable(path: Path, folder: str | Path) -> None:
    """Refuse a folder that this user cannot write, before any work.

    Raises:
        InputError: it, or a folder in it, is another user's or write-protected.
    """
    folder = Path(folder)
    for place in (folder, *(folder / name for name in _SUBFOLDERS)):
        if os.path.lexists(place) and not os.access(place, os.R_OK | os.W_OK | os.X_OK):
            raise InputError(
                f'{path}: name: {place} may not be read and written by this user; choose another name, or have its '
                'owner allow it.'
            )


@contextmanager
def experiment_folder(opt: dict[str, Any], fresh: bool) -> Iterator[None]:
    """Make the experiment's folders; a fresh start moves an earlier experiment of this name aside, as BasicSR does.

    A fresh start that is refused before its first checkpoint is undone: the earlier experiment is moved back.
    """
    roots = [Path(opt['path']['experiments_root'])]
    if opt['logger'].get('use_tb_logger'):
        roots.append(Path(opt['root_path'], 'tb_logger', opt['name']))
    archives = _archive(roots) if fresh and distributed.is_main() else {}
    if distributed.is_main():
        for key in _SUBFOLDERS:
            Path(opt['path'][key]).mkdir(parents=True, exist_ok=True)
    distributed.barrier()
    try:
        yield
    except InputError:
        if fresh and distributed.is_main() and not any(any(roots[0].glob(pattern)) for pattern in _CHECKPOINTS):
            _close_log_file()
            for root in roots:
                shutil.rmtree(root, ignore_errors=True)
                if root in archives:
                    archives[root].rename(root)
        raise


def archive(folder: Path) -> Path | None:
    """Move a folder aside; its new place, None where there was none."""
    if not folder.exists():
        return None
    new = free = folder.with_name(f'{folder.name}_archived_{get_time_str()}')
    number = 1
    while free.exists():  # twice within a second
        number += 1
        free = new.with_name(f'{new.name}_{number}')
    get_root_logger().info('%s exists already and is moved to %s.', folder, free)
    folder.rename(free)
    return free


def _archive(roots: list[Path]) -> dict[Path, Path]:
    archives = {root: archive(root) for root in roots}
    return {root: place for root, place in archives.items() if place is not None}


def _close_log_file() -> None:
    logger = get_root_logger()
    for handler in [handler for handler in logger.handlers if isinstance(handler, logging.FileHandler)]:
        logger.removeHandler(handler)
        handler.close()
