"""Blockiness and noise of images against plain loops and known noise."""

import cv2
import numpy as np
import pytest
import skimage.data
from numpy.typing import NDArray
from scipy.fft import dctn

from basicsr_distill.ops.blockiness import blockiness
from basicsr_distill.ops.noise import noise_sigma


def grey(name: str) -> NDArray[np.float32]:
    rgb = getattr(skimage.data, name)()
    return cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY).astype(np.float32)


def variation_by_loops(image: NDArray[np.float32]) -> NDArray[np.float64]:
    rows, columns = image.shape[0] // 8, image.shape[1] // 8
    blocks = {(r, c): dctn(image[8 * r:8 * r + 8, 8 * c:8 * c + 8].astype(np.float64), norm='ortho')
              for r in range(rows) for c in range(columns)}
    found = np.zeros((8, 8))
    for i in range(8):
        for j in range(8):
            values = [np.sqrt((blocks[r, c - 1][i, j] + blocks[r, c + 1][i, j] - 2 * blocks[r, c][i, j]) ** 2
                              + (blocks[r - 1, c][i, j] + blocks[r + 1, c][i, j] - 2 * blocks[r, c][i, j]) ** 2)
                      for r in range(1, rows - 1) for c in range(1, columns - 1)]
            found[i, j] = np.mean(values)
    return found


@pytest.mark.parametrize('quality', [None, 60])
def test_blockiness_is_its_formula(quality: int | None) -> None:
    image = grey('astronaut')[20:139, 100:243]
    if quality:
        image = cv2.imdecode(cv2.imencode('.jpg', image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], 0).astype(np.float32)
    own, shifted = variation_by_loops(image), variation_by_loops(image[4:, 4:])
    expected = (np.abs(shifted - own) / own).sum()
    assert blockiness(image) == pytest.approx(expected, rel=1e-5)
    assert blockiness(image / 255) == pytest.approx(expected, rel=1e-4)  # free of scale


@pytest.mark.parametrize('name', ['astronaut', 'coffee', 'chelsea'])
def test_blockiness_grows_as_quality_falls(name: str) -> None:
    found = [blockiness(cv2.imdecode(cv2.imencode('.jpg', grey(name), [cv2.IMWRITE_JPEG_QUALITY, quality])[1],
                                     0).astype(np.float32)) for quality in (95, 80, 60, 30)]
    assert found == sorted(found) and found[0] < 30 < found[2]


def test_of_too_little_there_is_no_blockiness_and_no_noise() -> None:
    assert blockiness(np.zeros((20, 400))) == blockiness(np.full((64, 64), 7.0)) == 0
    assert noise_sigma(np.zeros((20, 400))) == 0 and noise_sigma(np.full((64, 64), 7.0)) < 1e-6


@pytest.mark.parametrize('sigma', [2.0, 5.0, 10.0, 20.0])
def test_noise_on_a_smooth_picture_is_found_within_a_tenth(sigma: float) -> None:
    y, x = np.mgrid[:384, :512].astype(np.float32)
    smooth = 120 + 60 * np.sin(x / 90) * np.cos(y / 70)
    noisy = smooth + np.random.default_rng(3).normal(0, sigma, smooth.shape)
    assert noise_sigma(noisy) == pytest.approx(sigma, rel=0.1)


@pytest.mark.parametrize('sigma', [5.0, 10.0, 20.0])
def test_noise_on_photographs_is_found_within_a_tenth(sigma: float) -> None:
    """The median of four photographs, which have texture too."""
    found = []
    for name in ('astronaut', 'coffee', 'chelsea', 'rocket'):
        image = grey(name)
        found.append(noise_sigma(image + np.random.default_rng(4).normal(0, sigma, image.shape)))
    assert np.median(found) == pytest.approx(sigma, rel=0.1)


def test_it_is_the_estimate_of_wavelets() -> None:
    """Tile by tile scikit-image's estimate_sigma, where PyWavelets is there to make it."""
    pytest.importorskip('pywt')
    from skimage.restoration import estimate_sigma

    image = np.random.default_rng(5).normal(100, 8, (512, 512)).astype(np.float32)
    assert noise_sigma(image) == pytest.approx(estimate_sigma(image), rel=0.05)
