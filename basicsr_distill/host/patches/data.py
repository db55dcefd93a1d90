"""Datasets: sorted listings, pairs in linear time, names that stay inside their folder."""

import os
from collections.abc import Iterator
from typing import Any

from basicsr_distill.errors import InputError
from basicsr_distill.host.patches.table import HostFunction, patch


@patch(
    'basicsr.utils.misc:scandir',
    'utils/misc.py:74',
    "lists in the file system's order, so that a seed means other samples on another machine",
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


_LISTED = 'joins what a meta_info file says to the folder, also absolute names and ../'


@patch('basicsr.data.paired_image_dataset:PairedImageDataset.__init__', 'data/paired_image_dataset.py:60', _LISTED)
@patch('basicsr.data.single_image_dataset:SingleImageDataset.__init__', 'data/single_image_dataset.py:43', _LISTED)
@patch('basicsr.data.realesrgan_dataset:RealESRGANDataset.__init__', 'data/realesrgan_dataset.py:56', _LISTED)
@patch(
    'basicsr.data.realesrgan_paired_dataset:RealESRGANPairedDataset.__init__',
    'data/realesrgan_paired_dataset.py:64',
    _LISTED,
)
def _dataset_init(original: HostFunction) -> HostFunction:
    def init(self: Any, opt: dict[str, Any]) -> None:
        table = opt.get('meta_info_file') or opt.get('meta_info')
        try:
            original(self, opt)
        except FileNotFoundError as error:
            raise InputError(f'{error.filename}: no such file; correct the path in the option file.') from error
        except ValueError as error:
            raise InputError(
                f'{table or opt.get("dataroot_gt")}: not what {type(self).__name__} reads ({error}).'
            ) from error
        if opt['io_backend'].get('type') == 'lmdb':
            return
        folders = [opt[key] for key in ('dataroot_gt', 'dataroot_lq') if opt.get(key)]
        roots = tuple(os.path.join(os.path.abspath(folder), '') for folder in folders)
        for entry in self.paths:
            for path in entry.values() if isinstance(entry, dict) else [entry]:
                if not os.path.abspath(path).startswith(roots):
                    raise InputError(
                        f"{table}: {path!r} is not a file inside the dataset's folder; "
                        'give names relative to it, one a line.'
                    )

    return init
