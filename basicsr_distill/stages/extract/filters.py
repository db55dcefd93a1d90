"""Filters of whole photographs and of single windows: what is measured, and which of them a limit sets aside."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from basicsr_distill.config.sections.base import Options
from basicsr_distill.config.sections.extract import (
    FilterLimits,
    SourceFilterOptions,
    UpscaledLimits,
    WindowFilterOptions,
)
from basicsr_distill.ops.blockiness import blockiness_at_any_size
from basicsr_distill.ops.enlargement import enlargement_factor
from basicsr_distill.ops.noise import noise_sigma
from basicsr_distill.ops.periodicity import periodic_peak_db
from basicsr_distill.ops.profiles import middle
from basicsr_distill.ops.texture import colourfulness, flat_share, saturated_share
from basicsr_distill.selection.thresholds import threshold_db

_Pixels = NDArray[np.uint8]
_Measure = Callable[[_Pixels], float]
Bounds = tuple[float | None, float | None]


def _grey(rgb: _Pixels) -> _Pixels:
    return cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)


def _noise(rgb: _Pixels) -> float:
    # Green is half of a camera's samples and most of the luma; red and blue are interpolated, and stored at half size.
    return noise_sigma(cv2.extractChannel(rgb, 1))


# In the order in which they are asked: what the size alone tells comes first.
SOURCE_MEASURES: dict[str, _Measure] = {
    'min_side': lambda rgb: float(min(rgb.shape[:2])),
    'aspect': lambda rgb: max(rgb.shape[:2]) / min(rgb.shape[:2]),
    'grey': colourfulness,
    'blockiness': blockiness_at_any_size,
    'upscaled': lambda rgb: enlargement_factor(_grey(rgb)),
    'noise': lambda rgb: _noise(middle(rgb)),
}
WINDOW_MEASURES: dict[str, _Measure] = {
    'flat': lambda rgb: flat_share(_grey(rgb)),
    'saturated': saturated_share,
    'noise': _noise,
    'halftone': lambda rgb: periodic_peak_db(_grey(rgb)),
}


@dataclass(frozen=True)
class Verdict:
    """Of an image.  measures: of every filter that was asked, float32.  reason, detail: empty for a good one.
    enlarged: factor to reduce it by."""

    measures: NDArray[np.float32]
    reason: str = ''
    detail: str = ''
    enlarged: float = 1.0


class SourceFilters:
    """The filters of photographs that an option file switches on."""

    def __init__(self, options: SourceFilterOptions) -> None:
        self.limits = _switched_on(options, SOURCE_MEASURES)

    @property
    def wait_for_all(self) -> bool:
        """Whether a limit is a quantile, which is known once every image has been measured."""
        return any(limits.is_relative for limits in self.limits.values())

    def measure(self, rgb: _Pixels) -> Verdict:
        """Measure what the filters ask of an image, up to the first limit in numbers that it breaks.

        Args:
            rgb: (H, W, 3), uint8.
        """
        values: list[float] = []
        enlarged = 1.0
        for name, limits in self.limits.items():
            values.append(float(np.float32(SOURCE_MEASURES[name](rgb))))
            detail = _broken(values[-1], _numbers(limits))
            if detail and isinstance(limits, UpscaledLimits) and limits.reduce:
                enlarged = values[-1]
            elif detail:
                return Verdict(np.array(values, np.float32), name, detail)
        return Verdict(np.array(values, np.float32), enlarged=enlarged)

    def refuse_relative(self, measures: Sequence[NDArray[np.float32]]) -> list[tuple[str, str]]:
        """Reason and detail of each image by the limits that are quantiles of all that no number has set aside."""
        table = np.array(measures, np.float32).reshape(len(measures), len(self.limits))
        bounds = [resolve(limits, values) for limits, values in zip(self.limits.values(), table.T)]
        reduces = [isinstance(limits, UpscaledLimits) and limits.reduce for limits in self.limits.values()]
        return [
            next(
                (
                    (name, detail)
                    for name, value, bound, spared in zip(self.limits, row, bounds, reduces)
                    if not spared and (detail := _broken(value, bound))
                ),
                ('', ''),
            )
            for row in table.tolist()
        ]


class WindowFilters:
    """The filters of windows that an option file switches on."""

    def __init__(self, options: WindowFilterOptions) -> None:
        self.limits = _switched_on(options, WINDOW_MEASURES)

    def measure(self, windows: Sequence[_Pixels]) -> NDArray[np.float32]:
        """Measure what the filters ask of windows, (N, number of filters), float32.

        Args:
            windows: (size, size, 3), uint8.
        """
        values = [[WINDOW_MEASURES[name](window) for name in self.limits] for window in windows]
        return np.array(values, np.float32).reshape(len(windows), len(self.limits))

    def refused(self, measures: NDArray[np.float32]) -> dict[str, NDArray[np.bool_]]:
        """Return the mask of windows, (N,), that each filter rejects, counting each window once, for its first filter.

        A quantile is one of all windows.

        Args:
            measures: of :meth:`measure`, of all windows.
        """
        passed = np.ones(len(measures), bool)
        refused = {}
        for (name, limits), values in zip(self.limits.items(), measures.T):
            bad = outside(values, resolve(limits, values))
            refused[name] = bad & passed
            passed &= ~bad
        return refused


def refuse_by_score(limits: FilterLimits, values: NDArray[np.float32]) -> list[str]:
    """Return what is wrong with the score of each image, empty where nothing is; a quantile is of all images.

    Args:
        limits: lowest and highest score that is kept.
        values: (N,), NaN for an image without a score, which is not refused here.
    """
    bounds = resolve(limits, values[~np.isnan(values)])
    return [_broken(value, bounds) for value in values.tolist()]


def resolve(limits: FilterLimits, values: NDArray[np.float32]) -> Bounds:
    """The limits in numbers, of which quantiles are those of the values."""
    low, high = (threshold_db(values, bound) if isinstance(bound, str) else bound for bound in (limits.min, limits.max))
    return low, high


def outside(values: NDArray[np.float32], bounds: Bounds) -> NDArray[np.bool_]:
    """Return the mask of values that break a limit, (N,); NaN breaks none."""
    low, high = bounds
    return (values < (-np.inf if low is None else low)) | (values > (np.inf if high is None else high))


def _switched_on(options: Options, measures: Mapping[str, _Measure]) -> dict[str, FilterLimits]:
    return {name: limits for name in measures if (limits := getattr(options, name)) is not None}


def _numbers(limits: FilterLimits) -> Bounds:
    low, high = (bound if isinstance(bound, float) else None for bound in (limits.min, limits.max))
    return low, high


def _broken(value: float, bounds: Bounds) -> str:
    """``31.2 over 30``; empty within the bounds."""
    low, high = bounds
    if low is not None and value < low:
        return f'{value:.4g} under {low:.4g}'
    if high is not None and value > high:
        return f'{value:.4g} over {high:.4g}'
    return ''
