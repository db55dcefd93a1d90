"""Which devices a run may use."""

import logging
from typing import Literal


def resolve_num_gpu(wanted: int | Literal['auto']) -> int:
    """How many of the GPUs that an option file asks for this machine has; published files ask for some always."""
    import torch

    available = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if wanted == 'auto':
        return available
    if wanted > available:
        logging.getLogger('basicsr').warning(
            'num_gpu: %s is asked for, %d found; training on %s.',
            wanted,
            available,
            f'{available} GPU' if available else 'the CPU',
        )
    return min(wanted, available)
