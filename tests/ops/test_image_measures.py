"""Measures of images against plain loops, and against what was done to photographs."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage.data
from numpy.typing import NDArray
from PIL import Image
from scipy.fft import dctn
from support import REPOSITORY

from basicsr_distill.io.images import find_images, read_rgb
from basicsr_distill.ops.blockiness import blockiness, blockiness_at_any_size
from basicsr_distill.ops.enlargement import enlargement_factor
from basicsr_distill.ops.noise import noise_sigma
from basicsr_distill.ops.periodicity import periodic_peak_db
from basicsr_distill.ops.profiles import GridSpectrum
from basicsr_distill.ops.texture import colourfulness, flat_share, saturated_share

PHOTOS = ('astronaut', 'coffee', 'chelsea', 'rocket')
PHOTO_FOLDER = REPOSITORY / 'basicsr_distill' / 'photos'
BSDS500 = REPOSITORY.parent / 'shared' / 'data' / 'bsds500'


def grey(name: str) -> NDArray[np.float32]:
    rgb = getattr(skimage.data, name)()
    return cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY).astype(np.float32)


def variation_by_loops(image: NDArray[np.float32]) -> NDArray[np.float64]:
    rows, columns = image.shape[0] // 8, image.shape[1] // 8
    blocks = {
        (r, c): dctn(image[8 * r : 8 * r + 8, 8 * c : 8 * c + 8].astype(np.float64), norm='ortho')
        for r in range(rows)
        for c in range(columns)
    }
    found = np.zeros((8, 8))
    for i in range(8):
        for j in range(8):
            values = [
                np.sqrt(
                    (blocks[r, c - 1][i, j] + blocks[r, c + 1][i, j] - 2 * blocks[r, c][i, j]) ** 2
                    + (blocks[r - 1, c][i, j] + blocks[r + 1, c][i, j] - 2 * blocks[r, c][i, j]) ** 2
                )
                for r in range(1, rows - 1)
                for c in range(1, columns - 1)
            ]
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
    found = [
        blockiness(
            cv2.imdecode(cv2.imencode('.jpg', grey(name), [cv2.IMWRITE_JPEG_QUALITY, quality])[1], 0).astype(np.float32)
        )
        for quality in (95, 80, 60, 30)
    ]
    assert found == sorted(found) and found[0] < 30 < found[2]


def test_of_too_little_there_is_no_blockiness_and_no_noise() -> None:
    assert blockiness(np.zeros((20, 400))) == blockiness(np.full((64, 64), 7.0)) == 0
    assert noise_sigma(np.zeros((20, 400))) == 0 and noise_sigma(np.full((64, 64), 7.0)) < 1e-5


@pytest.mark.parametrize('white', [1.0, 255.0])
def test_rounding_has_no_blocks(white: float) -> None:
    """Nor has a slope, whose terms are zero in theory; the noise is what another processor's rounding may do."""
    slope = np.mgrid[:128, :128].sum(axis=0) / 254
    for image in (np.ones((128, 128)), np.full((128, 128), 7 / 255), slope):
        rounded = white * image * (1 + 2e-7 * np.random.default_rng(0).uniform(-1, 1, image.shape))
        assert blockiness(rounded.astype(np.float32)) == 0


def test_rounding_has_no_grid() -> None:
    """A slope of which every sixth column is rounded up, as vectors of another length may do."""
    slope = np.mgrid[:256, :256].sum(axis=0).astype(np.float32)
    rounded = np.where(np.arange(256) % 6 == 0, np.nextafter(slope, np.float32(np.inf)), slope)
    assert GridSpectrum(rounded, order=3, axes=(1,)).peak(0.13, 0.18)[1] < 6


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


