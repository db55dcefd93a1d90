"""What tests share beside fixtures."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from basicsr_distill.config.sections import Options

REPOSITORY = Path(__file__).parents[1]


def save_rgb(path: Path, image: NDArray[np.uint8]) -> Path:
    """Write an RGB image, making its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image[..., ::-1])
    return path


def keys_of(model: type[Options], **given: Any) -> dict[str, Any]:
    """Arguments of a component whose defaults are in its section model."""
    return model(**given).model_dump(exclude={'type', 'pixel_codec'})
