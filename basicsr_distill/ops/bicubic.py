"""MATLAB-compatible bicubic resizing by integer factors, differentiable, for tensors of any size on any device.

Resizing one axis is a linear map, so a picture X becomes D X D^T. The maps are banded: long axes are cut into blocks,
which keeps whole photographs cheap, while a training patch is one small matrix product per axis.
"""

from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# Output samples per block: small enough that whole photographs cost little, large enough for efficient matrix products.
_BLOCK = 128


def bicubic_downsample(x: Tensor, scale: int) -> Tensor:
    """Downsample as MATLAB's ``imresize(x, 1 / scale)`` does: antialiased bicubic, mirrored borders.

    Nothing is rounded or clamped. Source: Keys (1981), a = -0.5, kernel stretched by ``scale``; equals
    ``basicsr.utils.matlab_functions.imresize``.

    >>> bicubic_downsample(torch.full((3, 7, 8), 0.5), scale=4).shape
    torch.Size([3, 2, 2])

    Args:
        x: (..., H, W), floating point, any range and any H and W.
        scale: integer factor, 1 or more.

    Returns:
        (..., ceil(H / scale), ceil(W / scale)), of the dtype of ``x`` (half precision is computed in float32).
    """
    return _resize(x, scale, up=False)


def bicubic_upsample(x: Tensor, scale: int) -> Tensor:
    """Upsample as MATLAB's ``imresize(x, scale)`` does.

    >>> bicubic_upsample(torch.full((1, 2), 0.5), scale=2).tolist()
    [[0.5, 0.5, 0.5, 0.5], [0.5, 0.5, 0.5, 0.5]]

    Args:
        x: (..., H, W), floating point, any range and any H and W.
        scale: integer factor, 1 or more.

    Returns:
        (..., H * scale, W * scale), of the dtype of ``x`` (half precision is computed in float32).
    """
    return _resize(x, scale, up=True)


def high_pass(x: Tensor, scale: int = 4) -> Tensor:
    """Return the high frequencies that bicubic resizing loses, HF(x) = x - up(down(x)); linear and differentiable.

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


def make_lr(hr: NDArray[np.uint8], scale: int) -> NDArray[np.uint8]:
    """The low-resolution partner of an image, as PNG pairs of SR training sets hold it: bicubic, rounded, clipped.

    >>> make_lr(np.full((4, 8, 3), 7, np.uint8), scale=4).tolist()
    [[[7, 7, 7], [7, 7, 7]]]

    Args:
        hr: (H, W, C), uint8.
        scale: integer factor.

    Returns:
        (ceil(H / scale), ceil(W / scale), C), uint8.
    """
    planes = torch.from_numpy(np.ascontiguousarray(hr.transpose(2, 0, 1))).float()
    lr = bicubic_downsample(planes, scale).round_().clamp_(0, 255).to(torch.uint8)
    return np.ascontiguousarray(lr.numpy().transpose(1, 2, 0))


def axis_matrix(length: int, scale: int, up: bool) -> NDArray[np.float64]:
    """The linear map that resizes one axis of ``length`` samples.

    >>> axis_matrix(8, scale=4, up=False).sum(axis=1).round(6).tolist()
    [1.0, 1.0]

    Returns:
        (ceil(length / scale), length), or (length * scale, length) for ``up``; rows sum to 1.
    """
    count = length * scale if up else -(-length // scale)
    ratio = 1 / scale if up else float(scale)
    stretch = max(ratio, 1.0)
    centres = (np.arange(count) + 0.5) * ratio - 0.5
    left = np.floor(centres - 2 * stretch).astype(np.int64)
    taps = left[:, None] + np.arange(int(np.ceil(4 * stretch)) + 2)
    weights = _cubic((centres[:, None] - taps) / stretch)
    matrix = np.zeros((count, length))
    np.add.at(matrix, (np.arange(count)[:, None], _mirror(taps, length)), weights / weights.sum(axis=1, keepdims=True))
    return matrix


def _cubic(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Keys' cubic convolution kernel with a = -0.5."""
    x = np.abs(x)
    near = 1.5 * x**3 - 2.5 * x**2 + 1
    far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return np.where(x <= 1, near, np.where(x <= 2, far, 0))


def _mirror(positions: NDArray[np.int64], length: int) -> NDArray[np.int64]:
    """Fold positions beyond the borders back, the border sample repeated, as often as short axes need."""
    positions = positions % (2 * length)
    return np.where(positions < length, positions, 2 * length - 1 - positions)


@lru_cache(maxsize=64)
def _blocks(
    length: int, scale: int, up: bool, dtype: torch.dtype, device: torch.device
) -> tuple[tuple[slice, Tensor], ...]:
    """The map of one axis in blocks of output samples: the inputs they need, and weights (outputs, inputs)."""
    matrix = axis_matrix(length, scale, up)
    blocks = []
    for first in range(0, len(matrix), _BLOCK):
        block = matrix[first : first + _BLOCK]
        used = np.flatnonzero(block.any(axis=0))
        inputs = slice(int(used[0]), int(used[-1]) + 1)
        # A tensor born under inference_mode could never take part in a later backward pass.
        with torch.inference_mode(False):
            blocks.append((inputs, torch.as_tensor(block[:, inputs], dtype=dtype, device=device)))
    return tuple(blocks)


def _resize(x: Tensor, scale: int, up: bool) -> Tensor:
    if scale < 1 or min(x.shape[-2:]) < 1:
        raise ValueError(f'A tensor of shape {tuple(x.shape)} cannot be resized by {scale}.')
    dtype = x.dtype if x.dtype == torch.float64 else torch.float32
    with torch.autocast(x.device.type, enabled=False):
        y = x.to(dtype)
        rows, columns = (_blocks(length, scale, up, dtype, x.device) for length in x.shape[-2:])
        y = _join([y[..., inputs] @ weights.mT for inputs, weights in columns], -1)
        y = _join([weights @ y[..., inputs, :] for inputs, weights in rows], -2)
        return y.to(x.dtype)


def _join(parts: list[Tensor], dim: int) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim)
