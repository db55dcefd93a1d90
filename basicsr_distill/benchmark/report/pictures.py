"""The pictures of a report: strips of one place by every set, montages, and where they come from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from basicsr_distill.benchmark.cells import CELLS_FOLDER, TEST
from basicsr_distill.benchmark.results import CellResult, upsampled
from basicsr_distill.benchmark.sets import PlannedSet, images_of
from basicsr_distill.io.figures import data_uri
from basicsr_distill.io.images import encode_jpeg, find_images, read_rgb
from basicsr_distill.io.manifest import MANIFEST_NAME, SetRow, read_table
from basicsr_distill.ops.bicubic import make_lr
from basicsr_distill.training.image_names import distinct_paths

_WINDOW_PX = 96
_ENLARGED = 2
_PER_LABEL = 10
_LABELS = 8
_THUMB_PX = 72


@dataclass(frozen=True)
class Picture:
    """name, and the picture, (H, W, 3), uint8, RGB."""

    name: str
    rgb: NDArray[np.uint8]

    @property
    def uri(self) -> str:
        """As JPEG in a data URI."""
        return data_uri(encode_jpeg(self.rgb), 'image/jpeg')


@dataclass(frozen=True)
class Strip:
    """One window of a test image.  title: which.  pictures: named by what made them; LR first, HR last."""

    title: str
    pictures: Sequence[Picture]


def strip(root: Path, cells: Mapping[str, CellResult], test: str, folder: Path, scale: int) -> Strip | None:
    """The middle of the first image of a test, super-resolved after every set.

    Args:
        root: of the benchmark.
        cells: by the row's label; those whose images were kept.
        test: its name.
        folder: its HR images.
        scale: factor.

    Returns:
        None where a cell's image is missing.
    """
    images = find_images([folder])
    image, names = images[0], distinct_paths([str(found.path) for found in images])
    hr = read_rgb(image.path)
    hr = hr[: hr.shape[0] // scale * scale, : hr.shape[1] // scale * scale]
    side = min(_WINDOW_PX, *hr.shape[:2]) // scale * scale
    top, left = ((length - side) // 2 // scale * scale for length in hr.shape[:2])
    window = np.s_[top : top + side, left : left + side]
    lr = np.kron(make_lr(hr, scale), np.ones((scale, scale, 1), np.uint8))
    pictures = {'LR': lr[window], 'bicubic': upsampled(hr, scale)[window]}
    for label, result in cells.items():
        identity = result.cell.identity
        # As BasicSR names what it saves: chelsea_* would be chelsea_2's picture too.
        saved = Path('results', identity, 'visualization', test, f'{Path(names[str(image.path)]).stem}_{identity}.png')
        path = root / CELLS_FOLDER / identity / TEST / saved
        if not path.is_file():
            return None
        pictures[label] = read_rgb(path)[window]
    pictures['HR'] = hr[window]
    enlarged = [Picture(name, rgb.repeat(_ENLARGED, 0).repeat(_ENLARGED, 1)) for name, rgb in pictures.items()]
    return Strip(f'{test}: {image.path.stem}', enlarged)


def montage(planned: PlannedSet, scale: int) -> NDArray[np.uint8]:
    """The images of a set that are trained on, a row a label, as thumbnails on white."""
    paths = {path.name: path for path in images_of(planned, scale)}
    manifest = planned.folder / MANIFEST_NAME
    rows = read_table(manifest, SetRow) if manifest.is_file() and not planned.is_full else []
    groups: dict[int, list[Path]] = {}
    for row in rows:
        if row.name in paths:
            groups.setdefault(row.label, []).append(paths[row.name])
    if len(groups) < 2:  # no clusters: in the order of the set, or evenly from a large folder
        listed = list(paths.values())
        step = max(1, len(listed) // (2 * _PER_LABEL))
        chosen = listed[::step][: 2 * _PER_LABEL]
        groups = {
            number: chosen[start : start + _PER_LABEL] for number, start in enumerate(range(0, len(chosen), _PER_LABEL))
        }
    shown = [[_thumbnail(read_rgb(path)) for path in groups[label][:_PER_LABEL]] for label in sorted(groups)[:_LABELS]]
    columns = max(len(row) for row in shown)
    blank = np.full((_THUMB_PX, _THUMB_PX, 3), 255, np.uint8)
    return np.concatenate([np.concatenate([*row, *[blank] * (columns - len(row))], axis=1) for row in shown])


def some_images(planned: PlannedSet, scale: int, at_most: int) -> list[NDArray[np.uint8]]:
    """Images of a set that are trained on, evenly chosen."""
    paths = images_of(planned, scale)
    return [read_rgb(path) for path in paths[:: max(1, -(-len(paths) // at_most))]]


def side_by_side(pictures: Sequence[NDArray[np.uint8]], gap_px: int = 4) -> NDArray[np.uint8]:
    """Pictures of equal height in a row, on white."""
    gap = np.full((pictures[0].shape[0], gap_px, 3), 255, np.uint8)
    parts = [part for picture in pictures for part in (picture, gap)]
    return np.concatenate(parts[:-1], axis=1)


def _thumbnail(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    side = min(rgb.shape[:2])
    top, left = ((length - side) // 2 for length in rgb.shape[:2])
    small = cv2.resize(
        rgb[top : top + side, left : left + side], (_THUMB_PX - 4, _THUMB_PX - 4), interpolation=cv2.INTER_AREA
    )
    return np.pad(small, ((2, 2), (2, 2), (0, 0)), constant_values=255)
