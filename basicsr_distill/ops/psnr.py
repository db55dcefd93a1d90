"""How much of a patch survives bicubic down- and upsampling: the score that picks training patches."""

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

from basicsr_distill.config.sections import PsnrMetric
from basicsr_distill.ops.bicubic import axis_matrix

# ITU-R BT.601 luma of 8-bit studio range, as MATLAB's rgb2ycbcr gives it; the offset cancels in a difference.
_Y_WEIGHTS = (65.481 / 255, 128.553 / 255, 24.966 / 255)
# Pillow's convert('L'): fixed-point BT.601 of 8-bit values, 16 fractional bits, rounded.
_GREY_WEIGHTS = (19595, 38470, 7471)


# Values filtered at once on a CPU. An eighth of it would stay in a core's own cache and be faster in one thread; but
# several threads wait for Python's lock between operations, which costs them more.
VALUES_AT_ONCE = 1 << 21
# LR rows computed together; see _Band.
_LR_ROWS = (4, 2, 1)

# A map of columns: the inputs, the weights (inputs, outputs) and the outputs of each part.
_Blocks: TypeAlias = tuple[tuple[slice, Tensor, slice], ...]


@torch.no_grad()
def psnr_after_bicubic(patches: Tensor, scale: int = 4, metric: PsnrMetric = 'matlab_rgb') -> Tensor:
    """PSNR of patches against their bicubic down- and upsampled selves, PSNR(X, up(down(X))).

    Nothing is rounded, clamped or shaved on the way.

    Source: Cho et al. (2025), Eq. 1.

    Args:
        patches: RGB, (N, 3, H, W), float32 in [0, 1] or uint8; H and W are multiples of ``scale``.
        scale: factor of the down- and upsampling.
        metric: ``matlab_rgb``: MATLAB's bicubic (antialiased), mean square error over the three channels.
            ``matlab_y``: the same on the luma of MATLAB's ``rgb2ycbcr``.
            ``cv2_grey``: OpenCV's INTER_CUBIC (not antialiased) on Pillow's 8-bit grey, as the authors' code does.

    Returns:
        PSNR in dB, (N,), float32; flat patches give ``inf``.
    """
    white = 1 if patches.is_floating_point() else 255
    x = _planes(patches, metric, white)
    height, width = x.shape[-2:]
    planes = x.reshape(-1, height, width)
    chunk = max(1, VALUES_AT_ONCE // (height * width)) if x.device.type == 'cpu' else len(planes)
    errors = torch.cat([_mean_square_error(part, scale, metric == 'cv2_grey') for part in planes.split(chunk)])
    mse = errors.view(x.shape[:2]).mean(dim=1) / white**2
    # Rounding noise of the filter is far below half an 8-bit step: what is flat in the picture counts as flat.
    return torch.where(mse < 1e-12, torch.inf, -10 * torch.log10(mse))


def _planes(patches: Tensor, metric: PsnrMetric, white: float) -> Tensor:
    """What the score compares: RGB, luma or grey, (N, C, H, W), in [0, ``white``]; uint8 only for RGB."""
    if metric == 'matlab_rgb':
        return patches
    red, green, blue = patches.to(torch.float32).split(1, dim=1)
    if metric == 'matlab_y':
        return (red * _Y_WEIGHTS[0]).add_(green, alpha=_Y_WEIGHTS[1]).add_(blue, alpha=_Y_WEIGHTS[2])
    weighted = [(plane * (255 / white)).round_().to(torch.int32) * weight
                for plane, weight in zip((red, green, blue), _GREY_WEIGHTS)]
    return (sum(weighted, start=torch.tensor(0x8000)) >> 16).to(torch.float32) * (white / 255)


def _mean_square_error(planes: Tensor, scale: int, cv2_grey: bool) -> Tensor:
    """What shrinking and enlarging loses of every plane, (N, H, W) -> (N,)."""
    count, height, width = planes.shape
    shrink, enlarge = _row_bands(height, scale, cv2_grey, planes.device)
    shrink_columns, enlarge_columns = _column_maps(width, scale, cv2_grey, planes.device)
    # Image rows outermost: a map of the rows then acts on contiguous rows of all planes at once.
    values = count * width
    padded, rows = shrink.input_for(height, values, planes.device)
    rows.view(height, count, width).copy_(planes.permute(1, 0, 2))
    shrunk = _scratch('shrunk', (*shrink.weights.shape[:2], values), planes.device)
    torch.bmm(shrink.weights, shrink.windows(padded, values), out=shrunk)
    low = _scratch('low', (shrunk.numel() // width, width // scale), planes.device)
    _map_columns(shrunk.view(-1, width), shrink_columns, low)
    padded, low_rows = enlarge.input_for(height // scale, values, planes.device)
    _map_columns(low, enlarge_columns, low_rows.view(-1, width))
    blocks, block = enlarge.weights.shape[:2]
    error = rows.view(blocks, block, -1).baddbmm_(enlarge.weights, enlarge.windows(padded, values), beta=-1)
    # Row by row first: one long sum in float32 would be off by 1e-4 dB.
    return torch.linalg.vector_norm(error.view(height, count, width), dim=2).square_().mean(dim=0) / width


def _map_columns(x: Tensor, blocks: _Blocks, out: Tensor) -> None:
    for inputs, weights, outputs in blocks:
        torch.mm(x[:, inputs], weights, out=out[:, outputs])


_kept = threading.local()


def _scratch(name: str, shape: tuple[int, ...], device: torch.device) -> Tensor:
    """Memory of float32 for one step of the work, with what the last call left in it.

    On a CPU each thread keeps its own: fresh pages of the system cost twice the arithmetic.
    """
    if device.type != 'cpu':
        return torch.empty(shape, device=device)
    size = math.prod(shape)
    memory: Tensor | None = getattr(_kept, name, None)
    if memory is None or memory.numel() < size:
        with torch.inference_mode(False):
            memory = torch.empty(size)
        setattr(_kept, name, memory)
    return memory[:size].view(shape)


@dataclass(frozen=True)
class _Band:
    """A banded map of image rows in blocks of output rows, each from one window of input rows: four times as fast as a
    sparse product, six times as fast as a dense one.

    weights: (blocks, rows of a block, rows of a window).  name: of its input's memory.  step: input rows from window to
    window.  margin: rows of zeros that the input needs before its first row; borders are in the weights.
    """

    weights: Tensor
    name: str
    step: int
    margin: int

    @classmethod
    def of(cls, name: str, matrix: NDArray[np.float64], block: int, device: torch.device) -> '_Band':
        """Cut a map (outputs, inputs) into blocks of ``block`` rows, which divides the outputs."""
        blocks = len(matrix) // block
        step = matrix.shape[1] // blocks
        used = [np.flatnonzero(rows.any(axis=0)) for rows in matrix.reshape(blocks, block, -1)]
        margin = max(0, *(number * step - int(columns[0]) for number, columns in enumerate(used)))
        length = margin + max(int(columns[-1]) + 1 - number * step for number, columns in enumerate(used))
        padded = np.zeros((len(matrix), margin + (blocks - 1) * step + length))
        padded[:, margin:margin + matrix.shape[1]] = matrix[:, :padded.shape[1] - margin]
        weights = np.stack([padded[number * block:(number + 1) * block, number * step:number * step + length]
                            for number in range(blocks)])
        # A tensor born under inference_mode could never take part in a later backward pass.
        with torch.inference_mode(False):
            return cls(torch.as_tensor(weights, dtype=torch.float32, device=device), name, step, margin)

    def input_for(self, count: int, values: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Memory for ``count`` input rows of ``values``: with its margins, which are zero, and the rows alone."""
        total = max((len(self.weights) - 1) * self.step + self.weights.shape[2], self.margin + count)
        padded = _scratch(self.name, (total, values), device)
        padded[:self.margin] = 0
        padded[self.margin + count:] = 0
        return padded, padded[self.margin:self.margin + count]

    def windows(self, padded: Tensor, values: int) -> Tensor:
        """The overlapping windows of such memory, (blocks, rows of a window, values); nothing is copied."""
        return padded.as_strided((len(self.weights), self.weights.shape[2], values), (self.step * values, values, 1))


@lru_cache(maxsize=32)
def _row_bands(length: int, scale: int, cv2_grey: bool, device: torch.device) -> tuple[_Band, _Band]:
    """The maps that shrink ``length`` image rows and enlarge them again."""
    small = length // scale
    together = next(rows for rows in _LR_ROWS if small % rows == 0)
    return (_Band.of('rows', _shrink(length, scale, cv2_grey), together, device),
            _Band.of('low_rows', _enlarge(small, scale, cv2_grey), together * scale, device))


@lru_cache(maxsize=32)
def _column_maps(length: int, scale: int, cv2_grey: bool, device: torch.device) -> tuple[_Blocks, _Blocks]:
    """The same for columns."""
    return (_column_blocks(_shrink(length, scale, cv2_grey), device),
            _column_blocks(_enlarge(length // scale, scale, cv2_grey), device))


def _column_blocks(matrix: NDArray[np.float64], device: torch.device) -> _Blocks:
    """A map (outputs, inputs) cut in two: half the arithmetic of the whole, and as much again to be had from more cuts is
    lost on smaller products."""
    cut = -(-len(matrix) // 2)
    blocks = []
    for outputs in (slice(0, cut), slice(cut, len(matrix))):
        used = np.flatnonzero(matrix[outputs].any(axis=0))
        if used.size:
            inputs = slice(int(used[0]), int(used[-1]) + 1)
            with torch.inference_mode(False):
                weights = torch.as_tensor(np.ascontiguousarray(matrix[outputs, inputs].T), dtype=torch.float32, device=device)
            blocks.append((inputs, weights, outputs))
    return tuple(blocks)


def _shrink(length: int, scale: int, cv2_grey: bool) -> NDArray[np.float64]:
    if cv2_grey:  # OpenCV's own resizing of the unit vectors
        return cv2.resize(np.eye(length), (length, length // scale), interpolation=cv2.INTER_CUBIC)
    return axis_matrix(length, scale, up=False)


def _enlarge(length: int, scale: int, cv2_grey: bool) -> NDArray[np.float64]:
    if cv2_grey:
        return cv2.resize(np.eye(length), (length, length * scale), interpolation=cv2.INTER_CUBIC)
    return axis_matrix(length, scale, up=True)
