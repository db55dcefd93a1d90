import cv2
import numpy as np
import pytest
import skimage.data
from numpy.typing import NDArray
from scipy.fft import dctn

from basicsr_distill.selection.duplicates import NEAR_BITS, exact_fingerprint, perceptual_fingerprint, repeated


def plain_repeated(fingerprints: list[int], bits: int) -> list[bool]:
    kept: list[int] = []
    marks = []
    for fingerprint in fingerprints:
        marks.append(any(bin(fingerprint ^ other).count('1') <= bits for other in kept))
        if not marks[-1]:
            kept.append(fingerprint)
    return marks


@pytest.mark.parametrize('near', [False, True])
def test_marks_equal_a_comparison_of_all_with_all(near: bool) -> None:
    random = np.random.default_rng(0)
    bases = random.integers(0, 2**64, 40, np.uint64)
    noise = np.zeros(600, np.uint64)
    chance = random.random(600)
    for _ in range(8):  # from none to eight flipped bits, so both sides of the limit occur
        bits = np.uint64(1) << random.integers(0, 64, 600, np.uint64)
        noise ^= np.where(random.random(600) < chance, bits, np.uint64(0))
    fingerprints = bases[random.integers(0, 40, 600)] ^ noise
    expected = plain_repeated(fingerprints.tolist(), NEAR_BITS if near else 0)
    assert 0 < sum(expected) < 600
    assert repeated(fingerprints, near).tolist() == expected


def test_exact_fingerprint_changes_with_any_pixel() -> None:
    rgb = skimage.data.coffee()[:64, :64]
    changed = rgb.copy()
    changed[63, 63, 2] ^= 1
    assert exact_fingerprint(rgb) == exact_fingerprint(np.asfortranarray(rgb)) != exact_fingerprint(changed)


def test_perceptual_fingerprint_survives_what_does_not_change_the_picture() -> None:
    rgb = skimage.data.astronaut()[:256, 100:356]
    print_ = perceptual_fingerprint(rgb)
    jpeg = cv2.imdecode(cv2.imencode('.jpg', rgb, [cv2.IMWRITE_JPEG_QUALITY, 70])[1], cv2.IMREAD_COLOR)
    for same in (jpeg, cv2.resize(rgb, (128, 128), interpolation=cv2.INTER_AREA), np.uint8(rgb * 0.9 + 5)):
        assert (perceptual_fingerprint(same) ^ print_).bit_count() <= NEAR_BITS
    for other in (rgb[::-1], skimage.data.coffee()[:256, :256], skimage.data.chelsea()[:256, :256]):
        assert (perceptual_fingerprint(np.ascontiguousarray(other)) ^ print_).bit_count() > 12


def test_rounding_has_no_say_in_a_fingerprint(monkeypatch: pytest.MonkeyPatch) -> None:
    """A flat picture and a symmetric one have terms that are zero in theory."""

    def on_another_processor(grey: NDArray[np.float32]) -> NDArray[np.float64]:
        return dctn(grey, norm='ortho') + rng.uniform(-1e-3, 1e-3, grey.shape)

    rng = np.random.default_rng(0)
    monkeypatch.setattr(cv2, 'dct', on_another_processor)
    flat = np.full((64, 64, 3), 9, np.uint8)
    stripes = np.repeat(np.uint8([9, 200, 200, 9]), 16)[None, :, None].repeat(64, axis=0).repeat(3, axis=2)
    for rgb in (flat, stripes):
        assert len({perceptual_fingerprint(rgb) for _ in range(5)}) == 1
    assert perceptual_fingerprint(flat).bit_count() == 1, 'its mean'