def as_rgb(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.repeat(image[..., None], 3, axis=2)


def jpeg(image: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    return cv2.imdecode(cv2.imencode('.jpg', image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_UNCHANGED)


def resized(image: NDArray[np.uint8], factor: float, by: str) -> NDArray[np.uint8]:
    if by == 'opencv':
        return cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC)
    size = [round(side * factor) for side in image.shape[1::-1]]
    return np.array(Image.fromarray(image).resize(size, Image.Resampling[by]))


@pytest.mark.parametrize('name', ['astronaut', 'coffee', 'chelsea'])
def test_blocks_that_were_shrunk_are_found(name: str) -> None:
    image = grey(name).astype(np.uint8)
    clean, blocky = resized(image, 0.75, 'BICUBIC'), resized(jpeg(image, 30), 0.75, 'BICUBIC')
    assert blockiness_at_any_size(as_rgb(blocky)) > 2.5 * blockiness_at_any_size(as_rgb(clean))
    assert blockiness_at_any_size(as_rgb(blocky)) > 2.5 * blockiness(blocky.astype(np.float32))


def test_blockiness_of_a_large_image_is_that_of_its_middle() -> None:
    rng = np.random.default_rng(0)
    image = jpeg(cv2.GaussianBlur(rng.integers(0, 255, (1100, 1600), np.uint8), (0, 0), 2), 50)
    rows, columns = (1100 - 1024) // 2 // 8 * 8, (1600 - 1024) // 2 // 8 * 8
    expected = blockiness(image[rows : rows + 1024, columns : columns + 1024].astype(np.float32))
    assert blockiness_at_any_size(as_rgb(image)) == pytest.approx(expected, rel=1e-3) and expected > 30


@pytest.mark.parametrize('by', ['BICUBIC', 'LANCZOS', 'opencv'])
@pytest.mark.parametrize('factor', [1.5, 2, 3])
def test_the_factor_of_an_enlargement_is_found_within_a_tenth(factor: float, by: str) -> None:
    for name in PHOTOS:
        found = enlargement_factor(resized(grey(name).astype(np.uint8)[:320, :320], factor, by))
        assert found == pytest.approx(factor, rel=0.1), name


@pytest.mark.parametrize('factor', [1.25, 4 / 3, 2.5, 4])
def test_other_factors(factor: float) -> None:
    """4/3 has the frequency of the blocks of a halved JPEG, 4 has half of its samples at the second harmonic."""
    image = grey('astronaut').astype(np.uint8)[:320, :320]
    assert enlargement_factor(resized(image, factor, 'BICUBIC')) == pytest.approx(factor, rel=0.1)


@pytest.mark.parametrize('shrunk', [1, 0.75, 0.5])
@pytest.mark.parametrize('quality', [None, 30])
def test_what_was_compressed_or_shrunk_was_not_enlarged(quality: int | None, shrunk: float) -> None:
    for name in PHOTOS:
        image = grey(name).astype(np.uint8)
        image = jpeg(image, quality) if quality else image
        assert enlargement_factor(resized(image, shrunk, 'BICUBIC') if shrunk < 1 else image) == 1, name
        # Averaging leaves more of the blocks, whose period is then that of an enlargement by 4/3.
        assert enlargement_factor(cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)) == 1, name
    assert enlargement_factor(np.zeros((40, 400), np.uint8)) == 1


def test_a_blurred_image_holds_less_than_its_size() -> None:
    image = grey('astronaut').astype(np.uint8)
    found = [enlargement_factor(cv2.GaussianBlur(image, (0, 0), sigma)) for sigma in (0.3, 2, 4)]
    assert found == sorted(found) and found[0] == 1 and found[1] > 1.5


def halftoned(image: NDArray[np.uint8], period: float, angle: float) -> NDArray[np.uint8]:
    """Dots of ink on a screen of this period, pixels, and angle, degrees, as a scanner sees them."""
    y, x = np.mgrid[: image.shape[0], : image.shape[1]]
    turned = [(x * np.cos(a) + y * np.sin(a)) * 2 * np.pi / period for a in np.deg2rad([angle, angle + 90])]
    dots = image / 255 > (np.cos(turned[0]) + np.cos(turned[1])) / 4 + 0.5
    return cv2.GaussianBlur(dots.astype(np.float32) * 255, (0, 0), 0.8).astype(np.uint8)


@pytest.mark.parametrize(('period', 'angle'), [(3, 45), (4, 45), (5, 0), (6, 15), (8, 30)])
def test_screens_of_print_are_periodic_and_photographs_are_not(period: float, angle: float) -> None:
    for name in PHOTOS:
        image = grey(name).astype(np.uint8)[20:276, 60:316]
        assert periodic_peak_db(image) < 12 and periodic_peak_db(halftoned(image, period, angle)) > 16, name


def test_small_type_is_periodic_and_a_flat_area_is_not() -> None:
    page = np.full((256, 256), 245, np.uint8)
    for line in range(10, 256, 11):
        cv2.putText(
            page, 'the quick brown fox jumps over it', (2, line), cv2.FONT_HERSHEY_SIMPLEX, 0.35, 20, 1, cv2.LINE_AA
        )
    assert periodic_peak_db(page) > 14
    assert periodic_peak_db(np.full((256, 256), 9, np.uint8)) == periodic_peak_db(np.zeros((40, 400), np.uint8)) == 0


def test_no_false_alarm_on_the_photographs_at_hand() -> None:
    """None of six of the package and four of scikit-image is periodic or enlarged."""
    images = [cv2.cvtColor(read_rgb(Path(image.path)), cv2.COLOR_RGB2GRAY) for image in find_images([PHOTO_FOLDER])]
    images += [cv2.cvtColor(getattr(skimage.data, name)(), cv2.COLOR_RGB2GRAY) for name in PHOTOS]
    assert len(images) == 10
    assert max(periodic_peak_db(image) for image in images) < 14
    assert max(enlargement_factor(image) for image in images) < 1.2


@pytest.mark.skipif(not BSDS500.is_dir(), reason='no ../shared/data/bsds500')
def test_false_alarms_on_photographs() -> None:
    """Of 300: periodic over 14 dB in less than 2 %, enlarged by more than 1.2 in less than 1 %."""
    images = [cv2.cvtColor(read_rgb(Path(image.path)), cv2.COLOR_RGB2GRAY) for image in find_images([BSDS500])[:300]]
    assert np.mean([periodic_peak_db(image) > 14 for image in images]) < 0.02
    assert np.mean([enlargement_factor(image) > 1.2 for image in images]) < 0.01


def test_shares_of_a_window_against_loops() -> None:
    rng = np.random.default_rng(0)
    rgb = rng.integers(0, 256, (70, 90, 3)).astype(np.uint8)
    rgb[:32, :48] = (252, 255, 250)
    rgb[40:60, 60:80] = (0, 5, 2)
    pixels = [
        all(value >= 250 for value in pixel) or all(value <= 5 for value in pixel)
        for pixel in rgb.reshape(-1, 3).tolist()
    ]
    assert saturated_share(rgb) == pytest.approx(np.mean(pixels))
    assert colourfulness(rgb) == pytest.approx(np.mean([max(p) - min(p) for p in rgb.reshape(-1, 3).tolist()]))
    values = rgb[..., 1].copy()
    values[16:32, 64:80] = 100 + rng.integers(-1, 2, (16, 16))
    tiles = [
        values[16 * r : 16 * r + 16, 16 * c : 16 * c + 16].astype(float).std() < 2.5 for r in range(4) for c in range(5)
    ]
    assert flat_share(values) == pytest.approx(np.mean(tiles)) and 0 < np.mean(tiles) < 1
