"""Photographs that are test images, or show the scene of one."""

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from basicsr_distill.io.images import FoundImage, decode_rgb, read_bytes
from basicsr_distill.selection.scenes import SceneIndex


class LeakIndex:
    """Test images, asked whether a photograph comes from one of them."""

    def __init__(self, tests: Sequence[FoundImage]) -> None:
        """Read the test images.

        Raises:
            UnreadableImageError: one of them cannot be read.
        """
        self._names: dict[str, str] = {}
        pictures = []
        for test in tests:
            data = read_bytes(test.path)
            self._names.setdefault(hashlib.sha256(data).hexdigest(), test.relative)
            pictures.append(decode_rgb(data, str(test.path)).rgb)
        self._scenes = SceneIndex([test.relative for test in tests], pictures)

    def find(self, sha256: str, rgb: NDArray[np.uint8]) -> str | None:
        """Say in words how a photograph comes from a test image; None where it does not.

        Args:
            sha256: of its file, hexadecimal; flat pictures are recognized by nothing else.
            rgb: its pixels, (H, W, 3), uint8.
        """
        if sha256 in self._names:
            return f'is a copy of {self._names[sha256]}'
        test = self._scenes.find(rgb)
        return None if test is None else f'shows the scene of {test}'
