"""What every choice of patches shares: its types and its refusal."""

import numpy as np
from numpy.typing import NDArray

Features = NDArray[np.float32]
Indices = NDArray[np.int64]


def check_count(count: int, available: int) -> None:
    """Refuse a count that cannot be chosen.

    >>> check_count(3, available=2)
    Traceback (most recent call last):
    ValueError: 3 patches cannot be chosen from 2

    Raises:
        ValueError: ``count`` is not between 1 and ``available``.
    """
    if not 1 <= count <= available:
        raise ValueError(f'{count} patches cannot be chosen from {available}')
