"""The modes of a label's latents: where samples are pulled to."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from basicsr_distill.selection.kmeans import cluster
from basicsr_distill.selection.medoids import choose_medoids


def latent_modes(
    latents: NDArray[np.float32], count: int, seed: int, kind: Literal['centers', 'medoids'] = 'centers'
) -> NDArray[np.float32]:
    """Modes of the latents of one label, by k-means with k = count, the largest cluster first.

    Source: MGD3 (Chan-Santiago et al. 2025): the centres; the latents nearest to them are its variant.

    >>> latent_modes(np.float32([0, 2, 2, 4, 50, 51]).reshape(6, 1, 1, 1), 2, seed=0).ravel().tolist()
    [2.0, 50.5]

    Args:
        latents: (M, C, h, w).
        count: modes wanted.
        seed: of k-means.
        kind: ``centers``, the means of the clusters, or ``medoids``, the real latents nearest to them.

    Returns:
        (count, C, h, w), float32; where there are fewer latents, or fewer distinct ones, the modes begin again.
    """
    flat = latents.reshape(len(latents), -1)
    found = min(count, len(latents))
    modes = flat[choose_medoids(flat, found, seed)] if kind == 'medoids' else cluster(flat, found, seed).centers
    # As choose_medoids goes through them: image after image, patch and mode are of one cluster.
    return modes[np.arange(count) % found % len(modes)].reshape(count, *latents.shape[1:])
