"""Which patches are kept: thresholds, bands, and what to say when nothing is left."""

import numpy as np
from numpy.typing import NDArray


def threshold_db(psnr_db: NDArray[np.float32], threshold: float | str) -> float:
    """The threshold in decibels.

    >>> threshold_db(np.float32([20, 22, 30, np.inf]), 'median')
    22.0

    Args:
        psnr_db: scores, (N,); infinite ones (flat patches) do not count.
        threshold: decibels, ``median``, or ``qNN``: NN per cent of the finite scores lie below it.

    Returns:
        Decibels; 0 when a quantile of nothing is asked for.
    """
    if not isinstance(threshold, str):
        return threshold
    finite = psnr_db[np.isfinite(psnr_db)]
    if not finite.size:
        return 0.0
    share = 0.5 if threshold == 'median' else float(threshold.removeprefix('q')) / 100
    # Everything must lie below the last quantile, so it is a step above the largest score.
    return float(np.nextafter(finite.max(), np.float32(np.inf)) if share == 1 else np.quantile(finite, share))


def hardest_db(psnr_db: NDArray[np.float32], share: float) -> float:
    """The score below which the hardest ``share`` of the finite scores lies; -inf for a share of 0.

    >>> hardest_db(np.float32([20, 22, 30, np.inf]), share=0.5)
    22.0
    """
    finite = psnr_db[np.isfinite(psnr_db)]
    return float(np.quantile(finite, share)) if share and finite.size else -np.inf


def histogram_text(psnr_db: NDArray[np.float32], bins: int = 8) -> str:
    """A histogram of the finite scores in one line, such as ``20-24 dB: 3, 24-28 dB: 17``.

    >>> histogram_text(np.float32([20, 22, 29, np.inf]), bins=2)
    '20-25 dB: 2, 25-30 dB: 1'
    """
    finite = psnr_db[np.isfinite(psnr_db)]
    if not finite.size:
        return f'all {psnr_db.size} patches are flat'
    edges = np.unique(np.linspace(np.floor(finite.min()), np.floor(finite.max()) + 1, bins + 1).round(1))
    counts, _ = np.histogram(finite, edges)
    return ', '.join(f'{low:g}-{high:g} dB: {count}' for low, high, count in zip(edges[:-1], edges[1:], counts))
