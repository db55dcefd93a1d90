"""Compressed streams of PNG files: by libdeflate where the package ``deflate`` is installed, else by zlib.

Level 0 (stored) gives the same bytes with either; other levels give the same pixels, and the same bytes with the same
one.
"""

import struct
import zlib
from collections.abc import Iterator
from importlib import import_module
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

_MOST_STORED = (1 << 16) - 1
_MOST_OF_ZLIB = 9

libdeflate: ModuleType | None
try:
    libdeflate = import_module('deflate')
except ImportError:
    libdeflate = None


def compress(data: NDArray[np.uint8], level: int) -> bytes | bytearray:
    """Make a zlib stream of contiguous data.

    Args:
        data: of any shape, in C order.
        level: 0: stored; 1 (fast) to 12 (small), of which zlib takes those above 9 for 9.
    """
    if libdeflate is not None:
        return libdeflate.zlib_compress(data, level)
    view = data.data.cast('B')
    return zlib.compress(view, min(level, _MOST_OF_ZLIB)) if level else b''.join(_stored(view))


def crc32(data: bytes | bytearray, start: int = 0) -> int:
    """The checksum of PNG chunks, going on from that of what came before."""
    return zlib.crc32(data, start) if libdeflate is None else libdeflate.crc32(data, start)


def _stored(data: memoryview) -> Iterator[bytes | memoryview]:
    """Blocks as long as they may be, as libdeflate makes them; zlib makes shorter ones."""
    yield b'\x78\x01'
    for first in range(0, max(1, len(data)), _MOST_STORED):
        block = data[first : first + _MOST_STORED]
        last = first + _MOST_STORED >= len(data)
        yield struct.pack('<BHH', last, len(block), len(block) ^ _MOST_STORED)
        yield block
    yield struct.pack('>I', zlib.adler32(data))
