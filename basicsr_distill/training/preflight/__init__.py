"""What is refused before a run touches the disk, one module a question.

``agreement`` whether sections fit one another, ``paths`` whether what they name exists and can be opened, ``images``
whether the files of the data sets can be read, paired and cropped, ``trial`` what only trying shows.
"""

from collections.abc import Mapping
from typing import Any

from basicsr_distill.config.experiment import Experiment
from basicsr_distill.training.preflight.agreement import (
    check_batch,
    check_metrics,
    check_model_and_data,
    check_schedule,
)
from basicsr_distill.training.preflight.images import check_images
from basicsr_distill.training.preflight.paths import (
    build_checked_dataset,
    check_backbones,
    check_labels,
    check_pretrained,
    check_roots,
    check_weights_given,
)
from basicsr_distill.training.preflight.trial import build_checked_model, take_first_images

__all__ = [
    'build_checked_dataset',
    'build_checked_model',
    'check_backbones',
    'check_batch',
    'check_data',
    'check_labels',
    'check_pretrained',
    'check_schedule',
    'check_sections',
]


def check_sections(experiment: Experiment) -> None:
    """Check all that needs no reading of data.

    Raises:
        InputError: names the key.
    """
    check_roots(experiment)
    check_model_and_data(experiment)
    check_metrics(experiment)
    check_weights_given(experiment)
    check_backbones(experiment)


def check_data(experiment: Experiment, datasets: Mapping[str, Any]) -> None:
    """Check all that can be checked in the data sets' files.

    Raises:
        InputError: names the file.
    """
    check_images(experiment, datasets)
    take_first_images(experiment, datasets)
