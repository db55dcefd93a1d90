"""A folder of LR images for a folder of HR images, as BasicSR's paired datasets want them."""

import logging
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from basicsr_distill.errors import InputError
from basicsr_distill.io.images import UnreadableImageError, find_images, is_whole_png, read_rgb, write_png
from basicsr_distill.ops.bicubic import make_lr
from basicsr_distill.runtime.parallel import default_workers, one_thread_per_operation, ordered_map
from basicsr_distill.stages.pack_lmdb import pack_lmdb

log = logging.getLogger(__name__)


def generate_lr_folder(
    hr_folder: Path, lr_folder: Path, scale: int, filename_tmpl: str = '{}', cropped_folder: Path | None = None
) -> int:
    """Crop HR images to a multiple of the scale and downsample them as MATLAB's ``imresize`` does.

    Sub-folders and names are kept, with the suffix ``.png``; images that are there already are kept too, so an
    interrupted run continues.

    Args:
        hr_folder: searched recursively.
        lr_folder: LR images go here.
        scale: integer factor, 2 or more.
        filename_tmpl: BasicSR's, for the LR names: ``{}x4`` for DIV2K's own.
        cropped_folder: if given, the cropped HR images go here (``GTmod12`` with scale 12 in BasicSR's benchmarks).

    Returns:
        How many images were written.

    Raises:
        InputError: the folders overlap or hold no images, a name is made twice, or an image is broken or too small.
    """
    if scale < 2 or filename_tmpl.count('{}') != 1:
        raise InputError('scale must be at least 2, and filename_tmpl must hold {} once.')
    outputs = [folder.resolve() for folder in (lr_folder, cropped_folder) if folder is not None]
    root = hr_folder.resolve()
    if any(root == folder or root in folder.parents for folder in outputs):
        raise InputError(
            f'{lr_folder}: the output must lie outside {hr_folder}, or its images would be taken for HR images.'
        )
    images = find_images([hr_folder])
    if not images:
        raise InputError(f'{hr_folder}: no image found; give a folder of HR images.')
    targets: dict[Path, Path] = {}
    for image in images:
        relative = image.path.relative_to(root)
        target = relative.with_name(f'{filename_tmpl.format(relative.stem)}.png')
        if target in targets:
            raise InputError(f'{hr_folder}: {relative} and {targets[target]} would both become {target}; rename one.')
        targets[target] = relative
    make = partial(_make_one, root, lr_folder, scale, cropped_folder)
    with one_thread_per_operation():
        results = ordered_map(make, targets.items(), default_workers())
        return sum(tqdm(results, total=len(targets), desc='LR', unit='image', disable=None))


def pack_lr_folder(folder: Path) -> Path:
    """Pack the LR images of a folder for BasicSR's lmdb backend, beside it and with its name and ``.lmdb``.

    Keys are names without suffix, as in the lmdb that the extract stage packs, so that both make pairs.

    Raises:
        InputError: images lie in sub-folders, or one has a dot in its name, which BasicSR cuts keys at.
    """
    target = folder.with_name(f'{folder.name}.lmdb')
    names = [image.relative for image in find_images([folder])]
    if odd := next((name for name in names if '/' in name or '.' in Path(name).stem), None):
        raise InputError(
            f'{folder}: {odd} cannot be a key of an lmdb, which holds names without folders and dots; rename it.'
        )
    pack_lmdb(folder, names, target)
    return target


def _make_one(root: Path, lr_folder: Path, scale: int, cropped_folder: Path | None, names: tuple[Path, Path]) -> bool:
    target, relative = names
    wanted = [lr_folder / target] + ([cropped_folder / relative.with_suffix('.png')] if cropped_folder else [])
    if all(is_whole_png(path) for path in wanted):
        return False
    hr = read_rgb(root / relative)
    height, width = (length - length % scale for length in hr.shape[:2])
    if not height or not width:
        raise UnreadableImageError(str(root / relative), 'too_small', f'smaller than {scale} pixels')
    hr = np.ascontiguousarray(hr[:height, :width])
    for path, image in zip(wanted, (make_lr(hr, scale), hr)):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_png(path, image)
    return True
