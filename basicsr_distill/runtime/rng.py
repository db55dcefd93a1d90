"""The random state of a process, in a form that checkpoints hold."""

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch


def capture_rng() -> dict[str, Any]:
    """The random state of this process: Python, numpy's global generator, torch on the CPU and on every GPU.

    Returns:
        Tensors, numbers and strings only, so that a file holding it loads with ``weights_only=True``.
    """
    version, words, gauss_next = random.getstate()
    numpy_state = np.random.get_state(legacy=False)
    keys = torch.from_numpy(numpy_state['state']['key'].astype(np.int64))
    state: dict[str, Any] = {
        'python': {'version': version, 'words': torch.tensor(words, dtype=torch.int64), 'gauss_next': gauss_next},
        'numpy': {
            'bit_generator': numpy_state['bit_generator'],
            'key': keys,
            'pos': int(numpy_state['state']['pos']),
            'has_gauss': int(numpy_state['has_gauss']),
            'gauss': float(numpy_state['gauss']),
        },
        'torch': torch.get_rng_state(),
    }
    if torch.cuda.is_initialized():
        state['cuda'] = torch.cuda.get_rng_state_all()
    return state


def restore_rng(state: Mapping[str, Any]) -> None:
    """Set every generator as :func:`capture_rng` found it; call it last before the loop goes on.

    Args:
        state: what :func:`capture_rng` returned, on any device. In a training state ``rng`` lists one per rank.
    """
    python, numpy = state['python'], state['numpy']
    random.setstate((python['version'], tuple(python['words'].tolist()), python['gauss_next']))
    words = {'key': numpy['key'].cpu().numpy().astype(np.uint32), 'pos': numpy['pos']}
    np.random.set_state({**numpy, 'state': words})
    torch.set_rng_state(state['torch'].cpu())
    if torch.cuda.is_available():
        for device, cuda_state in enumerate(state.get('cuda', ())[: torch.cuda.device_count()]):
            torch.cuda.set_rng_state(cuda_state.cpu(), device)
