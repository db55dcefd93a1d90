"""The contact sheet of an extraction: what was kept and what was dropped, nearest to each limit first.

One HTML page that needs nothing else. A limit is chosen with the eyes: the pictures on both of its sides are shown, at
the size of their pixels where the measure is one of pixels.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from jinja2 import Environment, PackageLoader
from matplotlib.figure import Figure
from numpy.typing import NDArray

from basicsr_distill import __version__
from basicsr_distill.config.sections.extract import ExtractOptions
from basicsr_distill.errors import InputError
from basicsr_distill.io.arrays import read_arrays
from basicsr_distill.io.figures import COLOURS, as_svg, data_uri
from basicsr_distill.io.files import sha256_file, write_atomic
from basicsr_distill.io.images import FoundImage, UnreadableImageError, encode_jpeg, find_images, read_rgb
from basicsr_distill.io.manifest import IMAGES_FOLDER, MANIFEST_NAME, PatchRow, read_table
from basicsr_distill.io.score_files import read_score_file
from basicsr_distill.ops.profiles import middle
from basicsr_distill.stages.extract.filters import Bounds, SourceFilters, WindowFilters, outside, resolve
from basicsr_distill.stages.extract.layout import crop, reduced
from basicsr_distill.stages.extract.publishing import MEASURES_NAME
from basicsr_distill.stages.extract.scores import SCORES_NAME
from basicsr_distill.stages.extract.scoring import Scored, all_window_measures, unpack
from basicsr_distill.stages.record import read_stage

REPORT_NAME = 'report.html'
# Pictures on each side of a limit, and of the patches in all.
_PICTURES = 12
_PATCHES = 48
_SIDE_PX = 160
# Measures of a whole photograph, which is shown shrunk; of the others its middle, pixel by pixel.
_OF_THE_WHOLE = frozenset({'min_side', 'aspect', 'grey'})

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Picture:
    uri: str
    caption: str


@dataclass(frozen=True)
class _Limit:
    """A measure with its limits.  title: of the section.  histogram: SVG in a data URI.  dropped, kept: pictures,
    nearest to a limit first.  num_dropped: by this limit."""

    title: str
    histogram: str
    num_dropped: int
    dropped: Sequence[_Picture]
    kept: Sequence[_Picture]


def write_report(options: ExtractOptions) -> Path:
    """Write ``report.html`` into a finished extraction's folder.

    Returns:
        The page.

    Raises:
        InputError: the extraction has not finished, an earlier version made it, or its photographs are gone.
    """
    folder = Path(options.save_dir)
    record = read_stage(folder)
    if not record or not (folder / MEASURES_NAME).is_file():
        raise InputError(f'{folder}: holds no {MEASURES_NAME}; extract into another save_dir with this version first.')
    if sha256_file(folder / MEASURES_NAME) != record['outputs'].get(MEASURES_NAME):
        raise InputError(
            f'{folder / MEASURES_NAME}: is not the file that the extraction wrote; remove {folder}, and extract again.'
        )
    images = find_images([Path(root) for root in options.dataroot])
    scored = unpack(read_arrays(folder / MEASURES_NAME))
    if len(images) != len(scored):
        raise InputError(
            f'{" and ".join(options.dataroot)}: holds {len(images)} images, and {len(scored)} when they '
            'were extracted; the report needs them as they were.'
        )
    sheet = _Sheet(options, images, scored)
    content = {
        'name': folder.as_posix(),
        'version': __version__,
        'counts': {key.replace('_', ' '): count for key, count in record['counts'].items() if count},
        'sources': [*sheet.scores(folder / SCORES_NAME), *sheet.source_filters()],
        'others': sheet.other_reasons(),
        'windows': sheet.window_filters(),
        'threshold': sheet.threshold(record['threshold_db']),
        'patches': sheet.patches(read_table(folder / MANIFEST_NAME, PatchRow)),
    }
    environment = Environment(loader=PackageLoader('basicsr_distill.stages.extract', '.'), autoescape=True)
    write_atomic(folder / REPORT_NAME, environment.get_template('report.html.j2').render(content))
    log.info('extract: %s shows what was kept and dropped.', folder / REPORT_NAME)
    return folder / REPORT_NAME


class _Sheet:
    """The sections of the page."""

    def __init__(self, options: ExtractOptions, images: Sequence[FoundImage], scored: Sequence[Scored]) -> None:
        self.options = options
        self.images = images
        self.scored = scored
        self.owner = np.repeat(np.arange(len(scored)), [image.psnr_db.size for image in scored])
        self.place = np.concatenate([image.places for image in scored])
        self.window_limits = WindowFilters(options.window_filters)
        self.window_measures = all_window_measures(scored, self.window_limits)
        self.refused = self.window_limits.refused(self.window_measures)

    def scores(self, path: Path) -> list[_Limit]:
        """A section for every score of photographs."""
        limits = []
        for entry in self.options.scores or ():
            by_name = read_score_file(path, 'name', entry.name, str(path))
            values = np.array([by_name.get(image.relative, np.nan) for image in self.images], np.float32)
            bounds = resolve(entry, values[~np.isnan(values)])
            limits.append(
                self._limit(f'scores: {entry.name}', values, bounds, self._is(entry.name), self._photograph(False))
            )
        return limits

    def source_filters(self) -> list[_Limit]:
        """A section for every filter of photographs."""
        filters = SourceFilters(self.options.source_filters)
        sections = []
        for number, (name, limits) in enumerate(filters.limits.items()):
            values = np.array(
                [image.measures[number] if image.measures.size > number else np.nan for image in self.scored],
                np.float32,
            )
            # A quantile was one of the images that no limit in numbers, and nothing else, had set aside.
            whole = np.array(
                [
                    image.measures.size == len(filters.limits) and image.reason in {'', *filters.limits}
                    for image in self.scored
                ]
            )
            bounds = resolve(limits, values[whole])
            sections.append(
                self._limit(
                    f'source_filters: {name}', values, bounds, self._is(name), self._photograph(name in _OF_THE_WHOLE)
                )
            )
        return sections

    def other_reasons(self) -> dict[str, list[str]]:
        """Names and details of what was set aside for another reason than a filter or a score."""
        known = {*SourceFilters(self.options.source_filters).limits, *(s.name for s in self.options.scores or ())}
        found: dict[str, list[str]] = {}
        for image, scored in zip(self.images, self.scored):
            if scored.reason and scored.reason not in known:
                found.setdefault(scored.reason.replace('_', ' '), []).append(f'{image.relative}: {scored.detail}')
        return found

    def window_filters(self) -> list[_Limit]:
        """A section for every filter of windows."""
        measured = zip(self.window_limits.limits.items(), self.window_measures.T)
        return [
            self._limit(f'window_filters: {name}', values, resolve(limits, values), self.refused[name], self._window)
            for (name, limits), values in measured
        ]

    def threshold(self, threshold_db: float) -> _Limit:
        """The section of the threshold, among the windows that no filter drops."""
        psnr_db = np.concatenate([image.psnr_db for image in self.scored])
        passed = np.isfinite(psnr_db) & ~np.any(list(self.refused.values()), axis=0)
        values = np.where(passed, psnr_db, np.nan).astype(np.float32)
        return self._limit(
            'threshold: PSNR after bicubic down and up, dB',
            values,
            (None, threshold_db),
            values >= np.float32(threshold_db),
            self._window,
        )

    def patches(self, rows: Sequence[PatchRow]) -> list[_Picture]:
        """Patches from the hardest to the easiest, evenly chosen."""
        ordered = sorted(rows, key=lambda row: row.psnr_db)
        chosen = ordered[:: max(1, -(-len(ordered) // _PATCHES))]
        folder = Path(self.options.save_dir) / IMAGES_FOLDER
        return [_picture(_fitted(read_rgb(folder / row.name)), f'{row.psnr_db:.1f} dB, {row.source}') for row in chosen]

    def _is(self, reason: str) -> NDArray[np.bool_]:
        return np.array([image.reason == reason for image in self.scored])

    def _limit(
        self,
        title: str,
        values: NDArray[np.float32],
        bounds: Bounds,
        dropped: NDArray[np.bool_],
        show: Callable[[int, float], _Picture],
    ) -> _Limit:
        distance = np.min([np.abs(values - bound) for bound in bounds if bound is not None], axis=0)
        known = ~np.isnan(values)
        within = known & ~outside(values, bounds)
        order = np.argsort(distance, kind='stable')
        sides = [order[side[order]][:_PICTURES].tolist() for side in (dropped & known, within & ~dropped)]
        pictures = [[show(number, float(values[number])) for number in side] for side in sides]
        return _Limit(title, _histogram(values[known], bounds), int(dropped.sum()), *pictures)

    def _photograph(self, whole: bool) -> Callable[[int, float], _Picture]:
        def show(number: int, value: float) -> _Picture:
            caption = f'{value:.4g}, {self.images[number].relative}'
            try:
                rgb = read_rgb(self.images[number].path)
            except UnreadableImageError:
                return _picture(np.full((_SIDE_PX, _SIDE_PX, 3), 255, np.uint8), f'{caption} (cannot be read)')
            return _picture(_fitted(rgb) if whole else middle(rgb, most_px=_SIDE_PX), caption)

        return show

    def _window(self, number: int, value: float) -> _Picture:
        index = int(self.owner[number])
        rgb = reduced(read_rgb(self.images[index].path), self.scored[index].reduced_by)
        top, left = self.place[number].tolist()
        return _picture(
            _fitted(crop(rgb, self.place[number], self.options.patch_size)),
            f'{value:.4g}, {self.images[index].relative} at {top}, {left}',
        )


def _picture(rgb: NDArray[np.uint8], caption: str) -> _Picture:
    return _Picture(data_uri(encode_jpeg(rgb), 'image/jpeg'), caption)


def _fitted(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Shrunk to at most 160 px a side."""
    factor = min(1.0, _SIDE_PX / max(rgb.shape[:2]))
    size = [max(1, round(side * factor)) for side in rgb.shape[1::-1]]
    return np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), np.uint8)


def _histogram(values: NDArray[np.float32], bounds: Bounds) -> str:
    figure = Figure(figsize=(5.6, 1.8), layout='constrained')
    axes = figure.add_subplot()
    if values.size:
        # A few extremes would squeeze the rest into one bar.
        low, high = (float(value) for value in np.quantile(values, [0.005, 0.995]))
        shown = [bound for bound in bounds if bound is not None]
        edges = np.linspace(min(low, *shown), max(high, *shown) + 1e-6, 61)
        axes.stairs(*np.histogram(values.clip(edges[0], edges[-1]), edges), fill=True, color='#B0B7BF')
        for bound in shown:
            axes.axvline(bound, color=COLOURS[4], label=f'limit {bound:.4g}')
        axes.legend(frameon=False, fontsize='small')
    axes.set_yticks([])
    return data_uri(as_svg(figure).encode(), 'image/svg+xml')
