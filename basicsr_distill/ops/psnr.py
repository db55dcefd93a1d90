"""How much of a patch survives bicubic down- and upsampling: the score that picks training patches.

Resizing is that of :mod:`basicsr_distill.ops.bicubic`, whose matrices are used here in a form that serves one fixed
shape, forward only: prepared memory and banded products score patches of 64 to 512 px several times as fast (3.2 to
4.4 times patch by patch, on one thread), and scoring is most of what the extract stage computes. The general form stays
because it is differentiable and takes any size.
"""

import math
import threading
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from basicsr_distill.config.sections.base import PsnrMetric
from basicsr_distill.ops.bicubic import axis_matrix
from basicsr_distill.runtime.parallel import one_thread_per_operation

# ITU-R BT.601 luma of 8-bit studio range, as MATLAB's rgb2ycbcr gives it; the offset cancels in a difference.
_Y_WEIGHTS = (65.481 / 255, 128.553 / 255, 24.966 / 255)
# Pillow's convert('L'): fixed-point BT.601 of 8-bit values, 16 fractional bits, rounded.
_GREY_WEIGHTS = (19595, 38470, 7471)
# Rounding noise of the filter is far below half an 8-bit step: what is flat in the picture counts as flat.
FLAT_MSE = 1e-12
# Values turned to luma or grey at once: few enough to stay in a core's own cache.
_VALUES_AT_ONCE = 1 << 18
# LR rows computed in one step; see _Band.
_LR_ROWS = (4, 2, 1)

# A map of columns: the inputs, the weights (inputs, outputs) and the outputs of each part.
_Blocks: TypeAlias = tuple[tuple[slice, Tensor, slice], ...]


