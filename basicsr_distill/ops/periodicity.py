"""Periodic patterns: halftone screens, moire, and rows of small type."""

import cv2
import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from scipy.fft import fft2, fftfreq, fftshift

_SEGMENT_PX = 64
# Cycles a pixel: what repeats more slowly are tiles, windows and fences, which photographs are full of.
_LEAST_FREQUENCY = 0.12
# Bins of the spectrum: what lies nearer to a peak is its own skirt, what lies farther no surroundings.
_SKIRT, _REACH = 2, 6


def periodic_peak_db(grey: NDArray[np.uint8]) -> float:
    """Height of the highest peak of the power spectrum over its surroundings.

    The spectrum is the mean of those of segments of 64 px under Hann's window, half overlapping (Welch). The
    surroundings of a frequency are the mean level in decibels around it, or along the row or the column of frequencies
    that it lies in, whichever is highest: straight edges draw lines through the spectrum, which are no peaks.
    Frequencies below 0.12 cycles a pixel do not count.

    Args:
        grey: (H, W), uint8.

    Returns:
        dB, 0 or more; 0 for an image smaller than a segment.

    >>> x = np.arange(128)
    >>> screen = 127 + 60 * np.sin(2 * np.pi * x / 5)[:, None] * np.sin(2 * np.pi * x / 5)
    >>> noise = np.random.default_rng(0).normal(0, 10, (128, 128))
    >>> periodic_peak_db((screen + noise).clip(0, 255).astype(np.uint8)) > 20
    True
    """
    if min(grey.shape) < _SEGMENT_PX:
        return 0.0
    step = _SEGMENT_PX // 2
    segments = sliding_window_view(grey, (_SEGMENT_PX, _SEGMENT_PX))[::step, ::step].astype(np.float32)
    segments = (segments - segments.mean(axis=(2, 3), keepdims=True)) * _HANN
    power = np.square(np.abs(fft2(segments))).mean(axis=(0, 1))
    level = np.pad(10 * np.log10(fftshift(power) + 1e-6), _REACH, mode='wrap').astype(np.float32)
    whole, skirt = 2 * _REACH + 1, 2 * _SKIRT + 1
    around = np.max(
        [
            _mean_between(level, (whole, whole), (skirt, skirt)),
            _mean_between(level, (whole, 1), (skirt, 1)),
            _mean_between(level, (1, whole), (1, skirt)),
        ],
        axis=0,
    )
    return float(max(0.0, (level - around)[_REACH:-_REACH, _REACH:-_REACH][_COUNTED].max()))


def _mean_between(level: NDArray[np.float32], outer: tuple[int, int], inner: tuple[int, int]) -> NDArray[np.float32]:
    """Mean of what lies within the outer and not within the inner box around each value; boxes are wide and high."""
    sums = [cv2.boxFilter(level, -1, box, normalize=False) for box in (outer, inner)]
    return np.asarray((sums[0] - sums[1]) / (outer[0] * outer[1] - inner[0] * inner[1]), np.float32)


_HANN = np.outer(*[np.hanning(_SEGMENT_PX + 1)[:-1].astype(np.float32)] * 2)
_COUNTED = np.hypot(*np.meshgrid(*[fftshift(fftfreq(_SEGMENT_PX))] * 2)) >= _LEAST_FREQUENCY
