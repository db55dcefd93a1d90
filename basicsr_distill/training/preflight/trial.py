"""What only trying shows: each of BasicSR's data sets gives an image, everything is built, the networks take images."""

import copy
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from basicsr.archs import build_network
from basicsr.losses import build_loss
from basicsr.models import build_model
from torch import Tensor, nn

from basicsr_distill.config.experiment import Experiment
from basicsr_distill.config.sections.datasets import HostDatasetOptions
from basicsr_distill.config.sections.sr_models import DegradationRootOptions
from basicsr_distill.errors import InputError
from basicsr_distill.training.loader import generators_put_back, seed_generators
from basicsr_distill.training.preflight.agreement import is_sr_model

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


def take_first_images(experiment: Experiment, datasets: Mapping[str, Any]) -> None:
    """Take the first image of each of BasicSR's data sets as a loader will.

    Raises:
        InputError: names the dataset's section and what BasicSR says.
    """
    sections = experiment.recipe.experiment
    assert sections is not None
    for name, dataset in datasets.items():
        if not isinstance(sections.datasets[name], HostDatasetOptions):
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
                f'{experiment.path}: datasets.{name}: {type(dataset).__name__} cannot take its first image with these '
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
        raise InputError(
            f'{path}: {_failing_section(opt)}: cannot be built with these values ({_one_line(error)}).'
        ) from error
    if is_sr_model(opt['model_type']):
        _try_network(experiment, model)
    return model


def _try_network(experiment: Experiment, model: Any) -> None:
    """Apply the networks once as validation does, to images of odd sides, and once to training patches."""
    opt, scale = experiment.opt, experiment.recipe.scale
    for channels in sorted({_channels(section) for section in opt['datasets'].values()}):
        lr = torch.zeros(1, channels, *_TRIED_PX, device=model.device)
        hr_shape = (1, channels, *(scale * side for side in _TRIED_PX))
        _expect(experiment, 'network_g', partial(_test, model), lr, hr_shape)
    if not opt['is_train']:
        return
    crop, channels = _crop_px(experiment), _channels(opt['datasets']['train'])
    if crop is not None:
        side = crop // scale
        lr = torch.zeros(1, channels, side, side, device=model.device)
        _expect(experiment, 'network_g', partial(_apply, model.net_g), lr, (1, channels, side * scale, side * scale))
        if hasattr(model, 'net_d') and opt['datasets']['train']['type'] != 'DistilledPatchDataset':
            hr = torch.zeros(1, channels, crop, crop, device=model.device)
            _expect(experiment, 'network_d', partial(_apply, model.net_d), hr, None)


def _channels(dataset: dict[str, Any]) -> int:
    return 1 if dataset.get('color') == 'y' else 3


def _crop_px(experiment: Experiment) -> int | None:
    """Side of the HR crops of training, where the file says it; a distilled set of smaller patches has smaller ones."""
    sections = experiment.recipe.experiment
    assert sections is not None
    if isinstance(sections.root, DegradationRootOptions) and sections.root.high_order_degradation:
        return sections.root.gt_size
    return getattr(sections.datasets['train'], 'gt_size', None)


def _test(model: Any, lr: Tensor) -> Tensor:
    model.lq = lr
    model.test()
    output: Tensor = model.output
    del model.lq, model.output
    return output


def _apply(network: nn.Module, images: Tensor) -> Tensor:
    network.eval()
    with torch.no_grad():
        output: Tensor = network(images)
    network.train()
    return output


def _expect(
    experiment: Experiment, key: str, apply: Callable[[Tensor], Tensor], images: Tensor, shape: tuple[int, ...] | None
) -> None:
    """Apply a network and compare the shape of what it makes, but where None is expected."""
    kind, given = experiment.opt[key]['type'], tuple(images.shape)
    try:
        result = tuple(apply(images).shape)
    except torch.OutOfMemoryError:
        raise
    except _VALUE_ERRORS as error:
        raise InputError(
            f'{experiment.path}: {key}: {kind} cannot take images of shape {given} with these values '
            f'({_one_line(error)}); let it agree with its data.'
        ) from error
    if shape is not None and result != shape:
        raise InputError(
            f'{experiment.path}: {key}: {kind} makes {result} of LR images of shape {given}, not {shape}; let it '
            f'agree with scale: {experiment.recipe.scale} and its data.'
        )


def _failing_section(opt: dict[str, Any]) -> str:
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
