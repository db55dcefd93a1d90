"""Where the patches of an image lie, what their files are called, and which images make a part of the work."""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from basicsr_distill.stages.sharding import own_parts

_IMAGES_PER_PART = 32


@dataclass(frozen=True)
class Grid:
    """Square windows that start at multiples of the stride and lie wholly inside an image; they count row by row.

    size, stride: pixels.
    """

    size: int
    stride: int

    def shape(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of windows in an image that is at least ``size`` on each side."""
        return (height - self.size) // self.stride + 1, (width - self.size) // self.stride + 1

    def place(self, width: int, window: int) -> tuple[int, int]:
        """Top and left of a window, pixels, in an image of this width."""
        row, column = divmod(int(window), (width - self.size) // self.stride + 1)
        return row * self.stride, column * self.stride

    def crop(self, rgb: NDArray[np.uint8], window: int) -> NDArray[np.uint8]:
        """A window's pixels, (size, size, 3), a view."""
        top, left = self.place(rgb.shape[1], window)
        return rgb[top:top + self.size, left:left + self.size]


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
