"""Validation that a metric cannot end: BasicSR's own, with the image and the metric named that fail."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from basicsr.utils import get_root_logger

from basicsr_distill.errors import InputError
from basicsr_distill.runtime.rng import capture_rng, restore_rng

# Faults of the machine or of the input, not of the metric.
_NOT_THE_METRICS = (InputError, OSError, MemoryError, torch.OutOfMemoryError)


@dataclass
class Measurement:
    """One data set being validated: which image is at hand, and what could not be computed."""

    dataset: str
    metrics: dict[str, Any]
    image: str = ''
    failures: dict[str, list[str]] = field(default_factory=dict)  # metric -> 'image (reason)'

    def fail(self, section: dict[str, Any], error: Exception) -> None:
        """Note that the metric of this section of the options could not be computed."""
        name = next((name for name, metric in self.metrics.items() if metric is section), section.get('type', 'metric'))
        self.failures.setdefault(name, []).append(f'{self.image or "an image"} ({type(error).__name__}: {error})')

    def describe(self) -> Iterator[str]:
        """A clause for each metric that failed."""
        for name, images in self.failures.items():
            more = f' and {len(images) - 1} more' if len(images) > 1 else ''
            yield f'{name} on {self.dataset} cannot be computed for {images[0]}{more}'


_current: list[Measurement] = []


def measured(calculate: Any, data: dict[str, Any], section: dict[str, Any]) -> Any:
    """A metric's value; during :func:`measuring` NaN where it raises: then the mean is NaN and never the best."""
    if not _current:
        return calculate(data, section)
    try:
        return calculate(data, section)
    except _NOT_THE_METRICS:
        raise
    except Exception as error:  # whatever the metric trips over
        _current[-1].fail(section, error)
        return float('nan')


@contextmanager
def measuring(measurement: Measurement) -> Iterator[None]:
    """Let metrics fail into ``measurement``."""
    _current.append(measurement)
    try:
        yield
    finally:
        _current.pop()


class WatchedImages:
    """A loader of single images that says which one is at hand."""

    def __init__(self, loader: Any, measurement: Measurement) -> None:
        self.loader = loader
        self.dataset = loader.dataset
        self.measurement = measurement

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        batches = iter(self.loader)
        while True:
            try:
                batch = next(batches)
            except StopIteration:
                return
            except InputError as error:
                raise without_worker_trace(error) from None
            paths = batch.get('lq_path') or batch.get('gt_path') or ['']
            self.measurement.image = str(paths[0])
            yield batch


def without_worker_trace(error: InputError) -> InputError:
    """From a worker process the message comes wrapped in that worker's traceback."""
    return InputError(str(error).strip().splitlines()[-1].split('Error: ', 1)[-1])


def validate(opt: dict[str, Any], model: Any, loader: Any, iteration: Any, tb_logger: Any) -> Measurement:
    """Validate on one data set without moving the generators that training draws from.

    Args:
        opt: BasicSR's dictionary.
        model: whose ``metric_results`` and best metrics are updated.
        loader: of the data set.
        iteration: number, or the name of a test.
        tb_logger: TensorBoard's, or None.

    Returns:
        What could not be computed.
    """
    measurement = Measurement(loader.dataset.opt['name'], (opt.get('val') or {}).get('metrics') or {})
    state = capture_rng()
    try:
        with measuring(measurement):
            model.validation(WatchedImages(loader, measurement), iteration, tb_logger, opt['val']['save_img'])
    except Exception:
        if measurement.image:
            get_root_logger().error('Validation on %s failed at %s.', measurement.dataset, measurement.image)
        raise
    finally:
        restore_rng(state)
    return measurement
