"""What is refused before a run touches the disk: one module for each thing that is asked.

``components`` whether what the file names exists; ``values``, ``datasets``, ``metrics``,
``networks``, ``weights`` whether sections can work and agree with one another; ``images`` whether the files of the
datasets can be read, paired and cropped; ``trial`` what only trying shows.
"""

from collections.abc import Mapping
from typing import Any

from basicsr_distill.config.experiment import Experiment
from basicsr_distill.training.preflight.components import (
    build_checked_dataset,
    check_backbones,
    check_batch,
    check_labels,
    check_pretrained,
)
from basicsr_distill.training.preflight.datasets import check_datasets
from basicsr_distill.training.preflight.images import check_images
from basicsr_distill.training.preflight.metrics import check_metrics
from basicsr_distill.training.preflight.networks import check_agreement
from basicsr_distill.training.preflight.trial import build_checked_model, take_first_images
from basicsr_distill.training.preflight.values import check_values
from basicsr_distill.training.preflight.weights import check_weights_given

__all__ = [
    'build_checked_dataset',
    'build_checked_model',
    'check_backbones',
    'check_batch',
    'check_data',
    'check_labels',
    'check_pretrained',
    'check_sections',
]


def check_sections(experiment: Experiment) -> None:
    """All that can be checked in the option file alone.

    Raises:
        InputError: names the key.
    """
    path, opt = experiment.path, experiment.opt
    check_values(path, opt)
    check_datasets(path, opt)
    check_metrics(path, opt)
    check_agreement(path, opt)
    check_weights_given(path, opt)
    check_backbones(experiment)


def check_data(experiment: Experiment, datasets: Mapping[str, Any]) -> None:
    """All that can be checked in the datasets' files.

    Raises:
        InputError: names the file.
    """
    check_images(experiment.path, experiment.opt, datasets)
    take_first_images(experiment.path, experiment.opt, datasets)
