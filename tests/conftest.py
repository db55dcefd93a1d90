"""What every test shares: one thread, no network, and real photographs."""

import os

os.environ.setdefault('OMP_NUM_THREADS', '1')
os.environ.setdefault('HF_HUB_OFFLINE', '1')

from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage.data
import torch
from numpy.typing import NDArray
from support import save_rgb

import basicsr_distill  # noqa: F401  (prepares BasicSR's import for every test module)

torch.set_num_threads(1)
cv2.setNumThreads(1)


@pytest.fixture(scope='session')
def astronaut() -> NDArray[np.uint8]:
    """A photograph, (512, 512, 3), uint8, RGB."""
    return skimage.data.astronaut()


@pytest.fixture(scope='session')
def chelsea() -> NDArray[np.uint8]:
    """A photograph, (300, 451, 3), uint8, RGB."""
    return skimage.data.chelsea()


@pytest.fixture
def hr_folder(tmp_path: Path, astronaut: NDArray[np.uint8]) -> Path:
    """Eight 64x64 crops of a photograph, as PNG."""
    for number in range(8):
        top, left = divmod(number * 56, 448)
        save_rgb(tmp_path / 'HR' / f'{number:02d}.png', astronaut[top + 100 : top + 164, left : left + 64])
    return tmp_path / 'HR'
