"""Features of several encoders as one, every encoder with an equal say."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

# Variance, as a share of the mean square, that the rounding of an encoder's float32 may leave of none.
_ROUNDING = 1e-10


def join_features(blocks: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Concatenate features after centring each block and scaling it to a total variance of 1.

    So the mean squared distance of two samples is 2 in every block, whatever its length and units, and distances within
    a block keep their proportions. Whitening every direction would not: it raises the many directions in which an
    encoder's features hardly differ, noise among them, to the rank of the few that distinguish pictures, and gives an
    encoder of 512 numbers eight times the say of one of 62.

    >>> join_features([np.float32([[0], [2]]), np.float32([[10, 0], [30, 0]])]).tolist()
    [[-1.0, -1.0, 0.0], [1.0, 1.0, 0.0]]

    Args:
        blocks: one encoder's features each, (N, D_b), float32, finite, rows in the same order. A block without variance
            (1e-10 of its mean square or less: rounding) becomes zeros.

    Returns:
        (N, sum of D_b), float32.

    Raises:
        ValueError: the blocks have different numbers of rows, or there is none.
    """
    if len({len(block) for block in blocks}) != 1:
        raise ValueError(f'blocks of {[len(block) for block in blocks]} rows cannot be joined')
    joined = np.empty((len(blocks[0]), sum(block.shape[1] for block in blocks)), np.float32)
    end = 0
    for block in blocks:
        start, end = end, end + block.shape[1]
        # numpy adds up rows one after another here, so that no number of threads changes the sums.
        mean = block.mean(0, dtype=np.float64)
        centred = joined[:, start:end]
        np.subtract(block, mean, out=centred, casting='same_kind')
        variance = float(np.einsum('nd,nd->', centred, centred, dtype=np.float64)) / len(block)
        mean_square = variance + float(np.square(mean).sum())
        centred *= np.float32(variance**-0.5 if variance > _ROUNDING * mean_square else 0)
    return joined
