"""What SIGINT and SIGTERM do while no training loop answers them. Imports nothing heavy."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Terminated(SystemExit):
    """SIGTERM outside the training loop: unwinds like KeyboardInterrupt; the exit code is 143."""


def _terminate(signum: int, frame: FrameType | None) -> None:
    raise Terminated(128 + signum)


@contextmanager
def _handling(handlers: dict[signal.Signals, Any]) -> Iterator[None]:
    previous = {}
    with suppress(ValueError):  # not the main thread of an embedding program, where signals are its own business
        previous = {signum: signal.signal(signum, handler) for signum, handler in handlers.items()}
    try:
        yield
    finally:
        for signum, handler in previous.items():
            signal.signal(signum, handler)


@contextmanager
def unwinding_signals() -> Iterator[None]:
    """SIGINT raises KeyboardInterrupt and SIGTERM :class:`Terminated`, so that locks and temporary files go."""
    with _handling({signal.SIGINT: signal.default_int_handler, signal.SIGTERM: _terminate}):
        yield


@contextmanager
def uninterrupted_imports() -> Iterator[None]:
    """Signals end the process at once, by the system's default action.

    For imports, which take seconds and leave nothing behind: an exception in the midst of one is swallowed or turned
    into another by whichever module is being loaded, and some of them cannot be loaded a second time.
    """
    with _handling(dict.fromkeys(SIGNALS, signal.SIG_DFL)):
        yield
