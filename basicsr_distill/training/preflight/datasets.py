"""Sections of stock datasets: what BasicSR looks up or opens only when the first image is taken."""

import importlib.util
import os
from pathlib import Path
from typing import Any

from basicsr_distill.errors import InputError

_PAIRED = ('PairedImageDataset', 'RealESRGANPairedDataset')
_BLIND = ('RealESRGANDataset',)
_LR_ONLY = ('SingleImageDataset',)
STOCK = (*_PAIRED, *_BLIND, *_LR_ONLY)
_BACKENDS = ('disk', 'lmdb', 'memcached')
_STAGE_MARK = 'stage.json'
# Where the images of a stage's folder lie.
_STAGE_IMAGES = ('images', 'HR')
_COUNTS = {
    'batch_size_per_gpu': 1,
    'num_worker_per_gpu': 0,
    'dataset_enlarge_ratio': 1,
    'num_prefetch_queue': 1,
    'gt_size': 1,
}
_FLAGS = ('use_hflip', 'use_rot', 'use_shuffle', 'pin_memory', 'persistent_workers')
_WORDS = ('dataroot_gt', 'dataroot_lq', 'meta_info_file', 'meta_info', 'filename_tmpl')


def check_datasets(path: Path, opt: dict[str, Any]) -> None:
    """Refuse a section of a stock dataset that cannot work, before any file of it is read.

    Raises:
        InputError: names the key.
    """
    for name, section in opt['datasets'].items():
        if section['type'] in STOCK:
            where = f'{path}: datasets.{name}'
            _check_values(where, section)
            _check_backend(where, section)
            _check_roots(where, section)
            if name == 'train':
                _check_training(where, section, opt)
            if section['type'] in _PAIRED:
                scale = section.get('scale')
                if isinstance(scale, bool) or not isinstance(scale, int) or scale < 1:
                    raise InputError(
                        f'{path}: scale: {scale!r} is not a whole number of at least 1, which {section["type"]} needs.'
                    )
    _check_lmdb_used_once(path, opt)


def _check_values(where: str, section: dict[str, Any]) -> None:
    for key, least in _COUNTS.items():
        value = section.get(key, least)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise InputError(f'{where}.{key}: {value!r} is not a whole number of at least {least}.')
    for key in _FLAGS:
        if not isinstance(section.get(key, False), bool):
            raise InputError(f'{where}.{key}: {section[key]!r} is neither true nor false.')
    for key in _WORDS:
        value = section.get(key)
        if value is not None and not isinstance(value, str):
            raise InputError(f'{where}.{key}: {value!r} is not text; write it in quotation marks.')
    if '{}' not in section.get('filename_tmpl', '{}'):
        raise InputError(f'{where}.filename_tmpl: {section["filename_tmpl"]!r} holds no {{}}, where the HR name goes.')


def _check_backend(where: str, section: dict[str, Any]) -> None:
    if 'io_backend' not in section:
        raise InputError(f"{where}: {section['type']} needs the key 'io_backend'; write io_backend: {{type: disk}}.")
    backend = section['io_backend']
    if not isinstance(backend, dict) or backend.get('type') not in _BACKENDS:
        kind = backend.get('type') if isinstance(backend, dict) else backend
        raise InputError(f'{where}.io_backend: {kind!r} is not known; write type: disk or type: lmdb.')
    if backend['type'] == 'memcached' and importlib.util.find_spec('mc') is None:
        raise InputError(
            f'{where}.io_backend: memcached needs the package mc, which is not installed; write type: disk.'
        )
    for key in ('dataroot_gt', 'dataroot_lq'):
        root = section.get(key)
        if root is None:
            continue
        is_lmdb = root.rstrip('/').endswith('.lmdb') or os.path.isfile(os.path.join(root, 'data.mdb'))
        if backend['type'] == 'lmdb' and not root.endswith('.lmdb'):
            raise InputError(
                f'{where}.{key}: {root} does not end in .lmdb; write io_backend: {{type: disk}} for a folder of images.'
            )
        if backend['type'] == 'lmdb' and not os.path.isfile(os.path.join(root, 'meta_info.txt')):
            raise InputError(
                f'{where}.{key}: {root} has no meta_info.txt, the list that BasicSR reads; make the lmdb anew.'
            )
        if backend['type'] == 'disk' and is_lmdb:
            raise InputError(f'{where}.io_backend: disk, but {key} {root} is an lmdb; write type: lmdb.')
    if backend['type'] == 'lmdb' and section.get('dataroot_gt') is not None:
        gt, lq = (os.path.realpath(section.get(key) or '') for key in ('dataroot_gt', 'dataroot_lq'))
        if gt == lq:
            raise InputError(f'{where}.dataroot_lq: is the same lmdb as dataroot_gt; give that of the LR images.')


