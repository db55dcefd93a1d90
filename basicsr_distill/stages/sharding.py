"""A stage on many ranks: one output folder that all of them fill, and work saved in parts that any can resume."""

import errno
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from basicsr_distill.errors import InputError
from basicsr_distill.io.files import replacing
from basicsr_distill.runtime import distributed
from basicsr_distill.stages.record import StagePlan, StageRun, read_stage, stage_folder

Item = TypeVar('Item')
# What costs time to make: scores and features, latents, images, checkpoints.
_WORK_SUFFIXES = frozenset({'.npz', '.npy', '.png', '.pth', '.state'})
_DISK_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})


@contextmanager
def shared_stage_folder(plan: StagePlan) -> Iterator[StageRun]:
    """:func:`stage_folder` for all ranks: rank 0 holds the folder, the others work in it, and a refusal reaches all.

    When a fresh run ends in an InputError before it has finished any part of its work, its folder is emptied, so that
    corrected options are not refused for it; otherwise the work is kept.

    Raises:
        InputError: as :func:`stage_folder`.
        OSError: the disk is full or read-only; the message names the folder.
    """
    folder = plan.folder
    with ExitStack() as stack:
        run = StageRun(folder, {}, finished=False, resumed=False)
        with distributed.broadcast_failure():
            if distributed.is_main():
                run = stack.enter_context(stage_folder(plan))
        if not distributed.is_main():
            done = read_stage(folder)
            run = StageRun(folder, {}, finished=bool(done), resumed=False, record=done)
        # Rank 0 must not finish the stage before the others have seen whether it was finished.
        distributed.barrier()
        try:
            yield run
        except InputError:
            if distributed.is_main() and not (run.finished or run.resumed or _holds_work(folder)):
                run.clear()
            raise
        except OSError as error:
            # A message of its own says more than ours would.
            if error.errno not in _DISK_ERRORS or error.strerror != os.strerror(error.errno):
                raise
            raise OSError(
                error.errno,
                f'{folder}: {error.strerror.lower()}, {shutil.disk_usage(folder).free >> 20} MB are free; '
                'make room and run the same command again',
            ) from error


def _holds_work(folder: Path) -> bool:
    return any(path.suffix in _WORK_SUFFIXES for path in folder.rglob('*'))


def own_parts(items: Sequence[Item], part_size: int) -> list[tuple[int, Sequence[Item]]]:
    """This rank's share of ``items``: numbered parts, dealt out in turn; the parts do not depend on the ranks."""
    parts = [(number, items[first : first + part_size]) for number, first in enumerate(range(0, len(items), part_size))]
    return parts[distributed.rank() :: distributed.world_size()]


def save_part(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write a part's result as .npz; the file is whole or absent."""
    named: dict[str, Any] = dict(arrays)
    with replacing(path) as temp, temp.open('wb') as file:
        np.savez(file, **named)
