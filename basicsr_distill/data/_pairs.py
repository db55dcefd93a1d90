"""The files of ``DistilledPatchDataset``: HR images and their LR partners."""

import logging
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from basicsr_distill.config.sections.datasets import DistilledPatchDatasetOptions
from basicsr_distill.errors import InputError
from basicsr_distill.io.files import safe_join
from basicsr_distill.io.headers import pair_fault
from basicsr_distill.io.images import find_images, image_shape, read_rgb
from basicsr_distill.io.manifest import HR_FOLDER, MANIFEST_NAME, SetRow, read_table
from basicsr_distill.ops.bicubic import make_lr

# What BasicSR writes behind a name in its lists, as ``name (h,w,c)``.
_SHAPE = re.compile(r' \(\d+,\s?\d+,\s?\d+\)$')

# DIV2K's names of LR images: ``0001x4``.
_SIZE_SUFFIX = re.compile(r'x\d+$')
# Pictures whose sizes are compared in two folders.
_PROBES = 16


@dataclass(frozen=True)
class Pair:
    """hr: an image file.  lr: its partner, or None to make it from hr."""

    hr: Path
    lr: Path | None


def find_pairs(options: DistilledPatchDatasetOptions, scale: int) -> list[Pair]:
    """The files that a dataset's options name, in their order.

    Raises:
        InputError: a folder is missing or empty, a partner is missing, a list leaves the folder.
    """
    root = Path(options.dataroot_gt)
    if not root.is_dir() or root.suffix == '.lmdb':
        raise InputError(f'dataroot_gt: {root} is not a folder of images; for an lmdb use PairedImageDataset.')
    root = root.resolve()
    if root.name == HR_FOLDER and (root.parent / MANIFEST_NAME).is_file():
        root = root.parent
    if (root / HR_FOLDER).is_dir() and (root / MANIFEST_NAME).is_file():
        pairs = _pairs_of_distilled_set(options, root, scale)
    else:
        pairs = _pairs_of_folder(options, root)
    if not pairs:
        raise InputError(f'dataroot_gt: {options.dataroot_gt} holds no images; point it at a folder of HR images.')
    return pairs


def _pairs_of_distilled_set(options: DistilledPatchDatasetOptions, root: Path, scale: int) -> list[Pair]:
    lr_folder = root / 'LR_bicubic' / f'X{scale}'
    foreign = [
        key
        for key in ('dataroot_lq', 'meta_info_file', 'meta_info')
        if (value := getattr(options, key)) and root.resolve() not in Path(value).resolve().parents
    ]
    if foreign:
        logging.getLogger('basicsr').warning(
            '%s: a distilled set brings its own; %s ignored.', root, ' and '.join(foreign)
        )
    rows = read_table(root / MANIFEST_NAME, SetRow)
    if options.labels is not None:
        known = {row.label for row in rows}
        if missing := sorted(set(options.labels) - known):
            raise InputError(f'labels: {root} has no cluster {missing[0]}; it has {sorted(known)}.')
        rows = [row for row in rows if row.label in options.labels]
    # First the first of every label, then the second: the first N are spread evenly over the clusters.
    seen: Counter[int] = Counter()
    ranked = []
    for row in sorted(rows, key=lambda row: (row.label, row.index)):
        ranked.append((seen[row.label], row.label, row))
        seen[row.label] += 1
    rows = [row for _, _, row in sorted(ranked, key=lambda item: item[:2])][: _count(options, len(rows))]
    return [Pair(root / HR_FOLDER / row.name, lr if (lr := lr_folder / row.name).is_file() else None) for row in rows]


