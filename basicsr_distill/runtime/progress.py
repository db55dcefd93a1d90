"""How far a long piece of work is: a bar with the remaining time on a terminal, a line every tenth elsewhere."""

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Protocol

from tqdm import tqdm

from basicsr_distill.runtime import distributed

_LOGGER = logging.getLogger(__name__)
# What is over within a second needs no lines.
_QUIET_SECONDS = 1.0


class Progress(Protocol):
    """Takes note of work done."""

    def update(self, n: int = 1) -> object:
        """``n`` more units are done."""


@contextmanager
def progress(total: int, what: str, unit: str, done: int = 0) -> Iterator[Progress]:
    """Show the progress of this rank's share of the work; ranks but the first are silent.

    Args:
        total: number of units in all.
        what: stage and work, for example ``'cluster: encode'``.
        unit: of what, in the singular.
        done: units that an earlier run did.
    """
    if not distributed.is_main() or done >= total:
        yield Silence()
    elif sys.stderr.isatty():
        with tqdm(total=total, initial=done, desc=what, unit=unit, leave=False, dynamic_ncols=True) as bar:
            yield bar
    else:
        yield Tenths(total, what, done, time.monotonic)


class Silence:
    """Shows nothing."""

    def update(self, n: int = 1) -> None:
        """As :meth:`Progress.update`."""


class Tenths:
    """Logs a line at each tenth of the work, with the time that the rest will take at the pace so far."""

    def __init__(self, total: int, what: str, done: int, clock: Callable[[], float]) -> None:
        self.total = total
        self.what = what
        self.first = self.done = done
        self.clock = clock
        self.start = clock()

    def update(self, n: int = 1) -> None:
        """As :meth:`Progress.update`."""
        tenth = 10 * self.done // self.total
        self.done += n
        seconds = self.clock() - self.start
        if 10 * self.done // self.total > tenth and seconds > _QUIET_SECONDS and self.done < self.total:
            left = timedelta(seconds=round(seconds / (self.done - self.first) * (self.total - self.done)))
            _LOGGER.info(
                '%s: %d %% (%d of %d), %s left', self.what, 100 * self.done // self.total, self.done, self.total, left
            )
