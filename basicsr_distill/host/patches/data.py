"""Datasets: sorted listings, pairs in linear time."""

import os
from collections.abc import Iterator

from basicsr_distill.errors import InputError
from basicsr_distill.host.patches.table import HostFunction, patch


@patch(
    'basicsr.utils.misc:scandir',
    'utils/misc.py:74',
    "lists in the file system's order, so that a seed means other samples on another machine",
    'basicsr train -opt options/train/EDSR/train_EDSR_Mx4_DIV2K.yml, on another machine',
)
def _scandir(original: HostFunction) -> HostFunction:
    def scandir(
        dir_path: str, suffix: str | tuple[str, ...] | None = None, recursive: bool = False, full_path: bool = False
    ) -> Iterator[str]:
        """Visible files in the order of their names.

        Raises:
            InputError: the folder does not exist.
        """
        if not os.path.isdir(dir_path):
            raise InputError(f'{dir_path}: no such folder; correct the path in the option file.')
        return _visible_files(dir_path, dir_path, suffix or '', recursive, full_path)

    return scandir


def _visible_files(
    folder: str, root: str, suffix: str | tuple[str, ...], recursive: bool, full_path: bool
) -> Iterator[str]:
    with os.scandir(folder) as entries:
        in_order = sorted(entries, key=lambda entry: entry.name)
    for entry in in_order:
        if recursive and entry.is_dir():
            yield from _visible_files(entry.path, root, suffix, recursive, full_path)
        elif entry.is_file() and not entry.name.startswith('.') and entry.name.endswith(suffix):
            yield entry.path if full_path else os.path.relpath(entry.path, root)


@patch(
    'basicsr.data.data_util:paired_paths_from_folder',
    'data/data_util.py:228',
    "looks every name up in a list, O(N^2): 13 s for DIV2K's sub-images",
    'basicsr train -opt options/train/EDSR/train_EDSR_Mx4_DIV2K.yml',
)
def _paired_paths_from_folder(original: HostFunction) -> HostFunction:
    def paired_paths_from_folder(folders: list[str], keys: list[str], filename_tmpl: str) -> list[dict[str, str]]:
        """Pairs in the order of the GT names.

        Raises:
            InputError: a folder is missing or empty, or names have no partner.
        """
        from basicsr.utils import scandir

        (lq_folder, gt_folder), (lq_key, gt_key) = folders, keys
        lq_names, gt_names = set(scandir(lq_folder)), list(scandir(gt_folder))
        for key, folder, names in ((gt_key, gt_folder, gt_names), (lq_key, lq_folder, lq_names)):
            if not names:
                raise InputError(f'dataroot_{key}: {folder} holds no images.')
        pairs = {}
        for gt_name in gt_names:
            stem, extension = os.path.splitext(gt_name)
            pairs[f'{filename_tmpl.format(stem)}{extension}'] = gt_name
        missing, extra = sorted(pairs.keys() - lq_names), sorted(lq_names - pairs.keys())
        if missing:
            raise InputError(
                f'dataroot_{lq_key}: {lq_folder} lacks {len(missing)} of {len(pairs)} partners of '
                f'{gt_folder}, first {missing[0]}; check filename_tmpl ({filename_tmpl}).'
            )
        if extra:
            raise InputError(
                f'dataroot_{lq_key}: {lq_folder} holds {len(extra)} files without a partner in '
                f'{gt_folder}, first {extra[0]}.'
            )
        join = os.path.join
        return [
            {f'{lq_key}_path': join(lq_folder, lq_name), f'{gt_key}_path': join(gt_folder, gt_name)}
            for lq_name, gt_name in pairs.items()
        ]

    return paired_paths_from_folder
