"""Traces that a grid leaves along the axes of an image: JPEG's blocks, and the taps of an enlargement.

Where every n-th row or column was made in another way than its neighbours, the mean size of a derivative along an axis
repeats with that period, and its spectrum has a peak (Gallagher 2005; Mahdian and Saic 2008).
"""

from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.fft import rfft

from basicsr_distill.ops.scratch import scratch

# Pixels of a side that are looked at: a grid covers the whole image.
_MOST_PX = 1024
_LEAST_PX = 64
_BINS = 2048
# Bins on either side that a peak may cover.
_WIDTH = 2
# Bins on either side that a high peak's skirt covers.
_SKIRT = 16
# Mean difference, of 255, below which a profile is rounding.
_ROUNDING = 0.05
# Median of a spectrum below which float32's rounding of the pixels alone, which depends on the processor, can make
# peaks, of 0.01; photographs have a median of 0.25 and more.
_LEAST_LEVEL = 0.05


def middle(image: NDArray[Any], multiple: int = 1, most_px: int = _MOST_PX) -> NDArray[Any]:
    """The middle of an image, at most 1024 px a side (``most_px``), from a place that is a multiple; a view.

    >>> middle(np.zeros((100, 2000), np.uint8)).shape
    (100, 1024)
    """
    top, left = (max(0, side - most_px) // 2 // multiple * multiple for side in image.shape[:2])
    return image[top : top + most_px, left : left + most_px]


class GridSpectrum:
    """The spectrum of the profile of a derivative, of rows and columns together, over its median.

    Noise alone has no value above some 10 to 12.

    >>> stripes = np.random.default_rng(0).normal(0, 20, (128, 128)) + 50 * (np.arange(128) % 4 == 0)
    >>> GridSpectrum(np.float32(stripes + stripes.T), order=1).peak(least=0.1, most=0.3)[0]
    0.25
    """

    def __init__(self, grey: NDArray[np.float32], order: int, axes: tuple[int, ...] = (0, 1)) -> None:
        """
        Args:
            grey: (H, W), at least 64 px a side.
            order: of the derivative.
            axes: along which it is taken; of several the geometric mean counts.
        """
        spectra = [_profile_spectrum(grey, order, axis) for axis in axes]
        self.values = np.asarray(np.prod(spectra, axis=0) ** (1 / len(axes)), np.float32)
        self.is_known = np.zeros(self.values.size, bool)

    def at(self, frequency: NDArray[np.float64] | float) -> NDArray[np.float32]:
        """Highest values near frequencies in [0, 0.5], cycles a pixel."""
        near = np.rint(np.asarray(frequency) * _BINS).astype(int)[..., None] + np.arange(-_WIDTH, _WIDTH + 1)
        return np.asarray(self.values[near.clip(0, _BINS // 2)].max(axis=-1))

    def peak(self, least: float, most: float = 0.5) -> tuple[float, float]:
        """Frequency, cycles a pixel, and height of the highest value between two, of those not passed over."""
        within = slice(round(least * _BINS), round(most * _BINS) + 1)
        best = within.start + int(np.where(self.is_known, 0, self.values)[within].argmax())
        return best / _BINS, 0.0 if self.is_known[best] else float(self.values[best])

    def pass_over(self, frequencies: NDArray[np.float64]) -> None:
        """Have :meth:`peak` look past what lies at these frequencies."""
        for bin_ in np.rint(frequencies * _BINS).astype(int):
            self.is_known[max(0, bin_ - _SKIRT) : bin_ + _SKIRT + 1] = True


def has_room(grey: NDArray[np.generic]) -> bool:
    """Return whether an image is large enough to be looked at, 64 px a side.

    >>> has_room(np.zeros((63, 200)))
    False
    """
    return min(grey.shape) >= _LEAST_PX


def _profile_spectrum(grey: NDArray[np.float32], order: int, axis: int) -> NDArray[np.float64]:
    """Return the spectrum of the differences along an axis, averaged along the other one."""
    taps = _TAPS[order]
    (difference,) = scratch(1, *grey.shape)
    cv2.filter2D(grey, -1, taps if axis else taps.T, dst=difference)
    np.abs(difference, out=difference)
    # A product with ones is the fastest sum.
    ones = np.ones(grey.shape[1 - axis], np.float32)
    sums = ones @ difference if axis else difference @ ones
    profile = np.log(sums.astype(np.float64) / ones.size + _ROUNDING)
    profile = profile[2:-2]  # borders are mirrored
    profile -= cv2.blur(profile[None], (9, 1))[0]
    spectrum = np.abs(rfft(profile * _hann(profile.size), _BINS))
    return np.asarray(spectrum / max(float(np.median(spectrum[_BINS // 10 :])), _LEAST_LEVEL))


_hann = lru_cache(maxsize=64)(np.hanning)
# Of the differences by order: binomial coefficients of alternating sign.
_TAPS = {order: np.diff(np.eye(order + 1), order, axis=0) for order in (1, 2, 3)}
