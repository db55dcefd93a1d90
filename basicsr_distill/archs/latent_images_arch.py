"""``LatentImages``: small images that are themselves what is trained."""

import torch
from basicsr.utils.registry import ARCH_REGISTRY
from torch import Tensor, nn


@ARCH_REGISTRY.register()
class LatentImages(nn.Module):
    """As many low-resolution images for every label, each a parameter of the network.

    Args:
        num_labels: labels are 0 ... num_labels - 1.
        images_per_label: images of each.
        size_px: side of an image; a generator makes ``scale`` times as much of it.
    """

    def __init__(self, num_labels: int, images_per_label: int, size_px: int) -> None:
        super().__init__()
        self.images = nn.Parameter(torch.full((num_labels, images_per_label, 3, size_px, size_px), 0.5))

    def forward(self, label: int) -> Tensor:
        """The images of a label, (images_per_label, 3, size_px, size_px), float32, RGB, about [0, 1]."""
        return self.images[label]
