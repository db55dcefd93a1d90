"""The devices and the number formats that option files name."""

import logging
from typing import Literal

import torch

DTYPES: dict[str, torch.dtype] = {'fp32': torch.float32, 'bf16': torch.bfloat16, 'fp16': torch.float16}


def resolve_num_gpu(wanted: int | Literal['auto']) -> int:
    """Return how many of the GPUs that an option file asks for are here; published files ask for some always."""
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
