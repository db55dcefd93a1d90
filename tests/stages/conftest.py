"""A folder of small photographs, and what two runs of a stage are compared by."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage.data
from numpy.typing import NDArray


@pytest.fixture(scope='session')
def tree_digests() -> Callable[[Path], dict[str, str]]:
    """SHA-256 of every file below a folder, by relative path."""

    def digests(folder: Path) -> dict[str, str]:
        return {
            str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(folder.rglob('*'))
            if path.is_file()
        }

    return digests


@pytest.fixture(scope='session')
def photos() -> dict[str, NDArray[np.uint8]]:
    """Photographs of several sizes, by file name, in the order of a sorted search."""
    return {
        'a/astronaut.png': skimage.data.astronaut()[:300, 100:430],
        'a/chelsea.png': skimage.data.chelsea()[20:220, 60:330],
        'b/rocket.png': skimage.data.rocket()[100:228, 250:378],
        'coffee.png': skimage.data.coffee()[40:250, 150:460],
    }


@pytest.fixture
def photo_folder(tmp_path: Path, photos: dict[str, NDArray[np.uint8]]) -> Path:
    """Those photographs on disk."""
    for name, rgb in photos.items():
        path = tmp_path / 'photos' / name
        path.parent.mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(path), rgb[..., ::-1])
    return tmp_path / 'photos'
