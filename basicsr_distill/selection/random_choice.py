"""Patches chosen at random: from all, from those under a threshold, from a band of scores, or from every cluster alike.

All of them thin out one permutation of the pool, which the seed fixes, so that the choices nest.
"""

import numpy as np
from numpy.typing import NDArray

from basicsr_distill.selection.choices import Indices, check_count
from basicsr_distill.selection.thresholds import threshold_db


def choose_random(num_patches: int, count: int, seed: int) -> Indices:
    """Patches drawn without replacement, all with the same chance.

    >>> choose_random(10, 3, seed=0).tolist() == choose_random(10, 5, seed=0)[:3].tolist()
    True

    Returns:
        Indices in the order drawn, (count,), int64, each once.

    Raises:
        ValueError: ``count`` exceeds ``num_patches``.
    """
    check_count(count, num_patches)
    return _permutation(num_patches, seed)[:count]


def choose_under_threshold(psnr_db: NDArray[np.float32], threshold: float | str, count: int, seed: int) -> Indices:
    """Patches drawn from those whose score lies below a threshold.

    Source: the "threshold crop" row of Cho et al. (2025).

    >>> choose_under_threshold(np.float32([20, 30, 21, 31]), 25.0, count=2, seed=0).tolist()
    [2, 0]

    Args:
        psnr_db: PSNR after bicubic of the pool, (N,), dB; flat patches have ``inf``.
        threshold: decibels, ``median`` or ``qNN``, see :func:`~basicsr_distill.selection.thresholds.threshold_db`.
        count: patches chosen.
        seed: of the draw.

    Returns:
        Indices in the order drawn, (count,), int64, each once.

    Raises:
        ValueError: fewer than ``count`` patches lie below the threshold.
    """
    return _draw_from(psnr_db < threshold_db(psnr_db, threshold), count, seed)


def in_band(psnr_db: NDArray[np.float32], low: float, high: float) -> NDArray[np.bool_]:
    """Mark the scores between two quantiles of the finite ones, both ends included.

    >>> in_band(np.float32([20, 21, 22, 23, np.inf]), 0.3, 0.7).tolist()
    [False, True, True, False, False]

    Args:
        psnr_db: (N,), dB; infinite scores (flat patches) are outside any band.
        low: quantile in [0, 1]: share of hardest patches left out.
        high: quantile in [0, 1], above ``low``.

    Returns:
        (N,), bool.
    """
    finite = np.isfinite(psnr_db)
    if not finite.any():
        return finite
    ends = np.quantile(psnr_db[finite].astype(np.float64), (low, high))
    return finite & (psnr_db >= ends[0]) & (psnr_db <= ends[1])


def choose_in_band(psnr_db: NDArray[np.float32], low: float, high: float, count: int, seed: int) -> Indices:
    """Patches drawn from a band of scores: hard ones without the hardest, which hurt.

    Source: for leaving out the hardest 5 %, Moser et al. (2024, arXiv 2403.17083).

    >>> choose_in_band(np.float32([20, 21, 22, 23, np.inf]), 0.3, 0.7, count=2, seed=0).tolist()
    [2, 1]

    Args:
        psnr_db: PSNR after bicubic of the pool, (N,), dB.
        low: quantile, see :func:`in_band`.
        high: quantile, see :func:`in_band`.
        count: patches chosen.
        seed: of the draw.

    Returns:
        Indices in the order drawn, (count,), int64, each once.

    Raises:
        ValueError: fewer than ``count`` patches lie in the band.
    """
    return _draw_from(in_band(psnr_db, low, high), count, seed)


def choose_per_cluster(labels: NDArray[np.int64], count: int, seed: int) -> Indices:
    """An equal share of every cluster, drawn at random within it.

    The clusters take turns, from label 0 on; one that has no patch left is passed over, so that the others fill up.

    Source: DCSR (Ding et al., IEEE SPL 2023).

    >>> labels = np.array([0, 0, 0, 1, 1, 2])
    >>> labels[choose_per_cluster(labels, count=5, seed=0)].tolist()
    [0, 1, 2, 0, 1]

    Args:
        labels: cluster of every patch, (N,), int64, from 0.
        count: patches chosen.
        seed: of the draw.

    Returns:
        Indices in the order of the turns, (count,), int64, each once.

    Raises:
        ValueError: a label between 0 and the largest has no patch, or ``count`` exceeds N.
    """
    check_count(count, len(labels))
    sizes = np.bincount(labels)
    if not sizes.all():
        raise ValueError(f'cluster {int(sizes.argmin())} is empty')
    drawn = _permutation(len(labels), seed)
    by_label = drawn[np.argsort(labels[drawn], kind='stable')]
    turn = np.arange(len(labels)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return by_label[np.argsort(turn, kind='stable')][:count]


def _permutation(num_patches: int, seed: int) -> Indices:
    return np.random.Generator(np.random.PCG64(seed)).permutation(num_patches).astype(np.int64)


def _draw_from(allowed: NDArray[np.bool_], count: int, seed: int) -> Indices:
    check_count(count, int(allowed.sum()))
    drawn = _permutation(len(allowed), seed)
    return drawn[allowed[drawn]][:count]
