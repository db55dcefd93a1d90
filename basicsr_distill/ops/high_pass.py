"""What bicubic resizing loses: the high-frequency part of a picture or a latent."""

from torch import Tensor

from basicsr_distill.ops.bicubic import bicubic_downsample, bicubic_upsample


def high_pass(x: Tensor, scale: int = 4) -> Tensor:
    """High frequencies, HF(x) = x - up(down(x)); linear and differentiable.

    Source: Cho et al. (2025), Eq. 5.

    >>> import torch
    >>> bool(high_pass(torch.full((3, 8, 8), 0.5)).abs().max() < 1e-6)
    True

    Args:
        x: (..., H, W), floating point, any range; any H and W (what upsampling adds beyond them is cut off).
        scale: factor of the bicubic down- and upsampling.

    Returns:
        Of the shape and dtype of ``x``.
    """
    height, width = x.shape[-2:]
    return x - bicubic_upsample(bicubic_downsample(x, scale), scale)[..., :height, :width]
