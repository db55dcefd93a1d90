"""How much detail each place of a photograph holds, in cells of one LR pixel: what windows are looked for by."""

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from basicsr_distill.config.sections.base import PsnrMetric
from basicsr_distill.ops.bicubic import bicubic_downsample, bicubic_upsample
from basicsr_distill.ops.psnr import FLAT_MSE, scored_planes
from basicsr_distill.runtime.parallel import one_thread_per_operation

# LR rows computed at once, and LR rows beside them that have a say in them: two of each of both kernels.
_ROWS = 64
_HALO = 4


def laplacian_cells(rgb: NDArray[np.uint8], scale: int) -> NDArray[np.float32]:
    """Mean absolute Laplacian (four neighbours) of an image's grey in [0, 1], a value a cell.

    Args:
        rgb: (H, W, 3), uint8.
        scale: side of the cells, pixels; what is left over at the right and the bottom belongs to none.

    Returns:
        (H // scale, W // scale), float32.

    >>> laplacian_cells(np.full((8, 12, 3), 9, np.uint8), scale=4).tolist()
    [[0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]
    """
    # Of whole numbers, so that it is exact: zero on slopes.
    laplacian = cv2.Laplacian(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), cv2.CV_32F, ksize=1)
    return _cell_means(np.abs(laplacian), scale) / np.float32(255)


def bicubic_error_cells(rgb: NDArray[np.uint8], scale: int, metric: PsnrMetric = 'matlab_rgb') -> NDArray[np.float32]:
    """Mean square error of an image that was shrunk and enlarged again, a value a cell.

    The mean of a window's cells is the error behind its psnr_db, but for its outermost pixels: there the window is
    mirrored, and the image goes on.

    Args:
        rgb: (H, W, 3), uint8.
        scale: factor, and side of the cells, pixels.
        metric: of :func:`basicsr_distill.ops.psnr.psnr_after_bicubic`; OpenCV's grey is shrunk by MATLAB's bicubic
            here.

    Returns:
        (H // scale, W // scale), float32, of values in [0, 255]; 0 where there is nothing but rounding.

    >>> bicubic_error_cells(np.full((9, 12, 3), 9, np.uint8), scale=4).shape
    (2, 3)
    """
    rows = rgb.shape[0] // scale
    rgb = rgb[: rows * scale, : rgb.shape[1] // scale * scale]
    parts = []
    with one_thread_per_operation(), torch.inference_mode():
        for first in range(0, rows, _ROWS):
            above = max(0, first - _HALO)
            strip = np.ascontiguousarray(rgb[above * scale : (first + _ROWS + _HALO) * scale].transpose(2, 0, 1))
            planes = scored_planes(torch.from_numpy(strip)[None], metric, white=255)[0].float()
            error = planes - bicubic_upsample(bicubic_downsample(planes, scale), scale)
            squares = error.square_().mean(dim=0)[(first - above) * scale : (first - above + _ROWS) * scale]
            parts.append(_cell_means(squares.numpy(), scale))
    cells = np.concatenate(parts)
    cells[cells < 255**2 * FLAT_MSE] = 0
    return cells


def _cell_means(values: NDArray[np.float32], scale: int) -> NDArray[np.float32]:
    rows, columns = values.shape[0] // scale, values.shape[1] // scale
    return np.asarray(
        cv2.resize(values[: rows * scale, : columns * scale], (columns, rows), interpolation=cv2.INTER_AREA), np.float32
    )
