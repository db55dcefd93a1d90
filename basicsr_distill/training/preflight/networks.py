"""Whether networks, models and datasets agree: scale, channels, and the keys that a model looks up while it trains."""

import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from basicsr.utils.registry import ARCH_REGISTRY, MODEL_REGISTRY

from basicsr_distill.errors import InputError
from basicsr_distill.training.preflight.datasets import check_crop
from basicsr_distill.training.preflight.registered import find_component

# Architectures whose ``scale`` is the factor between input and output; of all others it is ``upscale``.
_SCALE_IN_SCALE = ('RRDBNet', 'ECBSR', 'DUF')
SR_MODELS = (
    'SRModel',
    'SwinIRModel',
    'SRGANModel',
    'ESRGANModel',
    'RealESRNetModel',
    'RealESRGANModel',
    'TiledSRModel',
    'TiledSwinIRModel',
    'HITModel',
)
_GAN_MODELS = ('SRGANModel', 'ESRGANModel', 'RealESRGANModel')
_BLIND_MODELS = ('RealESRNetModel', 'RealESRGANModel')
_DATASETS = (
    'PairedImageDataset',
    'RealESRGANPairedDataset',
    'RealESRGANDataset',
    'SingleImageDataset',
    'DistilledPatchDataset',
)
_IN_CHANNELS = ('num_in_ch', 'in_chans')
_OUT_CHANNELS = ('num_out_ch', 'out_chans')
# RealESRGANDataset hands out crops of this size, and the queue of degraded images keeps it.
_BLIND_POOL_PX = 400
_DEFAULT_QUEUE_SIZE = 180


def check_agreement(path: Path, opt: dict[str, Any]) -> None:
    """Refuse a network of another scale or number of channels than its data, and a model without the keys it looks up.

    Raises:
        InputError: names both keys.
    """
    if opt['model_type'] not in SR_MODELS:
        return
    _check_scale(path, opt)
    _check_channels(path, opt)
    if opt['is_train']:
        _check_model_and_data(path, opt)


def _check_scale(path: Path, opt: dict[str, Any]) -> None:
    section = opt['network_g']
    key = 'scale' if section['type'] in _SCALE_IN_SCALE else 'upscale'
    value = _setting(section, key)
    if value is not None and 'scale' in opt and value != opt['scale']:
        raise InputError(f'{path}: network_g.{key}: {value} does not agree with scale: {opt["scale"]}; let them agree.')


def _setting(section: dict[str, Any], *keys: str) -> Any:
    """The value of the first of ``keys`` that a network takes, its default where the section is silent, else None."""
    component = find_component(section['type'], ARCH_REGISTRY)
    parameters = inspect.signature(component).parameters if component else {}
    for key in keys:
        if key in section:
            return section[key]
        if key in parameters and parameters[key].default is not inspect.Parameter.empty:
            return parameters[key].default
    return None


def _check_channels(path: Path, opt: dict[str, Any]) -> None:
    for name, data in opt['datasets'].items():
        if data['type'] not in _DATASETS:
            continue
        is_luma = data.get('color') == 'y' and 'RealESRGAN' not in data['type']
        wanted = 1 if is_luma else 3
        keys = _IN_CHANNELS if data['type'] == 'SingleImageDataset' else (*_IN_CHANNELS, *_OUT_CHANNELS)
        for network, key in _channel_keys(opt, keys):
            value = _setting(opt[network], key)
            if value != wanted:
                advice = (
                    'remove color or write 1'
                    if is_luma
                    else 'write 3'
                    if value != 1 or 'RealESRGAN' in data['type']
                    else 'write 3, or color: y for luma'
                )
                raise InputError(
                    f'{path}: {network}.{key}: {value}, but datasets.{name} gives {wanted} '
                    f'channel{"s" if wanted > 1 else " (color: y)"}; {advice}.'
                )


