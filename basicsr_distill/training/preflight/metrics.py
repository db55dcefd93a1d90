"""Metrics of ``val``: which way is better, what they compare with, and their values."""

import inspect
import logging
from pathlib import Path
from typing import Any

from basicsr.utils.registry import METRIC_REGISTRY

from basicsr_distill.errors import InputError
from basicsr_distill.training.preflight.registered import find_component

_LOWER = ('calculate_niqe', 'calculate_fid', 'calculate_lpips')
_HIGHER = ('calculate_psnr', 'calculate_psnr_pt', 'calculate_ssim', 'calculate_ssim_pt')
_LR_ONLY = 'SingleImageDataset'


def check_metrics(path: Path, opt: dict[str, Any]) -> None:
    """Refuse metrics that cannot be measured, and write down which way each is better: BasicSR keeps the best value.

    Raises:
        InputError: names the metric.
    """
    for name, metric in ((opt.get('val') or {}).get('metrics') or {}).items():
        where = f'{path}: val.metrics.{name}'
        metric['better'] = _direction(where, metric)
        crop = metric.get('crop_border', 0)
        if isinstance(crop, bool) or not isinstance(crop, int) or crop < 0:
            raise InputError(f'{where}.crop_border: {crop!r} is not a whole number of pixels; write 0 or more.')
        if metric.get('input_order', 'HWC') != 'HWC':
            raise InputError(f'{where}.input_order: {metric["input_order"]!r}, but images come as HWC; remove the key.')
        _check_reference(path, name, metric, opt)


def _direction(where: str, metric: dict[str, Any]) -> str:
    known = 'lower' if metric['type'] in _LOWER else 'higher' if metric['type'] in _HIGHER else None
    given = metric.get('better')
    if given not in (None, 'lower', 'higher'):
        raise InputError(f'{where}.better: {given!r} is neither higher nor lower.')
    if given and known and given != known:
        raise InputError(f'{where}.better: {given}, but a {known} {metric["type"]} is the better one; remove the key.')
    if not given and not known:
        logging.getLogger('basicsr').warning('%s.better: is not given; taken for higher, as BasicSR does.', where)
    return str(given or known or 'higher')


def _check_reference(path: Path, name: str, metric: dict[str, Any], opt: dict[str, Any]) -> None:
    """BasicSR would go on comparing with the HR image of an earlier batch."""
    component = find_component(metric['type'], METRIC_REGISTRY)
    if component is None or 'img2' not in inspect.signature(component).parameters:
        return
    for phase, section in opt['datasets'].items():
        if phase != 'train' and section['type'] == _LR_ONLY:
            raise InputError(
                f'{path}: val.metrics.{name}: {metric["type"]} compares with HR images, which '
                f'datasets.{phase} ({_LR_ONLY}) has not; give it a file of its own without this metric, '
                'or use PairedImageDataset.'
            )
