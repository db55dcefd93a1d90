"""Patches chosen by a score alone: the hardest, or the highest of a list."""

import numpy as np
from numpy.typing import NDArray

from basicsr_distill.selection.choices import Indices, check_count


def choose_hardest(losses: NDArray[np.floating], count: int, skip: float = 0.05) -> Indices:
    """Choose the patches with the largest losses, without the very largest.

    Source: Moser et al. (2024, arXiv 2403.17083): the hardest part of the pool by the loss of a small network, and
    leaving out its top 5 % helps.

    >>> choose_hardest(np.array([0.1, 0.5, 0.9, 0.7]), count=2, skip=0.25).tolist()
    [3, 1]

    Args:
        losses: of the pool, (N,), finite.
        count: patches chosen.
        skip: share of the pool, largest losses first, that is left out, in [0, 1).

    Returns:
        Indices by falling loss, (count,), int64; ties in the order of the pool.

    Raises:
        ValueError: fewer than ``count`` patches remain, or a loss is not finite.
    """
    skipped = int(skip * len(losses))
    check_count(count, len(losses) - skipped)
    return choose_highest(losses, skipped + count)[skipped:]


def choose_highest(scores: NDArray[np.floating], count: int) -> Indices:
    """Choose the patches with the highest scores.

    >>> choose_highest(np.array([1.0, 3.0, 2.0, 3.0]), count=3).tolist()
    [1, 3, 2]

    Args:
        scores: of the pool, (N,), finite.
        count: patches chosen.

    Returns:
        Indices by falling score, (count,), int64; ties in the order of the pool.

    Raises:
        ValueError: ``count`` exceeds N, or a score is not finite.
    """
    check_count(count, len(scores))
    if not np.isfinite(scores).all():
        raise ValueError(f'the score of patch {int((~np.isfinite(scores)).argmax())} is not finite')
    return np.argsort(-scores, kind='stable')[:count].astype(np.int64)
