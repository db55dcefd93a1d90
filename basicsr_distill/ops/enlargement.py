"""By what factor an image was enlarged."""

import numpy as np
from numpy.typing import NDArray
from scipy.fft import rfft, rfftfreq

from basicsr_distill.ops.profiles import GridSpectrum, has_room, middle

# Height of a peak that is one: photographs have up to 12, enlarged ones from 24.
_PEAK = 15.0
# What counts, as a frequency: factors from 1.22 to 5.6; below lie the fundamentals of blocks of 6 px and more.
_LEAST_FREQUENCY = 0.18
# Share of a peak's height from which others are harmonics of the same grid.
_HARMONIC = 0.6
_LEAST_FUNDAMENTAL = 12.0
# Cycles a pixel around a frequency, and how much higher samples are in the third derivative there, at least.
_NEAR = 0.005
_OF_SAMPLES = 1.45
# Grids of blocks that are looked past.
_COMBS = 3
# Decibels that the spectrum falls across half the rate of the enlarged samples, at least.
_FALL_DB = 15.0
# Power, dB, that rounding to 8 bits alone has (-10.8), with a margin.
_ROUNDING_DB = -5.0
_SEGMENT_PX = 64
# Lines that are looked at.
_EVERY = 4
# A spectrum that ends nearer to Nyquist's frequency than this says nothing.
_LEAST_FACTOR = 1.25


def enlargement_factor(grey: NDArray[np.uint8]) -> float:
    """The factor by which an image was enlarged, or how much too large it is for the detail it holds.

    An interpolated image is periodic in its second or third derivative, with the period of the samples it was made from
    (:mod:`basicsr_distill.ops.profiles`). A period of f and one of f / (f - 1) look alike; the spectrum tells them
    apart, as enlarging by more leaves less of it. Without a period the spectrum alone says where it ends in rounding:
    an image that was enlarged in another way, or is soft.

    >>> import cv2
    >>> noise = np.random.default_rng(0).integers(0, 256, (128, 128)).astype(np.uint8)
    >>> enlargement_factor(noise), enlargement_factor(cv2.resize(noise, None, fx=2, fy=2))
    (1.0, 2.0)

    Args:
        grey: (H, W), uint8.

    Returns:
        1 or more; 1 where no trace is found, or the image is smaller than 64 px.
    """
    if not has_room(grey):
        return 1.0
    pixels = middle(grey).astype(np.float32)
    spectrum_db = _spectrum_db(pixels)
    frequencies = rfftfreq(_SEGMENT_PX)
    used = frequencies[spectrum_db > _ROUNDING_DB]
    soft = 0.5 / max(float(used[-1]) if used.size else 0.0, frequencies[1])
    frequency = _sample_frequency(pixels, is_soft=soft >= _LEAST_FACTOR)
    if frequency is None:
        return soft if soft >= _LEAST_FACTOR else 1.0
    large, small = 1 / frequency, 1 / (1 - frequency)
    cutoff = 0.5 / large
    below = spectrum_db[(frequencies >= 0.5 * cutoff) & (frequencies <= 0.85 * cutoff)]
    above = spectrum_db[(frequencies >= 1.3 * cutoff) & (frequencies <= 1.8 * cutoff)]
    falls = below.mean() - above.mean() > _FALL_DB
    return float(large if falls or soft > 1.05 * small else small)


def _sample_frequency(pixels: NDArray[np.float32], is_soft: bool) -> float | None:
    """Frequency of the grid of samples, folded to at most 0.5 cycles a pixel; None without one."""
    second, third = (GridSpectrum(pixels, order) for order in (2, 3))
    found, highest = None, _PEAK
    for spectrum in (second, third):
        for _ in range(_COMBS):
            frequency, height = spectrum.peak(_LEAST_FREQUENCY)
            if height < highest:
                break
            fundamental = _of_blocks(third, frequency)
            if fundamental is None and not is_soft and _of_halved_blocks(second, third, frequency):
                fundamental = frequency
            if fundamental is None:
                # A grid of 4 samples may be strongest at its second harmonic.
                is_second = frequency > 0.45 and spectrum.at(frequency / 2) >= _HARMONIC * height
                found, highest = frequency / 2 if is_second else frequency, height
                break
            spectrum.pass_over(_harmonics(fundamental))
    return found


def _of_blocks(third: GridSpectrum, frequency: float) -> float | None:
    """The fundamental of a grid of JPEG's blocks, at whatever size, that has a harmonic at ``frequency``: it is higher
    than its harmonics in the third derivative, while the grid of samples has nothing below its own frequency."""
    height = max(_LEAST_FUNDAMENTAL, _HARMONIC * float(third.at(frequency)))
    return next(
        (
            frequency / part
            for part in (2, 3, 4)
            if frequency / part < _LEAST_FREQUENCY and third.at(frequency / part) >= height
        ),
        None,
    )


def _of_halved_blocks(second: GridSpectrum, third: GridSpectrum, frequency: float) -> bool:
    """Return whether this is the fundamental of JPEG's blocks in a halved image.

    The samples of an image enlarged by 4/3 have the same one, but they are higher by three quarters in the third
    derivative than in the second.
    """
    return bool(abs(frequency - 0.25) < _NEAR and third.at(frequency) < _OF_SAMPLES * second.at(frequency))


def _harmonics(fundamental: float) -> NDArray[np.float64]:
    return np.arange(fundamental, 0.5 + 1e-3, fundamental).clip(max=0.5)


def _spectrum_db(pixels: NDArray[np.float32]) -> NDArray[np.float64]:
    """Mean power of rows and columns, in segments under Hann's window, dB; white noise of variance v is 10 log10 v."""
    window = np.hanning(_SEGMENT_PX + 1)[:-1].astype(np.float32)
    powers = []
    for lines in (pixels[::_EVERY], pixels.T[::_EVERY]):
        for first in range(0, lines.shape[1] - _SEGMENT_PX + 1, _SEGMENT_PX // 2):
            part = lines[:, first : first + _SEGMENT_PX]
            part = (part - part.mean(axis=1, keepdims=True)) * window
            powers.append(np.mean(np.abs(rfft(part, axis=1)) ** 2, axis=0))
    return np.asarray(10 * np.log10(np.mean(powers, axis=0) / (window**2).sum() + 1e-3), np.float64)
