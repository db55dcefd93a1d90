"""SIGINT and SIGTERM as requests that the training loop answers with a checkpoint."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import torch


class StopRequest:
    """The signal that asked this process to stop, if any."""

    def __init__(self) -> None:
        self.signum = 0

    def __call__(self, signum: int, frame: FrameType | None) -> None:
        self.signum = signum

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
    previous = {signum: signal.signal(signum, stop) for signum in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for signum, handler in previous.items():
            signal.signal(signum, handler)
