"""A BasicSR option file as the dictionary that BasicSR's components expect.

Does what ``basicsr.utils.options.parse_options`` does, without its unsafe loader, ``eval`` and ``exec``; checks sections of
our own components, and fills in the keys whose absence BasicSR answers with a KeyError long after the start.
"""

import logging
import os
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

from basicsr_distill.config.sections.base import (
    DistilledPatchDatasetOptions,
    LatentPatchDatasetOptions,
    LpipsMetricOptions,
    MinimaxDiTNetworkOptions,
    MinimaxDiTTrainOptions,
    Options,
    TileOptions,
    bind,
    load_option_file,
    parse_yaml,
)
from basicsr_distill.errors import InputError

# Sections of a recipe that are stages of ``basicsr distill``; the training loop has no use for them.
STAGE_SECTIONS = ('extract', 'cluster', 'sample')
DEFAULT_PRINT_FREQ = 100
DEFAULT_SAVE_FREQ = 5000

_DATASETS: dict[str, type[Options]] = {
    'DistilledPatchDataset': DistilledPatchDatasetOptions,
    'LatentPatchDataset': LatentPatchDatasetOptions,
}
_TILED_MODELS = ('TiledSRModel', 'TiledSwinIRModel', 'HITModel')


def read_option_file(path: Path, force_yml: Sequence[str] = ()) -> dict[str, Any]:
    """Load an option file and apply ``--force_yml`` entries (``train:ema_decay=0.999``) to it.

    Raises:
        InputError: the file or an entry is malformed, or an entry's parent section does not exist.
    """
    options = load_option_file(path)
    for entry in force_yml:
        keys, separator, text = entry.partition('=')
        *parents, leaf = keys.strip().split(':')
        if not separator or not leaf:
            raise InputError(f'--force_yml {entry}: write KEY=VALUE, for example train:ema_decay=0.999.')
        section = options
        for parent in parents:
            if not isinstance(section.get(parent), dict):
                raise InputError(f'--force_yml {entry}: {path} has no section {parent!r}.')
            section = section[parent]
        # BasicSR reads the word none as null, YAML does not.
        section[leaf] = None if text.strip().lower() == 'none' else parse_yaml(text, f'--force_yml {entry}')
    return options


def to_experiment(path: Path, options: dict[str, Any], is_train: bool, root: Path, debug: bool = False,
                  auto_resume: bool = False) -> dict[str, Any]:
    """BasicSR's option dictionary from the content of an option file.

    Args:
        path: of the file, for messages.
        options: its content; not changed.
        is_train: ``basicsr train`` or ``basicsr test``.
        root: experiments/, results/ and tb_logger/ are made in this folder.

    Raises:
        InputError: a key is missing or wrong, or a folder that a dataset names does not exist.
    """
    opt = deepcopy({key: value for key, value in options.items() if key not in STAGE_SECTIONS})
    if isinstance(opt.get('datasets'), dict):  # null switches one off: --force_yml datasets:test_6=none
        opt['datasets'] = {phase: section for phase, section in opt['datasets'].items() if section is not None}
    check_own_sections(path, opt, is_train)
    if not opt['name'] or Path(opt['name']).name != opt['name']:
        raise InputError(f'{path}: name: {opt["name"]!r} must be a plain folder name.')
    opt.update(is_train=is_train, auto_resume=auto_resume, root_path=str(root))
    if opt.get('manual_seed') is None:
        opt['manual_seed'] = 0  # BasicSR draws one; a fixed one lets an interrupted run resume exactly
    if debug and not opt['name'].startswith('debug'):
        opt['name'] = f'debug_{opt["name"]}'
    _fill_paths(path, opt, is_train, root)
    _fill_datasets(path, opt, is_train)
    _fill_loop_keys(path, opt, is_train, debug)
    return opt


def check_own_sections(path: Path, opt: dict[str, Any], is_train: bool) -> None:
    """Check what every experiment needs, and bind the sections of our own components to their models.

    Raises:
        InputError: a key is unknown, missing or wrong.
    """
    for key, kind in {'name': str, 'model_type': str, 'datasets': dict, 'network_g': dict}.items():
        if not isinstance(opt.get(key), kind):
            raise InputError(f'{path}: key {key!r} is missing or not a {"word" if kind is str else "section"}.')
    for phase, dataset in opt['datasets'].items():
        if not isinstance(dataset, dict):
            raise InputError(f'{path}: datasets.{phase}: must be a mapping of keys to values.')
        for key in ('type', 'name'):
            if not isinstance(dataset.get(key), str):
                raise InputError(f'{path}: datasets.{phase}: key {key!r} is missing.')
        if model := _DATASETS.get(dataset['type']):
            bind(model, dataset, f'{path}: datasets.{phase}')
    if opt['network_g'].get('type') == 'MinimaxDiT':
        bind(MinimaxDiTNetworkOptions, opt['network_g'], f'{path}: network_g')
    if opt['model_type'] == 'MinimaxDiTModel' and is_train:
        bind(MinimaxDiTTrainOptions, opt.get('train'), f'{path}: train')
    _check_validation(path, opt)


