"""Memory for values in between: fresh pages of the system cost more than the arithmetic on them."""

import math
import threading

import numpy as np
from numpy.typing import NDArray

_kept = threading.local()


def scratch(count: int, *shape: int, use: str = '') -> list[NDArray[np.float32]]:
    """Arrays of this shape, float32, of undefined content, that lie where those of the last call lay.

    They are a thread's own, and good until its next call for the same use.

    >>> first, second = scratch(2, 3, 4)
    >>> first.shape, np.shares_memory(first, second), np.shares_memory(first, scratch(1, 12)[0])
    ((3, 4), False, True)
    """
    size = math.prod(shape)
    memory: NDArray[np.float32] = getattr(_kept, f'for_{use}', np.empty(0, np.float32))
    if memory.size < count * size:
        memory = np.empty(count * size, np.float32)
        setattr(_kept, f'for_{use}', memory)
    return [memory[number * size : (number + 1) * size].reshape(shape) for number in range(count)]
