"""Filters of whole photographs: what is measured of each, and which of them a limit sets aside."""

from collections.abc import Callable, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from basicsr_distill.config.sections import FilterLimits, SourceFilterOptions
from basicsr_distill.ops.blockiness import blockiness
from basicsr_distill.ops.noise import noise_sigma
from basicsr_distill.selection.thresholds import threshold_db

_Pixels = NDArray[np.uint8]
_Bounds = tuple[float | None, float | None]
# In the order in which they are asked: what the size alone tells comes first.
_MEASURES: dict[str, Callable[[_Pixels], float]] = {
    'min_side': lambda rgb: float(min(rgb.shape[:2])),
    'aspect': lambda rgb: max(rgb.shape[:2]) / min(rgb.shape[:2]),
    'grey': lambda rgb: float(np.mean(np.ptp(rgb, axis=2))),
    'blockiness': lambda rgb: blockiness(cv2.cvtColor(rgb.astype(np.float32), cv2.COLOR_RGB2GRAY)),
    'noise': lambda rgb: float(np.mean([noise_sigma(channel) for channel in cv2.split(rgb)])),
}


class SourceFilters:
    """The filters that an option file switches on."""

    def __init__(self, options: SourceFilterOptions) -> None:
        self.limits: dict[str, FilterLimits] = {name: limits for name in _MEASURES
                                                if (limits := getattr(options, name)) is not None}

    @property
    def wait_for_all(self) -> bool:
        """Whether a limit is a quantile, which is known once every image has been measured."""
        return any(limits.is_relative for limits in self.limits.values())

    def measure(self, rgb: _Pixels) -> tuple[NDArray[np.float32], str, str]:
        """What the filters ask of an image, float32, up to the first limit in numbers that it breaks.

        Returns:
            The measures, the reason and the detail; without a reason there is a measure of every filter.
        """
        values: list[float] = []
        for name, limits in self.limits.items():
            values.append(float(np.float32(_MEASURES[name](rgb))))
            low, high = (bound if isinstance(bound, float) else None for bound in (limits.min, limits.max))
            if detail := _broken(values[-1], (low, high)):
                return np.array(values, np.float32), name, detail
        return np.array(values, np.float32), '', ''

    def refuse_relative(self, measures: Sequence[NDArray[np.float32]]) -> list[tuple[str, str]]:
        """Reason and detail of each image by the limits that are quantiles of all that no number has set aside."""
        table = np.array(measures, np.float32).reshape(len(measures), len(self.limits))
        bounds: list[_Bounds] = []
        for limits, values in zip(self.limits.values(), table.T):
            low, high = (threshold_db(values, bound) if isinstance(bound, str) else None
                         for bound in (limits.min, limits.max))
            bounds.append((low, high))
        return [next(((name, detail) for name, value, bound in zip(self.limits, row, bounds)
                      if (detail := _broken(value, bound))), ('', '')) for row in table.tolist()]


def _broken(value: float, bounds: _Bounds) -> str:
    """``31.2 over 30``; empty within the bounds."""
    low, high = bounds
    if low is not None and value < low:
        return f'{value:.4g} under {low:.4g}'
    if high is not None and value > high:
        return f'{value:.4g} over {high:.4g}'
    return ''
