"""The two terms of GSDD: synthetic images resemble the real ones on average, and their latents differ."""

import torch.nn.functional as F
from torch import Tensor


def distribution_distance(real: Tensor, synthetic: Tensor) -> Tensor:
    """||mean of the real features - mean of the synthetic ones||^2, of one label.

    Source: Zhao and Bilen (2023), "Dataset Condensation with Distribution Matching", Eq. 4; GSDD (Zhang et al., AAAI
    2024).

    >>> import torch
    >>> distribution_distance(torch.tensor([[0.0, 0.0], [2.0, 0.0]]), torch.tensor([[1.0, 3.0]])).item()
    9.0

    Args:
        real: (N, ...), of augmented images.
        synthetic: (M, ...), of images augmented in the same way.

    Returns:
        Scalar, 0 or more.
    """
    return (real.mean(0) - synthetic.mean(0)).square().sum()


def mean_pairwise_cosine(latents: Tensor) -> Tensor:
    """The mean cosine of two different latents of a label: small where they are diverse.

    Source: the regulariser of GSDD (Zhang et al., AAAI 2024).

    >>> import torch
    >>> mean_pairwise_cosine(torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 0.0]]))
    tensor(0.3333)

    Args:
        latents: (M, ...).

    Returns:
        Scalar in [-1, 1]; 0 for a single latent.
    """
    count = len(latents)
    if count == 1:
        return (latents * 0).sum()
    unit = F.normalize(latents.flatten(1), dim=1)
    # The squared sum holds every pair twice, and each latent with itself.
    total = unit.sum(0).square().sum() - unit.square().sum()
    return total / (count * (count - 1))
