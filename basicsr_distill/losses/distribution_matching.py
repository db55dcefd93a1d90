"""The two terms of GSDD, synthetic images like the real ones and unlike each other, and the features they compare."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def distribution_distance(real: Tensor, synthetic: Tensor) -> Tensor:
    """||mean of the real features - mean of the synthetic ones||^2, of one label.

    Source: Zhao and Bilen (2023), "Dataset Condensation with Distribution Matching", Eq. 4; GSDD (Zhang et al., AAAI
    2024).

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


def random_features(seed: int, width: int = 128, depth: int = 3) -> nn.Module:
    """Return a frozen convolutional network with random weights, the same for the same seed on every machine.

    ``depth`` times convolution 3x3, instance norm, ReLU and mean over 2x2; then means over a 4x4 grid.

    Source: the embedding of Zhao and Bilen (2023).

    >>> random_features(seed=0, width=8)(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 128])

    Args:
        seed: of the weights.
        width: channels of every layer.
        depth: layers.

    Returns:
        Module from images (N, 3, H, W) to features (N, 16 * width); H and W are at least 2 ** (depth + 1).
    """
    generator = torch.Generator().manual_seed(seed)
    layers: list[nn.Module] = []
    channels = 3
    for _ in range(depth):
        # Without its own initialisation, which would draw from the process's generator.
        convolution = nn.utils.skip_init(nn.Conv2d, channels, width, 3, padding=1)
        with torch.no_grad():
            convolution.weight.normal_(0, (2 / (9 * channels)) ** 0.5, generator=generator)
            convolution.bias.zero_()
        layers += [convolution, nn.InstanceNorm2d(width), nn.ReLU(), nn.AvgPool2d(2)]
        channels = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(4), nn.Flatten()).requires_grad_(False).eval()
