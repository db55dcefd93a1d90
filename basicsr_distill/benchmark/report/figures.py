"""The plots of a report; every one takes plain numbers and returns a figure."""

import io
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from basicsr_distill.benchmark.statistics import Summary
from basicsr_distill.io.figures import COLOURS

_DPI = 130
_MARKERS = 'osD^v<>P'


def plot_against_count(
    lines: Mapping[str, Mapping[int, Summary]], levels: Mapping[str, Summary], title: str, unit: str
) -> Figure:
    """Values against the number of images, with standard deviations (Fig. 1 of the paper).

    Args:
        lines: by row, by count.
        levels: rows without a count, drawn across.
        title: of the plot.
        unit: of the values.
    """
    figure = Figure(figsize=(5.6, 3.8), layout='constrained')
    axes = figure.add_subplot()
    for number, (name, points) in enumerate(lines.items()):
        counts = sorted(points)
        axes.errorbar(
            counts,
            [points[count].mean for count in counts],
            [points[count].sd for count in counts],
            color=COLOURS[number % len(COLOURS)],
            marker=_MARKERS[number % len(_MARKERS)],
            markersize=5,
            linewidth=1.3,
            capsize=3,
            label=name,
        )
    for number, (name, level) in enumerate(levels.items()):
        axes.axhline(level.mean, color='#555555', linestyle=('--', ':', '-.')[number % 3], linewidth=1.2, label=name)
        axes.axhspan(level.mean - level.sd, level.mean + level.sd, color='#555555', alpha=0.12, linewidth=0)
    axes.set_xscale('log')
    counts = sorted({count for points in lines.values() for count in points})
    axes.set_xticks(counts, [str(count) for count in counts])
    axes.minorticks_off()
    axes.set_xlabel('images')
    axes.set_ylabel(unit)
    axes.set_title(title, fontsize='medium')
    axes.legend(frameon=False, fontsize='small', loc='center left', bbox_to_anchor=(1, 0.5))
    return figure


def plot_scores(psnr_db: Mapping[str, NDArray[np.float32]]) -> Figure:
    """PSNR after bicubic down and up of the images of each set, from 5 to 95 %, with the middle half and the median."""
    figure = Figure(figsize=(5.6, 0.6 + 0.34 * len(psnr_db)), layout='constrained')
    axes = figure.add_subplot()
    for number, values in enumerate(psnr_db.values(), 1):
        low, quarter, median, three_quarters, high = np.quantile(
            values[np.isfinite(values)], (0.05, 0.25, 0.5, 0.75, 0.95)
        )
        axes.hlines(number, low, high, color='#888888', linewidth=1)
        axes.hlines(number, quarter, three_quarters, color=COLOURS[0], linewidth=7)
        axes.plot(median, number, 'o', color='white', markersize=3.5)
    axes.set_yticks(range(1, len(psnr_db) + 1), list(psnr_db))
    axes.invert_yaxis()
    axes.set_xlabel('PSNR after bicubic down and up, dB')
    return figure


def plot_spectra(spectra: Mapping[str, NDArray[np.float64]]) -> Figure:
    """Mean power at each radius of the spectrum, of each set."""
    figure = Figure(figsize=(5.6, 3.6), layout='constrained')
    axes = figure.add_subplot()
    for number, (name, power) in enumerate(spectra.items()):
        axes.plot(
            np.linspace(0, 0.5, len(power)),
            power,
            color=COLOURS[number % len(COLOURS)],
            linewidth=1.3,
            linestyle='-' if number < len(COLOURS) else '--',
            label=name,
        )
    axes.set_xlabel('frequency, cycles a pixel')
    axes.set_ylabel('power, dB')
    axes.legend(frameon=False, fontsize='small', loc='center left', bbox_to_anchor=(1, 0.5))
    return figure


def radial_spectrum(images: Sequence[NDArray[np.uint8]], bins: int = 32) -> NDArray[np.float64]:
    """Mean power of grey images under a Hann window, at each radius up to 0.5 cycles a pixel, in dB.

    White noise of variance v is flat at 10 log10(v).

    Args:
        images: (H, W, 3), uint8.
        bins: radii.

    Returns:
        (bins,), float64.
    """
    total, number = np.zeros(bins), np.zeros(bins)
    for image in images:
        grey = image.astype(np.float64).mean(axis=2)
        window = np.hanning(grey.shape[0])[:, None] * np.hanning(grey.shape[1])
        power = np.abs(np.fft.fft2((grey - grey.mean()) * window)) ** 2 / (window**2).sum()
        radius = np.hypot(*np.meshgrid(*(np.fft.fftfreq(side) for side in grey.shape), indexing='ij'))
        index = np.minimum((radius * 2 * bins).astype(int), bins)
        total += np.bincount(index.ravel(), power.ravel(), bins + 1)[:bins]
        number += np.bincount(index.ravel(), minlength=bins + 1)[:bins]
    return np.asarray(10 * np.log10(np.maximum(total / np.maximum(number, 1), 1e-12)))


def as_png(figure: Figure) -> bytes:
    """The figure as PNG."""
    figure.set_dpi(_DPI)
    file = io.BytesIO()
    FigureCanvasAgg(figure).print_png(file)
    return file.getvalue()
