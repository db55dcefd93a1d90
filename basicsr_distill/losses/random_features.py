"""A frozen network with random weights: features that need no pretraining."""

import torch
from torch import nn


def random_features(seed: int, width: int = 128, depth: int = 3) -> nn.Module:
    """A frozen convolutional network with random weights, the same for the same seed on every machine.

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
