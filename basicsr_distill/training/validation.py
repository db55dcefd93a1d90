"""Validation that a metric cannot end: BasicSR's own, with the image and the metric named that fail."""

from collections.abc import Iterator
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
    image: str = ''
    failures: dict[str, list[str]] = field(default_factory=dict)  # metric -> 'image (reason)'

    def fail(self, metric: str, error: Exception) -> None:
        """Note that a metric could not be computed of the image at hand."""
        self.failures.setdefault(metric, []).append(f'{self.image or "an image"} ({type(error).__name__}: {error})')

    def describe(self) -> Iterator[str]:
        """A clause for each metric that failed."""
        for name, images in self.failures.items():
            more = f' and {len(images) - 1} more' if len(images) > 1 else ''
            yield f'{name} on {self.dataset} cannot be computed for {images[0]}{more}'


class WatchedMetric(dict[str, Any]):
    """The section of a metric in the options, whose failures are noted instead of raised."""

    def __init__(self, name: str, section: dict[str, Any], measurement: Measurement) -> None:
        super().__init__(section)
        self.name = name
        self.measurement = measurement

    def calculate(self, calculate: Any, data: dict[str, Any]) -> Any:
        """Return the metric's value, or NaN where it raises: then the mean is NaN and never the best."""
        try:
            return calculate(data, dict(self))
        except _NOT_THE_METRICS:
            raise
        except Exception as error:  # whatever the metric trips over
            self.measurement.fail(self.name, error)
            return float('nan')


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
    measurement = Measurement(loader.dataset.opt['name'])
    state, section = capture_rng(), model.opt.get('val') or {}
    metrics = section.get('metrics')
    if metrics:
        section['metrics'] = {name: WatchedMetric(name, metric, measurement) for name, metric in metrics.items()}
    try:
        model.validation(WatchedImages(loader, measurement), iteration, tb_logger, opt['val']['save_img'])
    except Exception:
        if measurement.image:
            get_root_logger().error('Validation on %s failed at %s.', measurement.dataset, measurement.image)
        raise
    finally:
        if metrics:
            section['metrics'] = metrics
        restore_rng(state)
    return measurement