def _pairs_of_folder(options: DistilledPatchDatasetOptions, root: Path) -> list[Pair]:
    if options.labels is not None:
        raise InputError(f'labels: {root} is not a distilled set (it has no {MANIFEST_NAME}); remove the key.')
    if options.meta_info:
        raise InputError(
            'meta_info: lists of pairs are read by RealESRGANPairedDataset; remove the key, or list HR images '
            'in a meta_info_file.'
        )
    if options.meta_info_file:
        table = Path(options.meta_info_file)
        try:
            lines = table.read_text(encoding='utf-8').splitlines()
        except OSError as error:
            raise InputError(f'meta_info_file: {table} cannot be read ({error.strerror}).') from error
        paths = [safe_join(root, _SHAPE.sub('', line.strip()), listed_in=table) for line in lines if line.strip()]
    else:
        paths = [image.path for image in find_images([root])]
    _refuse_versions(root, paths)
    if (several := Counter(path.name for path in paths).most_common(1)) and several[0][1] > 1:
        logging.getLogger('basicsr').warning(
            '%s: %s lies in %d of its folders; all are read, so point dataroot_gt at one of '
            'them if they are versions of the same images.',
            root,
            *several[0],
        )
    count = _count(options, len(paths))
    paths = [paths[number * len(paths) // count] for number in range(count)]  # evenly: neighbours are often alike
    if options.dataroot_lq is None:
        return [Pair(path, None) for path in paths]
    lq_root = Path(options.dataroot_lq)
    pairs = []
    for path in paths:
        relative = path.relative_to(root)
        lr = lq_root / relative.with_name(options.filename_tmpl.format(path.stem) + path.suffix)
        if not lr.is_file():
            raise InputError(
                f'dataroot_lq: {lr} is missing, the partner of {path}; '
                'correct dataroot_lq or filename_tmpl, or leave dataroot_lq out.'
            )
        pairs.append(Pair(path, lr))
    return pairs


def _refuse_versions(root: Path, paths: Sequence[Path]) -> None:
    """Refuse a folder whose sub-folders hold the same pictures at several sizes, as BasicSR's downloads do.

    Raises:
        InputError: names the sub-folder with the largest ones.
    """
    by_folder: dict[Path, dict[str, Path]] = {}
    holders: dict[str, list[Path]] = {}
    for path in paths:
        name = _SIZE_SUFFIX.sub('', path.stem)
        by_folder.setdefault(path.parent, {})[name] = path
        holders.setdefault(name, []).append(path.parent)
    for small, theirs in by_folder.items():
        for large in holders[next(iter(theirs))]:
            own = by_folder[large]
            if (
                large != small
                and theirs.keys() <= own.keys()
                and all(_is_reduced(image_shape(own[name]), image_shape(theirs[name])) for name in [*theirs][:_PROBES])
            ):
                raise InputError(
                    f'dataroot_gt: {root}: {small.relative_to(root)} holds the pictures of '
                    f'{large.relative_to(root)} at a smaller size; point it at {large}.'
                )


def _is_reduced(large: tuple[int, int], small: tuple[int, int]) -> bool:
    """Whether a (height, width) is another one's divided by a whole number of at least 2."""
    factor = round(large[0] / small[0])
    return factor >= 2 and all(one // factor == other or -(-one // factor) == other for one, other in zip(large, small))


def _count(options: DistilledPatchDatasetOptions, available: int) -> int:
    wanted = options.num_images or available
    if wanted > available:
        raise InputError(f'num_images: {wanted} images are asked for, {options.dataroot_gt} holds {available}.')
    return wanted


def shape_of_pair(pair: Pair, scale: int, is_train: bool) -> tuple[int, int]:
    """Height and width of the HR image as :func:`read_pair` gives it, from the headers of its files.

    Raises:
        InputError: as :func:`read_pair`, but for what only decoding shows.
    """
    hr = image_shape(pair.hr)
    return _usable_shape(pair, hr, hr if pair.lr is None else image_shape(pair.lr), scale, is_train)


def crop_side(gt_size: int, sides: Sequence[int]) -> int:
    """Return the side of training crops: ``gt_size``, or what half of the images have where that is less.

    So a set of 128-px patches is cropped to 128, and one small image among larger ones has no say.

    >>> crop_side(256, [128, 128, 40]), crop_side(96, [128, 128, 40])
    (128, 96)

    Args:
        gt_size: as asked for, pixels.
        sides: the shorter side of every image, pixels.
    """
    return min(gt_size, sorted(sides)[len(sides) // 2])


def read_pair(pair: Pair, scale: int, is_train: bool) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Read an HR image and its LR partner, RGB, (scale * h, scale * w, 3) and (h, w, 3), uint8.

    Args:
        pair: the files; the LR image is made where it has none.
        scale: factor between the two.
        is_train: whether an HR image must be of just that size; else what its partner does not show is cropped off.

    Raises:
        InputError: a file cannot be read, or the sizes do not match.
    """
    hr = read_rgb(pair.hr)
    lr = None if pair.lr is None else read_rgb(pair.lr)
    height, width = _usable_shape(pair, hr.shape[:2], (hr if lr is None else lr).shape[:2], scale, is_train)
    hr = hr[:height, :width]
    return hr, make_lr(hr, scale) if lr is None else lr


def _usable_shape(pair: Pair, hr: tuple[int, ...], lr: tuple[int, ...], scale: int, is_train: bool) -> tuple[int, int]:
    """(height, width) of the part of an HR image that its LR partner shows."""
    if pair.lr is None:
        height, width = (length - length % scale for length in hr)
        if not height or not width:
            raise InputError(f'{pair.hr}: is smaller than the scale {scale}; remove it.')
        return height, width
    if fault := pair_fault((hr[1], hr[0]), (lr[1], lr[0]), scale, is_train):
        raise InputError(f'{pair.lr}: {fault} (the HR image is {pair.hr}).')
    # Benchmarks hold LR images made after cropping HR to a multiple of the scale.
    return lr[0] * scale, lr[1] * scale
