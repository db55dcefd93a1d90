"""What limits would keep: every measure of a sample of the photographs, as quantiles."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from basicsr_distill.config.sections.extract import ExtractOptions
from basicsr_distill.errors import InputError
from basicsr_distill.io.images import FoundImage, UnreadableImageError, find_images, read_rgb
from basicsr_distill.runtime import distributed
from basicsr_distill.runtime.parallel import default_workers, one_thread_per_operation, ordered_map
from basicsr_distill.runtime.progress import progress
from basicsr_distill.stages.extract.filters import SOURCE_MEASURES, WINDOW_MEASURES
from basicsr_distill.stages.extract.layout import crop, place_windows, reduced
from basicsr_distill.stages.extract.scores import file_scores
from basicsr_distill.stages.extract.scoring import score_windows

SHARES = (0.5, 0.75, 0.95)
# Photographs that are measured at most, evenly chosen: their quantiles are known to two per cent.
_MOST_IMAGES = 1000
# Measures whose small values are the bad ones.
_AT_LEAST = frozenset({'source_filters.min_side', 'source_filters.grey'})


def suggest(options: ExtractOptions) -> None:
    """Print limits for every filter and for the threshold, each by itself; nothing is written.

    Raises:
        InputError: no photograph can be used.
    """
    if not distributed.is_main():
        return
    images = find_images([Path(root) for root in options.dataroot])
    sample = images[:: max(1, -(-len(images) // _MOST_IMAGES))]
    with one_thread_per_operation(), progress(len(sample), 'extract: measure', 'image') as bar:
        measured = []
        for found in ordered_map(partial(_measure, options), sample, options.num_workers or default_workers()):
            bar.update()
            if found is not None:
                measured.append(found)
    if not measured:
        raise InputError(
            f'{" and ".join(options.dataroot)}: none of the {len(sample)} images can be used; '
            f'extract.patch_size is {options.patch_size}.'
        )
    of_images = {f'source_filters.{name}': np.array([image[name] for image, _ in measured]) for name in SOURCE_MEASURES}
    of_images |= {f'scores.{name}': column[~np.isnan(column)] for name, column in file_scores(options, sample).items()}
    of_windows = {name: np.concatenate([windows[name] for _, windows in measured]) for name in measured[0][1]}
    finite = of_windows['threshold'][np.isfinite(of_windows['threshold'])]
    wanted = {f'scores.{entry.name}': entry.min is not None for entry in options.scores or ()}
    count = sum(windows['threshold'].size for _, windows in measured)
    print(
        f'limits of extract that would keep a share of {len(measured)} photographs or {count} windows of '
        f'{" and ".join(options.dataroot)},\neach by itself:\n'
    )
    print('\n'.join(suggestions(of_images | of_windows | {'threshold': finite}, wanted)))


def suggestions(measures: Mapping[str, NDArray[np.floating]], at_least: Mapping[str, bool]) -> list[str]:
    """A table of limits, a line a measure.

    >>> print('\\n'.join(suggestions({'source_filters.noise': np.arange(101.0)}, {})))
                            keeps:      50 %      75 %      95 %
    source_filters.noise.max              50        75        95

    Args:
        measures: by their key in the section, (N,).
        at_least: measures of which small values are bad, beyond those where that is always so.
    """
    lines = [f'{"keeps:":>30}{"".join(f"{100 * share:8.0f} %" for share in SHARES)}']
    for name, values in measures.items():
        low = at_least.get(name, name in _AT_LEAST)
        key = name if name == 'threshold' else f'{name}.{"min" if low else "max"}'
        limits = [np.quantile(values, 1 - share if low else share) for share in SHARES] if values.size else []
        lines.append(f'{key:<30}{"".join(f"{limit:10.3g}" for limit in limits)}')
    return lines


def _measure(
    options: ExtractOptions, image: FoundImage
) -> tuple[dict[str, float], dict[str, NDArray[np.float32]]] | None:
    """Every measure of a photograph and of its windows; None where it cannot be used."""
    try:
        rgb = read_rgb(image.path)
    except UnreadableImageError:
        return None
    small = reduced(rgb, options.reduce or 1)
    if min(small.shape[:2]) < options.patch_size:
        return None
    places = place_windows(options, small, image.relative)
    windows: Sequence[NDArray[np.uint8]] = [crop(small, place, options.patch_size) for place in places]
    psnr_db = score_windows([small], [places], options.patch_size, options.scale, options.metric)[0]
    values = {
        f'window_filters.{name}': np.array([measure(window) for window in windows], np.float32)
        for name, measure in WINDOW_MEASURES.items()
    }
    return {name: measure(rgb) for name, measure in SOURCE_MEASURES.items()}, values | {'threshold': psnr_db}
