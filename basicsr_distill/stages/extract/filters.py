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
# In the order in which they are asked: what the size alone tells comes first. The arguments are the pixels and grey.
_MEASURES: dict[str, Callable[[_Pixels, NDArray[np.float32]], float]] = {
    'min_side': lambda rgb, grey: float(min(rgb.shape[:2])),
    'aspect': lambda rgb, grey: max(rgb.shape[:2]) / min(rgb.shape[:2]),
    'grey': lambda rgb, grey: float(np.mean(np.ptp(rgb, axis=2))),
    'blockiness': lambda rgb, grey: blockiness(grey),
    'noise': lambda rgb, grey: float(np.mean([noise_sigma(channel) for channel in cv2.split(rgb)])),
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

    def measure(self, rgb: _Pixels) -> NDArray[np.float32]:
        """What the filters ask of an image, (number of filters,), float32."""
        if not self.limits:
            return np.zeros(0, np.float32)
        grey = cv2.cvtColor(rgb.astype(np.float32), cv2.COLOR_RGB2GRAY)
        return np.array([_MEASURES[name](rgb, grey) for name in self.limits], np.float32)

    def refuse(self, measures: NDArray[np.float32]) -> tuple[str, str]:
        """Reason and detail, of the first limit in numbers that an image breaks; empty texts where it breaks none."""
        for (name, limits), value in zip(self.limits.items(), measures.tolist()):
            bounds = (limits.min if isinstance(limits.min, float) else None,
                      limits.max if isinstance(limits.max, float) else None)
            if detail := _broken(value, *bounds):
                return name, detail
        return '', ''

    def refuse_relative(self, measures: Sequence[NDArray[np.float32]]) -> list[tuple[str, str]]:
        """The same for limits that are quantiles of all images that no number has set aside."""
        table = np.array(measures, np.float32).reshape(len(measures), len(self.limits))
        answers = [('', '')] * len(measures)
        for (name, limits), values in zip(self.limits.items(), table.T):
            low, high = (threshold_db(values, bound) if isinstance(bound, str) else None
                         for bound in (limits.min, limits.max))
            for number, value in enumerate(values.tolist()):
                if not answers[number][0] and (detail := _broken(value, low, high)):
                    answers[number] = name, detail
        return answers


def _broken(value: float, low: float | None, high: float | None) -> str:
    """``31.2 over 30``; empty within the bounds."""
    if low is not None and value < low:
        return f'{value:.4g} under {low:.4g}'
    if high is not None and value > high:
        return f'{value:.4g} over {high:.4g}'
    return ''