@torch.no_grad()
def psnr_after_bicubic(patches: Tensor, scale: int = 4, metric: PsnrMetric = 'matlab_rgb') -> Tensor:
    """PSNR of patches against their bicubic down- and upsampled selves, PSNR(X, up(down(X))).

    Nothing is rounded, clamped or shaved on the way. On one kind of processor and with one version of torch a patch has
    one score, to the last bit: it is computed by itself, in operations whose shapes, strides, alignment in memory and
    number of threads depend on nothing but the patch's own shape. What else is in the batch, where the patch lies in it
    and how many threads there are have no say. Another processor or version may differ by some 1e-6 dB.

    Source: Cho et al. (2025), Eq. 1.

    Args:
        patches: RGB, (N, 3, H, W), float32 in [0, 1] or uint8; H and W are multiples of ``scale``.
        scale: factor of the down- and upsampling.
        metric: ``matlab_rgb``: MATLAB's bicubic (antialiased), mean square error over the three channels.
            ``matlab_y``: the same on the luma of MATLAB's ``rgb2ycbcr``.
            ``cv2_grey``: OpenCV's INTER_CUBIC (not antialiased) on Pillow's 8-bit grey, as the authors' code does.

    Returns:
        PSNR in dB, (N,), float32, on the CPU; flat patches give ``inf``.

    >>> psnr_after_bicubic(torch.full((1, 3, 64, 64), 0.5))
    tensor([inf])
    """
    white = 1 if patches.is_floating_point() else 255
    few = max(1, _VALUES_AT_ONCE // max(1, patches[:1].numel()))
    with one_thread_per_operation():
        errors = [
            _mean_square_error(planes, scale, metric == 'cv2_grey') / white**2
            for part in patches.cpu().split(few)
            for planes in scored_planes(part, metric, white)
        ]
    # One logarithm at a time: a vectorized one may differ from it in the last bit at the end of a batch.
    return torch.tensor([math.inf if mse < FLAT_MSE else -10 * math.log10(mse) for mse in errors], dtype=torch.float32)


def scored_planes(patches: Tensor, metric: PsnrMetric, white: int) -> Tensor:
    """Return what the score compares: RGB, luma or grey, (N, C, H, W), in [0, ``white``]; uint8 only for RGB.

    Args:
        patches: as :func:`psnr_after_bicubic` takes them.
        metric: as there.
        white: their largest value.

    >>> scored_planes(torch.ones(1, 3, 4, 4), 'matlab_y', white=1).shape
    torch.Size([1, 1, 4, 4])

    For many at once: each step rounds each value once, so that no value depends on its place; ``add(alpha=)``, which
    fuses two steps in some places only, would not do.
    """
    if metric == 'matlab_rgb':
        return patches
    red, green, blue = patches.to(torch.float32).split(1, dim=1)
    if metric == 'matlab_y':
        return (red * _Y_WEIGHTS[0]).add_(green * _Y_WEIGHTS[1]).add_(blue * _Y_WEIGHTS[2])
    weighted = [
        (plane * (255 / white)).round_().to(torch.int32) * weight
        for plane, weight in zip((red, green, blue), _GREY_WEIGHTS)
    ]
    return (sum(weighted, start=torch.tensor(0x8000)) >> 16).to(torch.float32) * (white / 255)


def _mean_square_error(planes: Tensor, scale: int, cv2_grey: bool) -> float:
    """Return the mean square error of planes, (C, H, W), shrunk and enlarged."""
    key = (*planes.shape, scale, cv2_grey)
    if getattr(_kept, 'key', None) != key:
        with torch.inference_mode(False):
            _kept.key, _kept.round_trip = key, _BicubicRoundTrip(*key)
    return _kept.round_trip.mean_square_error(planes)


# Each thread keeps the memory of the last shape: fresh pages of the system cost as much as the arithmetic.
_kept = threading.local()


class _BicubicRoundTrip:
    """Shrinks and enlarges planes of one shape, again and again in the same memory."""

    def __init__(self, channels: int, height: int, width: int, scale: int, cv2_grey: bool) -> None:
        self._size = channels * height * width
        self._shrink, self._enlarge = _row_bands(height, scale, cv2_grey)
        # Image rows outermost: a map of the rows then acts on contiguous rows of all channels at once.
        values = channels * width
        self._windows, self._rows = self._shrink.input_for(height, values)
        self._planes = self._rows.view(height, channels, width).permute(1, 0, 2)
        self._shrunk = torch.empty((*self._shrink.weights.shape[:2], values))
        self._low_windows, low_rows = self._enlarge.input_for(height // scale, values)
        shrink_columns, enlarge_columns = _column_maps(width, scale, cv2_grey)
        shrunk, low_rows = self._shrunk.view(-1, width), low_rows.view(-1, width)
        low = torch.empty((len(shrunk), width // scale))
        self._column_products = [
            *((shrunk[:, inputs], weights, low[:, outputs]) for inputs, weights, outputs in shrink_columns),
            *((low[:, inputs], weights, low_rows[:, outputs]) for inputs, weights, outputs in enlarge_columns),
        ]
        self._error = self._rows.view(*self._enlarge.weights.shape[:2], values)
        self._norms = torch.empty(height)

    def mean_square_error(self, planes: Tensor) -> float:
        """Return the mean square error of planes, (C, H, W), against what comes back."""
        self._planes.copy_(planes)
        torch.bmm(self._shrink.weights, self._windows, out=self._shrunk)
        for inputs, weights, outputs in self._column_products:
            torch.mm(inputs, weights, out=outputs)
        self._error.baddbmm_(self._enlarge.weights, self._low_windows, beta=-1)
        # Row by row first: one long sum in float32 would be off by 1e-4 dB.
        torch.linalg.vector_norm(self._rows, dim=1, out=self._norms)
        return float(np.square(self._norms.numpy(), dtype=np.float64).sum()) / self._size


@dataclass(frozen=True)
class _Band:
    """A banded map of image rows in blocks of output rows, each from one window of input rows: four times as fast as a
    sparse product, six times as fast as a dense one; borders are in the weights.
    """

    weights: Tensor  # (blocks, rows of a block, rows of a window)
    step: int  # input rows from window to window
    margin: int  # rows of zeros that the input needs before its first row

    @classmethod
    def of(cls, matrix: NDArray[np.float64], block: int) -> '_Band':
        """Cut a map (outputs, inputs) into blocks of ``block`` rows, which divides the outputs."""
        blocks = len(matrix) // block
        step = matrix.shape[1] // blocks
        used = [np.flatnonzero(rows.any(axis=0)) for rows in matrix.reshape(blocks, block, -1)]
        margin = max(0, *(number * step - int(columns[0]) for number, columns in enumerate(used)))
        length = margin + max(int(columns[-1]) + 1 - number * step for number, columns in enumerate(used))
        padded = np.zeros((len(matrix), margin + (blocks - 1) * step + length))
        padded[:, margin : margin + matrix.shape[1]] = matrix[:, : padded.shape[1] - margin]
        weights = np.stack(
            [
                padded[number * block : (number + 1) * block, number * step : number * step + length]
                for number in range(blocks)
            ]
        )
        return cls(torch.as_tensor(weights, dtype=torch.float32), step, margin)

    def input_for(self, count: int, values: int) -> tuple[Tensor, Tensor]:
        """Memory for ``count`` input rows of ``values``: its overlapping windows, (blocks, rows of a window, values),
        and the rows alone. Its margins are zero."""
        blocks, _, length = self.weights.shape
        padded = torch.zeros((max((blocks - 1) * self.step + length, self.margin + count), values))
        windows = padded.as_strided((blocks, length, values), (self.step * values, values, 1))
        return windows, padded[self.margin : self.margin + count]


@lru_cache(maxsize=32)
def _row_bands(length: int, scale: int, cv2_grey: bool) -> tuple[_Band, _Band]:
    """The maps that shrink ``length`` image rows and enlarge them again."""
    small = length // scale
    block = next(rows for rows in _LR_ROWS if small % rows == 0)
    return _Band.of(_shrink(length, scale, cv2_grey), block), _Band.of(_enlarge(small, scale, cv2_grey), block * scale)


@lru_cache(maxsize=32)
def _column_maps(length: int, scale: int, cv2_grey: bool) -> tuple[_Blocks, _Blocks]:
    """The same for columns."""
    return _column_blocks(_shrink(length, scale, cv2_grey)), _column_blocks(_enlarge(length // scale, scale, cv2_grey))


def _column_blocks(matrix: NDArray[np.float64]) -> _Blocks:
    """A map (outputs, inputs) cut in two: half the arithmetic of the whole, and as much again to be had from more cuts
    is lost on smaller products."""
    cut = -(-len(matrix) // 2)
    blocks = []
    for outputs in (slice(0, cut), slice(cut, len(matrix))):
        used = np.flatnonzero(matrix[outputs].any(axis=0))
        if used.size:
            inputs = slice(int(used[0]), int(used[-1]) + 1)
            blocks.append((inputs, torch.tensor(matrix[outputs, inputs].T, dtype=torch.float32).contiguous(), outputs))
    return tuple(blocks)


def _shrink(length: int, scale: int, cv2_grey: bool) -> NDArray[np.float64]:
    if cv2_grey:  # OpenCV's own resizing of the unit vectors
        return cv2.resize(np.eye(length), (length, length // scale), interpolation=cv2.INTER_CUBIC)
    return axis_matrix(length, scale, up=False)


def _enlarge(length: int, scale: int, cv2_grey: bool) -> NDArray[np.float64]:
    if cv2_grey:
        return cv2.resize(np.eye(length), (length, length * scale), interpolation=cv2.INTER_CUBIC)
    return axis_matrix(length, scale, up=True)
