"""What is refused before a run touches the disk: one module for each thing that is asked.

``components`` whether what the file names exists and takes the keys given; ``values`` whether sections agree with one another;
``weights`` whether a test has any; ``images`` whether the files of the datasets can be read, paired and cropped.
"""

from basicsr_distill.training.preflight.components import (
    build_checked_dataset,
    check_backbones,
    check_batch,
    check_components,
    check_labels,
    check_pretrained,
)

__all__ = [
    'build_checked_dataset',
    'check_backbones',
    'check_batch',
    'check_components',
    'check_labels',
    'check_pretrained',
]
