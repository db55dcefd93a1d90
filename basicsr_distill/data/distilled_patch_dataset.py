"""``DistilledPatchDataset``: HR images with LR partners, from a distilled set or any folder of photos."""

import logging
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from basicsr.utils import bgr2ycbcr
from basicsr.utils.registry import DATASET_REGISTRY
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms.functional import normalize

from basicsr_distill.config.registry import bind_dataset
from basicsr_distill.config.sections import DistilledPatchDatasetOptions
from basicsr_distill.errors import InputError
from basicsr_distill.io.files import safe_join
from basicsr_distill.io.images import find_images, read_rgb
from basicsr_distill.io.manifest import HR_FOLDER, MANIFEST_NAME, SampleRow, read_table
from basicsr_distill.ops.bicubic import make_lr

# Decoded images are kept in memory up to this much; a distilled set takes a few megabytes.
MAX_CACHE_BYTES = 4 << 30


@dataclass(frozen=True)
class _Pair:
    """hr: an image file.  lr: its partner, or None to make it from hr."""

    hr: Path
    lr: Path | None


@DATASET_REGISTRY.register()
class DistilledPatchDataset(Dataset[dict[str, Any]]):
    """Takes PairedImageDataset's place in an option file.

    ``dataroot_gt`` is a distilled set (the folder with ``HR/`` and ``manifest.csv``), its ``HR`` folder, or any folder of HR
    images, searched recursively. A distilled set brings its own LR images and its own list, so that ``dataroot_lq``,
    ``meta_info_file``, ``filename_tmpl`` and ``io_backend`` left over from another set are ignored. For a plain
    folder they are honoured, and without ``dataroot_lq`` the LR images are made here, MATLAB-compatible, from HR images
    cropped to a multiple of the scale.

    Args:
        opt: the dataset's section with BasicSR's ``phase`` and ``scale``; its keys are those of
            :class:`~basicsr_distill.config.sections.DistilledPatchDatasetOptions`. ``labels`` keeps those clusters;
            ``num_images`` keeps that many, taken evenly from the clusters; ``cache: ram`` decodes every image once.

    Items: ``lq`` (3, h, w) and ``gt`` (3, h*scale, w*scale), float32, RGB (or one luma channel with ``color: y``), [0, 1] before
    ``mean`` and ``std``; ``lq_path``, ``gt_path``. In training a random crop of ``gt_size`` (at most the smallest image), flips
    and rotations are drawn from torch's generator.

    Raises:
        InputError: a folder is missing or empty, a partner is missing or of the wrong size, an image is broken.
    """

    def __init__(self, opt: dict[str, Any]) -> None:
        self.opt = opt
        self.options: DistilledPatchDatasetOptions = bind_dataset(opt)
        self.scale = int(opt['scale'])
        self.is_train = opt['phase'] == 'train'
        self.pairs = self._find_pairs()
        self._cache: dict[int, tuple[NDArray[np.uint8], NDArray[np.uint8]]] = {}
        if self.options.cache == 'ram':
            self._fill_cache()
        if self.is_train:
            self.gt_size = self._usable_gt_size()

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> dict[str, Any]:
        hr, lr = self._cache[index] if index in self._cache else self._read(index)
        if self.is_train:
            hr, lr = self._crop_and_turn(hr, lr)
        gt, lq = self._to_tensor(hr), self._to_tensor(lr)
        pair = self.pairs[index]
        return {'lq': lq, 'gt': gt, 'lq_path': str(pair.lr or pair.hr), 'gt_path': str(pair.hr)}

    def _find_pairs(self) -> list[_Pair]:
        root = Path(self.options.dataroot_gt)
        if not root.is_dir() or root.suffix == '.lmdb':
            raise InputError(f'dataroot_gt: {root} is not a folder of images; for an lmdb use PairedImageDataset.')
        root = root.resolve()
        if root.name == HR_FOLDER and (root.parent / MANIFEST_NAME).is_file():
            root = root.parent
        if (root / HR_FOLDER).is_dir() and (root / MANIFEST_NAME).is_file():
            pairs = self._pairs_of_distilled_set(root)
        else:
            pairs = self._pairs_of_folder(root)
        if not pairs:
            raise InputError(f'dataroot_gt: {self.options.dataroot_gt} holds no images; point it at a folder of HR images.')
        return pairs

    def _pairs_of_distilled_set(self, root: Path) -> list[_Pair]:
        lr_folder = root / 'LR_bicubic' / f'X{self.scale}'
        foreign = [key for key in ('dataroot_lq', 'meta_info_file', 'meta_info')
                   if (value := getattr(self.options, key)) and root.resolve() not in Path(value).resolve().parents]
        if foreign:
            logging.getLogger('basicsr').warning('%s: a distilled set brings its own; %s ignored.', root, ' and '.join(foreign))
        rows = read_table(root / MANIFEST_NAME, SampleRow)
        if self.options.labels is not None:
            known = {row.label for row in rows}
            if missing := sorted(set(self.options.labels) - known):
                raise InputError(f'labels: {root} has no cluster {missing[0]}; it has {sorted(known)}.')
            rows = [row for row in rows if row.label in self.options.labels]
        # First the first of every label, then the second: the first N are spread evenly over the clusters.
        seen: Counter[int] = Counter()
        ranked = []
        for row in sorted(rows, key=lambda row: (row.label, row.index)):
            ranked.append((seen[row.label], row.label, row))
            seen[row.label] += 1
        rows = [row for _, _, row in sorted(ranked, key=lambda item: item[:2])][:self._count(len(rows))]
        return [_Pair(root / HR_FOLDER / row.name, lr if (lr := lr_folder / row.name).is_file() else None) for row in rows]

    def _pairs_of_folder(self, root: Path) -> list[_Pair]:
        if self.options.labels is not None:
            raise InputError(f'labels: {root} is not a distilled set (it has no {MANIFEST_NAME}); remove the key.')
        if self.options.meta_info:
            raise InputError('meta_info: lists of pairs are read by RealESRGANPairedDataset; remove the key, or list HR images '
                             'in a meta_info_file.')
        if self.options.meta_info_file:
            table = Path(self.options.meta_info_file)
            try:
                lines = table.read_text(encoding='utf-8').splitlines()
            except OSError as error:
                raise InputError(f'meta_info_file: {table} cannot be read ({error.strerror}).') from error
            paths = [safe_join(root, line.split(' (')[0].strip(), listed_in=table) for line in lines if line.strip()]
        else:
            paths = [image.path for image in find_images([root])]
        paths = paths[:self._count(len(paths))]
        if self.options.dataroot_lq is None:
            return [_Pair(path, None) for path in paths]
        lq_root = Path(self.options.dataroot_lq)
        pairs = []
        for path in paths:
            relative = path.relative_to(root)
            lr = lq_root / relative.with_name(self.options.filename_tmpl.format(path.stem) + path.suffix)
            if not lr.is_file():
                raise InputError(f'dataroot_lq: {lr} is missing, the partner of {path}; '
                                 'correct dataroot_lq or filename_tmpl, or leave dataroot_lq out.')
            pairs.append(_Pair(path, lr))
        return pairs

    def _count(self, available: int) -> int:
        wanted = self.options.num_images or available
        if wanted > available:
            raise InputError(f'num_images: {wanted} images are asked for, {self.options.dataroot_gt} holds {available}.')
        return wanted

    def _read(self, index: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        pair = self.pairs[index]
        hr = read_rgb(pair.hr)
        if pair.lr is None:
            height, width = (length - length % self.scale for length in hr.shape[:2])
            if not height or not width:
                raise InputError(f'{pair.hr}: is smaller than the scale {self.scale}; remove it.')
            hr = hr[:height, :width]
            return hr, make_lr(hr, self.scale)
        lr = read_rgb(pair.lr)
        # Benchmarks hold LR images made after cropping HR to a multiple of the scale.
        hr = hr if self.is_train else hr[:lr.shape[0] * self.scale, :lr.shape[1] * self.scale]
        if hr.shape[:2] != (lr.shape[0] * self.scale, lr.shape[1] * self.scale):
            raise InputError(f'{pair.lr}: is {lr.shape[1]}x{lr.shape[0]}, but {pair.hr} is {hr.shape[1]}x{hr.shape[0]}; '
                             f'at scale {self.scale} they do not match.')
        return hr, lr

    def _fill_cache(self) -> None:
        used = 0
        for index in range(len(self.pairs)):
            images = self._read(index)
            used += sum(image.nbytes for image in images)
            if used > MAX_CACHE_BYTES:
                logging.getLogger('basicsr').warning('%s: %d of %d images fit the cache; `cache: none` saves the wait.',
                                                     self.options.dataroot_gt, index, len(self.pairs))
                return
            self._cache[index] = images

    def _usable_gt_size(self) -> int:
        if self.options.gt_size is None:
            raise InputError('gt_size: the crop of the training images is missing.')
        if self.options.gt_size % self.scale:
            raise InputError(f'gt_size: {self.options.gt_size} is not a multiple of the scale {self.scale}.')
        smallest = min((min(hr.shape[:2]) for hr, _ in self._cache.values()), default=self.options.gt_size)
        usable = min(self.options.gt_size, smallest - smallest % self.scale)
        if usable < self.options.gt_size:
            logging.getLogger('basicsr').warning('gt_size: %d is larger than the smallest image of %s; cropping %d instead.',
                                                 self.options.gt_size, self.options.dataroot_gt, usable)
        return usable

    def _crop_and_turn(self, hr: NDArray[np.uint8], lr: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        size = self.gt_size // self.scale
        if min(lr.shape[:2]) < size:
            raise InputError(f'gt_size: {self.gt_size} is larger than an image of {self.options.dataroot_gt}; lower it.')
        top, left = (int(torch.randint(length - size + 1, ())) for length in lr.shape[:2])
        flip, turn_over, transpose = (torch.rand(3) < 0.5).tolist()

        def cut(image: NDArray[np.uint8], step: int) -> NDArray[np.uint8]:
            image = image[top * step:(top + size) * step, left * step:(left + size) * step]
            if self.options.use_hflip and flip:
                image = image[:, ::-1]
            if self.options.use_rot and turn_over:
                image = image[::-1]
            return image.transpose(1, 0, 2) if self.options.use_rot and transpose else image

        return cut(hr, self.scale), cut(lr, 1)

    def _to_tensor(self, image: NDArray[np.uint8]) -> Tensor:
        pixels = image.astype(np.float32) / 255
        if self.options.color == 'y':
            pixels = bgr2ycbcr(np.ascontiguousarray(pixels[..., ::-1]), y_only=True)[..., None]
        tensor = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))
        if self.options.mean is not None and self.options.std is not None:
            normalize(tensor, self.options.mean, self.options.std, inplace=True)
        return tensor
