"""SIGINT and SIGTERM as requests that the training loop answers with a checkpoint."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import torch

from basicsr_distill.runtime import distributed
from basicsr_distill.runtime.interrupts import SIGNALS


class StopRequest:
    """The signal that asked this process to stop, if any."""

    def __init__(self) -> None:
        self.signum = 0
        self.work = 'this iteration'

    def __call__(self, signum: int, frame: FrameType | None) -> None:
        self.signum = signum
        if distributed.is_main():
            # The stream's buffer may be in the midst of a write: past it, to the file.
            name = signal.Signals(signum).name
            os.write(2, f'basicsr: {name}: finishing {self.work}, then stopping with a checkpoint.\n'.encode())

    @contextmanager
    def finishing(self, work: str) -> Iterator[None]:
        """Name the work that a signal has to wait for."""
        before, self.work = self.work, work
        try:
            yield
        finally:
            self.work = before

    def agreed(self, dist: bool) -> int:
        """The signal that any rank received: all ranks stop after the same iteration."""
        if not dist:
            return self.signum
        signum = torch.tensor(self.signum)
        torch.distributed.all_reduce(signum, op=torch.distributed.ReduceOp.MAX)
        return int(signum)


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Turn SIGINT and SIGTERM into a request that the loop answers with a checkpoint."""
    stop = StopRequest()
    previous = {signum: signal.signal(signum, stop) for signum in SIGNALS}
    try:
        yield stop
    finally:
        for signum, handler in previous.items():
            signal.signal(signum, handler)