def _check_validation(path: Path, opt: dict[str, Any]) -> None:
    val = opt.get('val') or {}
    if not isinstance(val, dict) or not isinstance(val.get('metrics') or {}, dict):
        raise InputError(f'{path}: val{".metrics" if isinstance(val, dict) else ""}: must be a mapping of keys to values.')
    if val.get('tile') is not None:
        if opt['model_type'] not in _TILED_MODELS:
            raise InputError(f'{path}: val.tile: {opt["model_type"]} knows no tiles; use one of {", ".join(_TILED_MODELS)}.')
        bind(TileOptions, val['tile'], f'{path}: val.tile')
    for name, metric in (val.get('metrics') or {}).items():
        if metric is None:  # switched off, often by --force_yml val:metrics:NAME=none
            continue
        if not isinstance(metric, dict) or not isinstance(metric.get('type'), str):
            raise InputError(f'{path}: val.metrics.{name}: key \'type\' is missing.')
        if metric['type'] == 'calculate_lpips':
            bind(LpipsMetricOptions, metric, f'{path}: val.metrics.{name}')


def _fill_paths(path: Path, opt: dict[str, Any], is_train: bool, root: Path) -> None:
    opt['path'] = dict(opt.get('path') or {})
    for key, value in opt['path'].items():
        if isinstance(value, str) and ('pretrain_network' in key or 'resume_state' in key):
            opt['path'][key] = os.path.expanduser(value)
            if not Path(opt['path'][key]).is_file():
                raise InputError(f'{path}: path.{key}: {value} does not exist; put the checkpoint there or correct the path.')
    folder = root / ('experiments' if is_train else 'results') / opt['name']
    if is_train:
        opt['path'].update(experiments_root=str(folder), models=str(folder / 'models'),
                           training_states=str(folder / 'training_states'))
    else:
        opt['path']['results_root'] = str(folder)
    opt['path'].update(log=str(folder), visualization=str(folder / 'visualization'))


def _fill_datasets(path: Path, opt: dict[str, Any], is_train: bool) -> None:
    phases = ('train', 'val') if is_train else ('test', 'val')
    for name, dataset in opt['datasets'].items():
        dataset['phase'] = name.split('_')[0]
        if dataset['phase'] not in phases:
            raise InputError(f'{path}: datasets.{name}: this command takes the phases {" and ".join(phases)}.')
        if 'scale' in opt:
            dataset['scale'] = opt['scale']
        if dataset['type'] == 'LatentPatchDataset' and is_train:
            dataset['latents_dir'] = os.path.join(opt['path']['experiments_root'], 'latents')
        # A distilled set brings its own list and LR images, so that these keys may still name another set's.
        optional = {'dataroot_lq', 'meta_info_file'} if dataset['type'] == 'DistilledPatchDataset' else set()
        for key, value in dataset.items():
            if not isinstance(value, str) or not (key.startswith('dataroot') or key == 'meta_info_file'):
                continue
            dataset[key] = os.path.expanduser(value)
            if key not in optional and not os.path.exists(dataset[key]):
                raise InputError(f'{path}: datasets.{name}.{key}: {value} does not exist; correct the path.')
    if is_train and 'train' not in opt['datasets']:
        raise InputError(f'{path}: datasets: section \'train\' is missing.')


def _fill_loop_keys(path: Path, opt: dict[str, Any], is_train: bool, debug: bool) -> None:
    if opt.get('val') is not None:
        opt['val'] = {'save_img': False, 'suffix': None, **opt['val']}
        _settle_metrics(opt['val'])
    if not is_train:
        opt.setdefault('val', {'save_img': False, 'suffix': None})
        return
    opt['logger'] = {'print_freq': DEFAULT_PRINT_FREQ, 'save_checkpoint_freq': DEFAULT_SAVE_FREQ, 'use_tb_logger': False,
                     **(opt.get('logger') or {})}
    if not isinstance(opt.get('train'), dict):
        raise InputError(f'{path}: section \'train\' is missing.')
    for name in ('optim_g', 'scheduler'):
        if not isinstance(opt['train'].get(name), dict):
            raise InputError(f'{path}: train: section {name!r} is missing.')
    _settle_count(path, opt['train'], 'train', 'total_iter')
    for key in ('print_freq', 'save_checkpoint_freq'):
        _settle_count(path, opt['logger'], 'logger', key)
    if opt.get('val') is not None:
        opt['val'].setdefault('val_freq', opt['logger']['save_checkpoint_freq'])
        _settle_count(path, opt['val'], 'val', 'val_freq')
    if debug:
        opt['logger'].update(print_freq=1, save_checkpoint_freq=8)
        if opt.get('val') is not None:
            opt['val']['val_freq'] = 8


def _settle_count(path: Path, section: dict[str, Any], where: str, key: str) -> None:
    """Published files write counts as 5e5 too."""
    if key not in section:
        raise InputError(f'{path}: {where}: key {key!r} is missing.')
    value = section[key]
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value < 1 or value != int(value):
        raise InputError(f'{path}: {where}.{key}: {value!r} is not a whole number of at least 1.')
    section[key] = int(value)


def _settle_metrics(val: dict[str, Any]) -> None:
    """Drop metrics that are switched off; the host asks each other one whether more is better."""
    metrics = {name: metric for name, metric in (val.get('metrics') or {}).items() if metric is not None}
    for metric in metrics.values():
        if metric['type'] == 'calculate_lpips':
            metric['better'] = 'lower'
    val['metrics'] = metrics or None


def settle_device(opt: dict[str, Any]) -> None:
    """Set ``num_gpu`` to what this machine has; published option files ask for GPUs that a CPU does not have."""
    import torch

    available = torch.cuda.device_count() if torch.cuda.is_available() else 0
    wanted = opt.get('num_gpu', 'auto')
    opt['num_gpu'] = available if wanted == 'auto' else min(int(wanted), available)
    if wanted != 'auto' and opt['num_gpu'] < int(wanted):
        logging.getLogger('basicsr').warning('num_gpu: %s is asked for, %d found; training on %s.', wanted, available,
                                             f'{available} GPU' if available else 'the CPU')
