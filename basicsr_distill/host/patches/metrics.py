"""Metrics: one that fails on an image does not end the training."""

from typing import Any

from basicsr_distill.host.patches.table import HostFunction, patch
from basicsr_distill.training.validation import WatchedMetric


@patch(
    'basicsr.metrics:calculate_metric',
    'metrics/__init__.py:10',
    'a metric that raises, as NIQE does on small images, throws away the training since the last checkpoint',
    'basicsr train -opt options/train/EDSR/train_EDSR_Mx4_DIV2K.yml, where a metric fails',
)
def _calculate_metric(original: HostFunction) -> HostFunction:
    def calculate_metric(data: dict[str, Any], opt: dict[str, Any]) -> Any:
        """The metric's value; NaN where it is watched and cannot be computed."""
        return opt.calculate(original, data) if isinstance(opt, WatchedMetric) else original(data, opt)

    return calculate_metric
