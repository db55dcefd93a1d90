"""Where the windows of an image lie, what their files are called, and which images make a part of the work."""

import re
import unicodedata
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from basicsr_distill.config.sections.extract import BestWindows, ExtractOptions
from basicsr_distill.ops.loss_maps import bicubic_error_cells, laplacian_cells
from basicsr_distill.selection.windows import best_windows, grid_windows, poisson_windows
from basicsr_distill.stages.sharding import own_parts

_IMAGES_PER_PART = 32


def place_windows(options: ExtractOptions, rgb: NDArray[np.uint8], relative: str) -> NDArray[np.int32]:
    """Return top and left of the windows of an image, (N, 2), pixels.

    Args:
        options: of the stage.
        rgb: (H, W, 3), uint8, at least ``patch_size`` on each side.
        relative: its path; with ``seed`` it decides a random draw, whatever other images there are.
    """
    size, windows = options.patch_size, options.windows
    height, width = rgb.shape[:2]
    if windows is None:
        return grid_windows(height, width, size, options.stride or size)
    if isinstance(windows, BestWindows):
        cells = (
            laplacian_cells(rgb, options.scale)
            if windows.by == 'laplacian'
            else bicubic_error_cells(rgb, options.scale, options.metric)
        )
        return best_windows(cells, size // options.scale, windows.max_overlap) * options.scale
    rng = np.random.default_rng([options.seed, zlib.crc32(relative.encode('utf-8', 'surrogateescape'))])
    return poisson_windows(height, width, size, windows.min_distance or size, options.scale, rng)


def crop(rgb: NDArray[np.uint8], place: NDArray[np.int32], size: int) -> NDArray[np.uint8]:
    """A window's pixels, (size, size, 3), a view."""
    top, left = place.tolist()
    return rgb[top : top + size, left : left + size]


def reduced(rgb: NDArray[np.uint8], factor: float) -> NDArray[np.uint8]:
    """An image shrunk by a factor of 1 or more, antialiased bicubic, (H, W, 3), uint8."""
    if factor == 1:
        return rgb
    height, width = (max(1, round(side / factor)) for side in rgb.shape[:2])
    return np.array(Image.fromarray(rgb).resize((width, height), Image.Resampling.BICUBIC))


def patch_name(relative: str, index: int, top: int, left: int) -> str:
    """File name of a patch: unique by the number of its image, readable by the image's own name made plain ASCII."""
    stem = unicodedata.normalize('NFKD', Path(relative).stem).encode('ascii', 'ignore').decode()
    stem = re.sub(r'[^A-Za-z0-9]+', '-', stem).strip('-')[:40]
    return f'{stem or "image"}_{index:06d}_t{top:05d}_l{left:05d}.png'


def own_images(count: int) -> list[tuple[int, Sequence[int]]]:
    """This rank's parts of the numbers of ``count`` images, each with its own number."""
    return own_parts(range(count), _IMAGES_PER_PART)


def num_parts(count: int) -> int:
    """Parts that ``count`` images make on all ranks."""
    return -(-count // _IMAGES_PER_PART)
