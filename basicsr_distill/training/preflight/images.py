"""The image files of stock datasets, from their headers: readable, of fitting sizes, large enough for the crop."""

import logging
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lmdb

from basicsr_distill.config.experiment import Experiment
from basicsr_distill.config.sections.datasets import HostDatasetOptions, PairedDatasetOptions
from basicsr_distill.errors import InputError
from basicsr_distill.io.headers import ImageHeader, is_doubtful_pair, pair_fault, read_headers
from basicsr_distill.io.images import UnreadableImageError

_Headers = dict[str, ImageHeader]
_log = logging.getLogger('basicsr')


def check_images(experiment: Experiment, datasets: Mapping[str, Any]) -> None:
    """Look at the header of every image of BasicSR's data sets once.

    Args:
        experiment: about to run.
        datasets: as built by BasicSR, by their names in the file.

    Raises:
        InputError: names the first file that cannot be used, and how many there are.
    """
    sections = experiment.recipe.experiment
    assert sections is not None
    for name, dataset in datasets.items():
        kind, section = sections.datasets[name], experiment.opt['datasets'][name]
        if not isinstance(kind, HostDatasetOptions):
            continue
        where = f'{experiment.path}: datasets.{name}'
        gt, lq = _paths(dataset, 'gt'), _paths(dataset, 'lq')
        gt_headers, lq_headers = _headers_of(where, section, 'gt', gt), _headers_of(where, section, 'lq', lq)
        if gt and lq:
            _check_pairs(where, name == 'train', section['scale'], (gt, gt_headers), (lq, lq_headers))
        if name == 'train' and isinstance(kind, PairedDatasetOptions):
            _check_smallest(f'{where}.gt_size', section['gt_size'], gt_headers)
        if name != 'train':
            _check_borders(experiment, gt_headers)
        _warn_of_odd_kinds(where, {**gt_headers, **lq_headers})


def _paths(dataset: Any, key: str) -> list[str]:
    """Files of one side; a dataset without pairs lists its only side."""
    sides = [
        entry if isinstance(entry, dict) else {f'{"gt" if hasattr(dataset, "gt_folder") else "lq"}_path': entry}
        for entry in dataset.paths
    ]
    return [side[f'{key}_path'] for side in sides if f'{key}_path' in side]


def _headers_of(where: str, section: dict[str, Any], key: str, files: list[str]) -> _Headers:
    if section['io_backend']['type'] == 'lmdb':
        return _lmdb_headers(f'{where}.dataroot_{key}', Path(section[f'dataroot_{key}']), files)
    headers, faults = {}, []
    for file, header in zip(files, read_headers(files)):
        if isinstance(header, UnreadableImageError):
            faults.append(header)
        else:
            headers[file] = header
    if not faults:
        return headers
    more = f' ({len(faults)} of {len(files)} files are not right)' if len(faults) > 1 else ''
    if faults[0].reason == 'missing':
        table = section.get('meta_info_file') or section.get('meta_info')
        source = f'{table} lists what is not there' if table else f'dataroot_{key} lacks a file'
        raise InputError(f'{where}: {source}: {faults[0].name}; correct the list or the folder{more}.')
    raise InputError(f'{where}: {str(faults[0]).removesuffix(".")}{more}.')


def _lmdb_headers(where: str, root: Path, keys: list[str]) -> _Headers:
    """Sizes from ``meta_info.txt``, of lines ``name.png (height,width,channels) level``; every key must be there."""
    headers = {}
    for line in (root / 'meta_info.txt').read_text(encoding='utf-8').splitlines():
        try:
            height, width, _ = (int(part) for part in line.split('(')[1].split(')')[0].split(','))
        except (IndexError, ValueError):
            raise InputError(
                f'{where}: {root / "meta_info.txt"}: {line!r} is not name.png (height,width,channels) level; '
                'make the lmdb anew.'
            ) from None
        headers[line.split('.')[0]] = ImageHeader(width, height)
    try:
        with (
            lmdb.open(str(root), readonly=True, lock=False, readahead=False) as database,
            database.begin(buffers=True) as reader,
        ):
            absent = [key for key in keys if reader.get(key.encode()) is None]
    except lmdb.Error as error:
        raise InputError(f'{where}: {root} cannot be opened ({error}); make the lmdb anew.') from None
    if absent:
        raise InputError(
            f'{where}: {root} holds no {absent[0]!r}, which its meta_info.txt lists ({len(absent)} are '
            'missing); make the lmdb anew.'
        )
    return headers


def _check_pairs(
    where: str, is_train: bool, scale: int, gt: tuple[list[str], _Headers], lq: tuple[list[str], _Headers]
) -> None:
    pairs = [(gt[1][gt_path], lq[1][lq_path]) for gt_path, lq_path in zip(gt[0], lq[0])]
    kinds = Counter(pairs)  # of a hundred thousand patches there is one
    faults = {kind: fault for kind in kinds if (fault := pair_fault(kind[0][:2], kind[1][:2], scale, is_train))}
    if faults:
        first = next(index for index, pair in enumerate(pairs) if pair in faults)
        raise InputError(
            f'{where}: {lq[0][first]}: {faults[pairs[first]]} (the HR image is {gt[0][first]}; '
            f'{sum(kinds[kind] for kind in faults)} of {len(pairs)} pairs).'
        )
    doubtful = {kind for kind in kinds if is_doubtful_pair(kind[0][:2], kind[1][:2], scale)}
    if doubtful:
        first = next(index for index, pair in enumerate(pairs) if pair in doubtful)
        _log.warning(
            '%s: %d of %d HR images are more than a pixel of LR larger than their partners, first that of %s; '
            'what is left over at the right and lower edge is not measured.',
            where,
            sum(kinds[kind] for kind in doubtful),
            len(pairs),
            lq[0][first],
        )


def _check_smallest(where: str, gt_size: int, headers: _Headers) -> None:
    smallest = min(headers, key=lambda file: min(headers[file][:2]))
    side = min(headers[smallest][:2])
    if side < gt_size:
        too_small = sum(min(header[:2]) < gt_size for header in headers.values())
        raise InputError(
            f'{where}: {gt_size} is larger than {too_small} of {len(headers)} images, the smallest of which is '
            f'{smallest} ({headers[smallest].width}x{headers[smallest].height}); lower it or remove them.'
        )


def _check_borders(experiment: Experiment, headers: _Headers) -> None:
    metrics = (experiment.opt.get('val') or {}).get('metrics') or {}
    name = max(metrics, key=lambda key: metrics[key].get('crop_border', 0), default=None)
    if name is None or not headers:
        return
    crop = metrics[name].get('crop_border', 0)
    smallest = min(headers, key=lambda file: min(headers[file][:2]))
    if 2 * crop >= min(headers[smallest][:2]):
        raise InputError(
            f'{experiment.path}: val.metrics.{name}.crop_border: {crop} leaves nothing of {smallest} '
            f'({headers[smallest].width}x{headers[smallest].height}); lower it.'
        )


def _warn_of_odd_kinds(where: str, headers: _Headers) -> None:
    for odd, consequence in (
        ('has_alpha', 'have an alpha channel, which is dropped'),
        ('is_deep', 'have more than 8 bits a channel, which are cut to 8'),
    ):
        kinds = {header for header in set(headers.values()) if getattr(header, odd)}
        files = [file for file, header in headers.items() if header in kinds] if kinds else []
        if files:
            _log.warning('%s: %d of %d images %s, first %s.', where, len(files), len(headers), consequence, files[0])
