"""Pictures that explain a stage's result."""

import base64
import io
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from numpy.typing import NDArray

from basicsr_distill.io.files import replacing
from basicsr_distill.io.images import write_png

# Okabe and Ito's colours, apart for most colour-blind readers.
COLOURS = ('#0072B2', '#E69F00', '#009E73', '#CC79A7', '#D55E00', '#56B4E9', '#F0E442', '#000000')


def save_psnr_histogram(path: Path, psnr_db: NDArray[np.float32], threshold_db: float, metric: str) -> None:
    """Histogram of patch scores with the threshold, as PNG.

    Args:
        path: of the picture.
        psnr_db: finite scores, (N,).
        threshold_db: patches to its left were candidates.
        metric: name of the score.
    """
    figure = Figure(figsize=(6, 3.2))
    axes = figure.add_axes((0.11, 0.16, 0.86, 0.8))
    axes.stairs(*np.histogram(psnr_db, bins=60), fill=True, color='#B0B7BF')
    axes.axvline(threshold_db, color=COLOURS[4], label=f'threshold {threshold_db:.2f} dB')
    axes.axvline(
        float(np.median(psnr_db)), color=COLOURS[0], linestyle='--', label=f'median {np.median(psnr_db):.2f} dB'
    )
    axes.set_xlabel(f'PSNR after bicubic down and up ({metric}), dB')
    axes.set_ylabel('patches')
    axes.legend(frameon=False, loc='upper left')
    _save(figure, path)


def save_feature_map(path: Path, positions: NDArray[np.float64], labels: NDArray[np.int64]) -> None:
    """Scatter plot of features reduced to two dimensions, coloured by cluster.

    Args:
        path: of the picture.
        positions: (N, 2).
        labels: (N,), from 0.
    """
    figure = Figure(figsize=(6, 5), layout='constrained')
    axes = figure.add_subplot()
    for label in np.unique(labels).tolist():
        members = positions[labels == label]
        axes.scatter(
            members[:, 0],
            members[:, 1],
            s=6,
            linewidths=0,
            color=COLOURS[label % len(COLOURS)],
            marker='ov^sD'[label // len(COLOURS) % 5],
            label=f'{label} ({len(members)})',
        )
    axes.set_xlabel('first principal component of the features')
    axes.set_ylabel('second')
    axes.legend(title='cluster (size)', frameon=False, fontsize='small', loc='center left', bbox_to_anchor=(1, 0.5))
    _save(figure, path)


def save_montage(path: Path, rows: Sequence[Sequence[NDArray[np.uint8]]], gap_px: int = 4) -> None:
    """Pictures of equal size in rows, on white; shorter rows end early.

    Args:
        path: of the PNG.
        rows: pictures, (H, W, 3), uint8.
        gap_px: white space between them.
    """
    height, width, _ = rows[0][0].shape
    columns = max(len(row) for row in rows)
    canvas = np.full((len(rows) * (height + gap_px) - gap_px, columns * (width + gap_px) - gap_px, 3), 255, np.uint8)
    for row, pictures in enumerate(rows):
        for column, picture in enumerate(pictures):
            top, left = row * (height + gap_px), column * (width + gap_px)
            canvas[top : top + height, left : left + width] = picture
    write_png(path, canvas)


def _save(figure: Figure, path: Path) -> None:
    with replacing(path) as temp:
        FigureCanvasAgg(figure).print_png(temp)


def as_svg(figure: Figure) -> str:
    """The figure as an SVG document whose bytes depend on nothing but its content."""
    file = io.StringIO()
    with matplotlib.rc_context({'svg.hashsalt': 'basicsr_distill'}):
        FigureCanvasSVG(figure).print_svg(file, metadata={'Date': None})
    return file.getvalue()


def data_uri(data: bytes, kind: str) -> str:
    """What an ``img`` of a page can show without a request."""
    return f'data:{kind};base64,{base64.b64encode(data).decode()}'
