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
from basicsr_distill.training.loader import generators_put_back, seed_generators
from basicsr_distill.training.preflight.datasets import STOCK
from basicsr_distill.training.preflight.networks import SR_MODELS

_TRIED_PX = (17, 19)
# What wrong values of options raise; anything else is a fault of the program or of the machine.
_VALUE_ERRORS = (
    TypeError,
    ValueError,
    KeyError,
    IndexError,
    AttributeError,
    AssertionError,
    NotImplementedError,
    ZeroDivisionError,
    RuntimeError,
)


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
            with generators_put_back():
                seed_generators(0, 0)
                trial[0]
        except _VALUE_ERRORS as error:
            raise InputError(
                f'{path}: datasets.{name}: {type(dataset).__name__} cannot take its first image with these '
                f'values ({_one_line(error)}).'
            ) from error


def build_checked_model(experiment: Experiment) -> Any:
    """BasicSR's ``build_model``, and one look at what the network makes of an image.

    Raises:
        InputError: names the section whose values cannot be built, or that the network does not do what ``scale`` says.
    """
    path, opt = experiment.path, experiment.opt
    try:
        model = build_model(opt)
    except torch.OutOfMemoryError:
        raise
    except _VALUE_ERRORS as error:
        raise InputError(f'{path}: {_culprit(opt)}: cannot be built with these values ({_one_line(error)}).') from error
    if opt['model_type'] in SR_MODELS:
        _try_network(path, opt, model)
    return model


def _try_network(path: Path, opt: dict[str, Any], model: Any) -> None:
    """Once as validation does, on an image of odd sides, and once on a training patch."""
    channels = 1 if any(section.get('color') == 'y' for section in opt['datasets'].values()) else 3
    scale = opt.get('scale', 4)  # the default of DistilledPatchDataset
    crop = opt['datasets'].get('train', {}).get('gt_size') or opt.get('gt_size')
    try:
        model.lq = torch.zeros(1, channels, *_TRIED_PX, device=model.device)
        model.test()
        shapes = [(_TRIED_PX, model.output.shape)]
        del model.lq, model.output
        if opt['is_train'] and isinstance(crop, int):
            side = crop // scale
            model.net_g.eval()
            with torch.no_grad():
                patch = torch.zeros(1, channels, side, side, device=model.device)
                shapes.append(((side, side), model.net_g(patch).shape))
            model.net_g.train()
    except torch.OutOfMemoryError:
        raise
    except _VALUE_ERRORS as error:
        raise InputError(
            f'{path}: network_g: {opt["network_g"]["type"]} cannot take an image with these values '
            f'({_one_line(error)}).'
        ) from error
    for (height, width), shape in shapes:
        expected = (1, channels, scale * height, scale * width)
        if tuple(shape) != expected:
            raise InputError(
                f'{path}: network_g: {opt["network_g"]["type"]} makes {tuple(shape)} of an LR image of '
                f'{(1, channels, height, width)}, not {expected}; let it agree with scale: {scale}.'
            )


def _culprit(opt: dict[str, Any]) -> str:
    """The section that cannot be built by itself; ``train`` where each can."""
    sections = [
        (key, value, build_network)
        for key, value in opt.items()
        if key.startswith('network_') and isinstance(value, dict)
    ]
    sections += [
        (f'train.{key}', value, build_loss)
        for key, value in (opt.get('train') or {}).items()
        if key.endswith('_opt') and isinstance(value, dict)
    ]
    for key, value, build in sections:
        try:
            build(copy.deepcopy(value))
        except _VALUE_ERRORS:
            return key
    return 'train' if opt['is_train'] else opt['model_type']


def _one_line(error: Exception) -> str:
    text = ' '.join(str(error).split()) or 'no more is said'
    return f'{type(error).__name__}: {text[:200]}'