def _channel_keys(opt: dict[str, Any], keys: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    for network in ('network_g', 'network_d'):
        if isinstance(opt.get(network), dict):
            candidates = keys if network == 'network_g' else _IN_CHANNELS
            yield from ((network, key) for key in candidates if isinstance(_setting(opt[network], key), int))


def _check_model_and_data(path: Path, opt: dict[str, Any]) -> None:
    model, data = opt['model_type'], opt['datasets']['train']
    if model in _GAN_MODELS and not isinstance(opt['train'].get('gan_opt'), dict):
        raise InputError(f"{path}: train: {model} needs the section 'gan_opt'.")
    is_blind = model in _BLIND_MODELS and opt.get('high_order_degradation', True)
    if data['type'] == 'RealESRGANDataset' and not is_blind:
        hint = 'set high_order_degradation: true' if model in _BLIND_MODELS else f'use {" or ".join(_BLIND_MODELS)}'
        raise InputError(f'{path}: datasets.train: RealESRGANDataset gives no LR images to {model}; {hint}.')
    if is_blind and data['type'] in _DATASETS and data['type'] != 'RealESRGANDataset':
        raise InputError(
            f'{path}: datasets.train: {data["type"]} gives no blur kernels to {model}; set '
            'high_order_degradation: false to train on its pairs, or use RealESRGANDataset.'
        )
    component: Any = find_component(model, MODEL_REGISTRY)
    methods = [component.optimize_parameters] + ([component.feed_data] if is_blind else [])
    for key in _looked_up(*methods):
        if key not in opt:
            raise InputError(f'{path}: {model} needs the key {key!r} at the root of the file.')
    for key, value in opt.items():
        _check_degradation_value(path, key, value)
    if is_blind:
        _check_blind_sizes(path, opt)


def _looked_up(*methods: Callable[..., Any]) -> list[str]:
    """Keys of the option file that methods of a model read without asking whether they are there."""
    found = [key for method in methods for key in re.findall(r'self\.opt\[\'(\w+)\'\]', inspect.getsource(method))]
    return list(dict.fromkeys(found))


def _check_degradation_value(path: Path, key: str, value: Any) -> None:
    lengths = {'resize_prob': 3, 'resize_prob2': 3}
    if key in lengths or key.rstrip('2').endswith('_range'):
        length = lengths.get(key, 2)
        if not (isinstance(value, list) and len(value) == length and all(map(_is_number, value))):
            raise InputError(f'{path}: {key}: {value!r} is not a list of {length} numbers.')
    elif key.rstrip('2').endswith('_prob') and not _is_number(value):
        raise InputError(f'{path}: {key}: {value!r} is not a number.')
    elif key.endswith('_usm') and not isinstance(value, bool):
        raise InputError(f'{path}: {key}: {value!r} is neither true nor false.')


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _check_blind_sizes(path: Path, opt: dict[str, Any]) -> None:
    check_crop(f'{path}: gt_size', opt['gt_size'], opt['scale'])
    if opt['gt_size'] > _BLIND_POOL_PX:
        raise InputError(
            f'{path}: gt_size: {opt["gt_size"]} is more than the {_BLIND_POOL_PX} pixels that '
            f'RealESRGANDataset hands out; write at most {_BLIND_POOL_PX}.'
        )
    queue, section = opt.get('queue_size', _DEFAULT_QUEUE_SIZE), opt['datasets']['train']
    if isinstance(queue, bool) or not isinstance(queue, int) or queue < 1:
        raise InputError(f'{path}: queue_size: {queue!r} is not a whole number of at least 1.')
    batch = section.get('batch_size_per_gpu', 1) * (1 if opt['dist'] else max(1, opt['num_gpu']))
    if queue % batch:
        raise InputError(
            f'{path}: queue_size: {queue} is not a multiple of the batch size {batch}; set queue_size: '
            f'{batch * max(1, round(queue / batch))}.'
        )
