"""What is said before the experiment's log exists, kept for it: a warning belongs with the results."""

import logging
from logging.handlers import MemoryHandler

from basicsr.utils import get_root_logger

_MANY = 10_000


def remember_messages() -> None:
    """Keep what BasicSR's logger says from here on; what an earlier, refused run left is forgotten."""
    logger = get_root_logger()
    _remove_memory(logger)
    # No record is of a level that would empty the memory.
    logger.addHandler(MemoryHandler(_MANY, flushLevel=logging.CRITICAL + 1, flushOnClose=False))


def hand_over_messages(handler: logging.Handler) -> None:
    """Give what was kept to the handler of the experiment's log."""
    for memory in _remove_memory(get_root_logger()):
        for record in memory.buffer:
            handler.handle(record)


def _remove_memory(logger: logging.Logger) -> list[MemoryHandler]:
    found = [handler for handler in logger.handlers if isinstance(handler, MemoryHandler)]
    for handler in found:
        logger.removeHandler(handler)
    return found
