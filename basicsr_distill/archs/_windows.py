"""Tensor functions for window transformers; feature maps are channels-last, (B, H, W, C)."""

import torch
from torch import Tensor


def reflect_pad(x: Tensor, multiple: int, dims: tuple[int, int] = (1, 2)) -> Tensor:
    """Extend the bottom and right by periodic reflection until both sides are multiples of ``multiple``.

    Where the padding is shorter than the side this is torch's reflect padding; where it is longer the reflection goes
    back and forth, so that any size from 1x1 on can be padded to any multiple.

    Args:
        x: Tensor of any dtype.
        multiple: Wanted divisor of both sides, in pixels.
        dims: The dimensions of height and width.

    Returns:
        The padded tensor, or ``x`` itself if nothing is missing.
    """
    for dim in dims:
        size = x.shape[dim]
        missing = -size % multiple
        if missing:
            period = max(2 * (size - 1), 1)
            position = torch.arange(size, size + missing, device=x.device) % period
            x = torch.cat([x, x.index_select(dim, torch.minimum(position, period - position) % size)], dim)
    return x


def window_partition(x: Tensor, window_size: int) -> Tensor:
    """Cut maps into windows: (B, H, W, C) -> (B * nH * nW, window_size ** 2, C), both row-major."""
    b, h, w, c = x.shape
    x = x.view(b, h // window_size, window_size, w // window_size, window_size, c)
    return x.transpose(2, 3).reshape(-1, window_size**2, c)


def window_merge(windows: Tensor, window_size: int, size_px: tuple[int, int]) -> Tensor:
    """Undo `window_partition` for maps of ``size_px`` = (H, W)."""
    h, w = size_px
    x = windows.view(-1, h // window_size, w // window_size, window_size, window_size, windows.shape[-1])
    return x.transpose(2, 3).reshape(-1, h, w, windows.shape[-1])


def relative_position_index(query_size: int, key_stride: int = 1) -> Tensor:
    """Rows of a (2p - 1)^2 table of relative offsets, p = ``query_size // key_stride``.

    Queries are the tokens of a square window, keys its cells of ``key_stride`` x ``key_stride`` tokens; a query looks
    up the offset of its own cell. Stride 1 gives the index of Swin (Liu et al. 2021), stride 2 that of SRFormer.

    Returns:
        (query_size^2, p^2), int64: (i - k + p - 1) * (2p - 1) + (j - l + p - 1) for query cell (i, j) and key (k, l).
    """
    p = query_size // key_stride
    offset = torch.arange(query_size)[:, None] // key_stride - torch.arange(p) + p - 1
    index = offset[:, None, :, None] * (2 * p - 1) + offset[None, :, None, :]
    return index.reshape(query_size**2, p**2)
