"""A large image through a network in overlapping tiles."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Span:
    """One tile along one axis, in LR pixels.

    start, stop: what the network reads.  keep_start, keep_stop: the part whose result is kept; the kept parts of all
    tiles cover the axis without overlap.

    >>> Span(start=16, stop=48, keep_start=24, keep_stop=48)
    Span(start=16, stop=48, keep_start=24, keep_stop=48)
    """

    start: int
    stop: int
    keep_start: int
    keep_stop: int


def tile_spans(length_px: int, size_px: int, overlap_px: int) -> Iterator[Span]:
    """Cut an axis into tiles that each see ``overlap_px`` beyond what is kept of them, wherever the image goes on.

    Every tile starts at a multiple of ``size_px - 2 * overlap_px``: where both are multiples of a network's attention
    window, the windows of a tile are windows of the whole image.

    >>> [(span.start, span.stop) for span in tile_spans(length_px=48, size_px=32, overlap_px=8)]
    [(0, 32), (16, 48)]

    Args:
        length_px: of the image, at least 1.
        size_px: of a tile, more than twice ``overlap_px``; the last tile may be smaller.
        overlap_px: 0 or more; a network whose output pixel depends on no input pixel further away than this gives
            exactly the result of the whole image.
    """
    step_px = size_px - 2 * overlap_px
    if step_px < 1:
        raise ValueError(f'size_px {size_px} must be more than twice overlap_px {overlap_px}')
    start, keep_start = 0, 0
    while start + size_px < length_px:
        keep_stop = start + size_px - overlap_px
        yield Span(start, start + size_px, keep_start, keep_stop)
        start, keep_start = start + step_px, keep_stop
    yield Span(start, length_px, keep_start, length_px)


def apply_in_tiles(
    network: Callable[[Tensor], Tensor], lq: Tensor, scale: int, size_px: int, overlap_px: int
) -> Tensor:
    """Super-resolve tile by tile; the memory needed is that of one tile and of the result.

    >>> lq = torch.rand(1, 3, 40, 50)
    >>> torch.equal(apply_in_tiles(lambda tile: tile, lq, scale=1, size_px=16, overlap_px=4), lq)
    True

    Args:
        network: maps (B, C, h, w) to (B, D, h * scale, w * scale).
        lq: LR images, (B, C, H, W), any size; one no larger than a tile goes through the network as it is.
        scale: of the network.
        size_px: of a tile, LR pixels, see :func:`tile_spans`.
        overlap_px: LR pixels, see :func:`tile_spans`.

    Returns:
        (B, D, H * scale, W * scale), as ``network(lq)`` up to what it draws from beyond ``overlap_px``.
    """

    def kept(row: Span, column: Span) -> Tensor:
        tile = network(lq[..., row.start : row.stop, column.start : column.stop])
        rows, columns = (
            slice((span.keep_start - span.start) * scale, (span.keep_stop - span.start) * scale)
            for span in (row, column)
        )
        return tile[..., rows, columns]

    height, width = lq.shape[-2:]
    columns = list(tile_spans(width, size_px, overlap_px))
    bands = [
        torch.cat([kept(row, column) for column in columns], dim=-1) for row in tile_spans(height, size_px, overlap_px)
    ]
    return torch.cat(bands, dim=-2)