def _check_roots(where: str, section: dict[str, Any]) -> None:
    """The folder of a stage holds figures and tables beside its images, which stock datasets would take for images."""
    for key in ('dataroot_gt', 'dataroot_lq'):
        root = section.get(key)
        if root is None or section.get('meta_info_file') or section.get('meta_info'):
            continue
        if os.path.isfile(os.path.join(root, _STAGE_MARK)):
            images = next((name for name in _STAGE_IMAGES if os.path.isdir(os.path.join(root, name))), None)
            raise InputError(
                f'{where}.{key}: {root} is the folder of a stage, which holds more than images'
                + (f'; write {os.path.join(root, images)}.' if images else '; correct the path.')
            )


def _check_training(where: str, section: dict[str, Any], opt: dict[str, Any]) -> None:
    if section['type'] in _LR_ONLY:
        raise InputError(
            f'{where}: {section["type"]} has no HR images to learn from; use PairedImageDataset or '
            'DistilledPatchDataset.'
        )
    for key in ('use_hflip', 'use_rot'):
        if key not in section:
            older = '; older files call it use_flip' if key == 'use_hflip' and 'use_flip' in section else ''
            raise InputError(f'{where}: {section["type"]} needs the key {key!r}{older}.')
    if section['type'] in _PAIRED:
        if 'gt_size' not in section:
            raise InputError(f"{where}: {section['type']} needs the key 'gt_size', the crop of the training images.")
        check_crop(f'{where}.gt_size', section['gt_size'], opt.get('scale'))


def check_crop(where: str, gt_size: Any, scale: Any) -> None:
    """Refuse a crop that is no whole number of LR pixels.

    Raises:
        InputError: names ``where``.
    """
    if isinstance(gt_size, bool) or not isinstance(gt_size, int) or gt_size < 1:
        raise InputError(f'{where}: {gt_size!r} is not a whole number of at least 1.')
    if isinstance(scale, int) and scale > 0 and gt_size % scale:
        lower = gt_size - gt_size % scale
        raise InputError(f'{where}: {gt_size} is not a multiple of the scale {scale}; write {lower or scale}.')


def _check_lmdb_used_once(path: Path, opt: dict[str, Any]) -> None:
    """An lmdb can be open once in a process; workers are processes of their own, and validation has none."""
    opened: dict[str, str] = {}
    for name, section in opt['datasets'].items():
        if section['type'] not in STOCK or section['io_backend']['type'] != 'lmdb':
            continue
        if name == 'train' and section.get('num_worker_per_gpu', 0):
            continue
        for key in ('dataroot_gt', 'dataroot_lq'):
            if root := section.get(key):
                where = f'datasets.{name}.{key}'
                earlier = opened.setdefault(os.path.realpath(root), where)
                if earlier != where:
                    raise InputError(
                        f'{path}: {where}: {root} is already opened for {earlier}, and an lmdb cannot be '
                        'opened twice in one process; copy it, or set num_worker_per_gpu: 1 where one of '
                        'them is the training set.'
                    )
