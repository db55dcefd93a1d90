"""What tests share beside fixtures."""

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

REPOSITORY = Path(__file__).parents[1]


def save_rgb(path: Path, image: NDArray[np.uint8]) -> Path:
    """Write an RGB image, making its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image[..., ::-1])
    return path
