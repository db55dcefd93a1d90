"""What only trying shows: one image of each stock dataset is taken, and networks, losses and optimizers are built."""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from basicsr.archs import build_network
from basicsr.losses import build_loss
from basicsr.models import build_model

from basicsr_distill.config.experiment import Experiment
from basicsr_distill.errors import InputError
from basicsr_distill.training.loader import seeded
from basicsr_distill.training.preflight.datasets import STOCK

# What wrong values of options raise; anything else is a fault of the program or of the machine.
_VALUE_ERRORS = (TypeError, ValueError, KeyError, IndexError, AttributeError, AssertionError, NotImplementedError,
                 ZeroDivisionError, RuntimeError)


def take_first_images(path: Path, opt: dict[str, Any], datasets: Mapping[str, Any]) -> None:
    """Take the first image of each stock dataset as a loader will.

    Raises:
        InputError: names the dataset's section and what BasicSR says.
    """
    for name, dataset in datasets.items():
        if opt['datasets'][name]['type'] not in STOCK:
            continue
        # A copy, since a dataset keeps what it opens, and an lmdb must not be open when workers are forked.
        trial = copy.copy(dataset)
        trial.opt, trial.io_backend_opt = copy.copy(dataset.opt), dict(dataset.io_backend_opt)
        try:
            with seeded(0, 0):
                trial[0]
        except _VALUE_ERRORS as error:
            raise InputError(f'{path}: datasets.{name}: {type(dataset).__name__} cannot take its first image with these '
                             f'values ({_one_line(error)}).') from error


def build_checked_model(experiment: Experiment) -> Any:
    """BasicSR's ``build_model``.

    Raises:
        InputError: names the section whose values cannot be built.
    """
    path, opt = experiment.path, experiment.opt
    try:
        return build_model(opt)
    except torch.OutOfMemoryError:
        raise
    except _VALUE_ERRORS as error:
        raise InputError(f'{path}: {_culprit(opt)}: cannot be built with these values ({_one_line(error)}).') from error


def _culprit(opt: dict[str, Any]) -> str:
    """The section that cannot be built by itself; ``train`` where each can."""
    sections = [(key, value, build_network) for key, value in opt.items()
                if key.startswith('network_') and isinstance(value, dict)]
    sections += [(f'train.{key}', value, build_loss) for key, value in (opt.get('train') or {}).items()
                 if key.endswith('_opt') and isinstance(value, dict)]
    for key, value, build in sections:
        try:
            build(copy.deepcopy(value))
        except _VALUE_ERRORS:
            return key
    return 'train' if opt['is_train'] else opt['model_type']


def _one_line(error: Exception) -> str:
    text = ' '.join(str(error).split()) or 'no more is said'
    return f'{type(error).__name__}: {text[:200]}'
