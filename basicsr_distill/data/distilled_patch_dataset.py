"""``DistilledPatchDataset``: HR images with LR partners, from a distilled set or any folder of photos."""

import logging
from collections.abc import Sequence
from functools import partial
from typing import Any

import cv2
import numpy as np
import torch
from basicsr.utils import bgr2ycbcr
from basicsr.utils.registry import DATASET_REGISTRY
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info
from torchvision.transforms.functional import normalize

from basicsr_distill.config.registry import bind_dataset
from basicsr_distill.config.sections.datasets import DistilledPatchDatasetOptions
from basicsr_distill.data._pairs import crop_side, find_pairs, read_pair, shape_of_pair
from basicsr_distill.errors import InputError
from basicsr_distill.runtime.parallel import default_workers, ordered_map

# Decoded images of a dataset are kept in memory up to this much, over all its data workers.
MAX_CACHE_BYTES = 4 << 30
# Without being asked, only sets that are smaller as a whole: a distilled set takes a few megabytes.
MAX_AUTO_CACHE_BYTES = 512 << 20
_NAMED = 3


@DATASET_REGISTRY.register()
class DistilledPatchDataset(Dataset[dict[str, Any]]):
    """Takes PairedImageDataset's place in an option file.

    ``dataroot_gt`` is a distilled set (the folder with ``HR/`` and ``manifest.csv``), its ``HR`` folder, or any folder
    of HR images, searched recursively. A distilled set brings its own LR images and its own list, so that
    ``dataroot_lq``, ``meta_info_file``, ``filename_tmpl`` and ``io_backend`` left over from another set are ignored.
    For a plain folder they are honoured, and without ``dataroot_lq`` the LR images are made here, MATLAB-compatible,
    from HR images cropped to a multiple of the scale.

    Args:
        opt: the dataset's section with BasicSR's ``phase`` and ``scale``; its keys are those of
            :class:`~basicsr_distill.config.sections.DistilledPatchDatasetOptions`. ``labels`` keeps those clusters;
            ``num_images`` keeps that many, taken evenly from the clusters; ``cache: ram`` keeps what was decoded once,
            up to 4 GiB, and ``auto`` (the default) does so for sets that take less than 512 MiB.

    Items: ``lq`` (3, h, w) and ``gt`` (3, h*scale, w*scale), float32, RGB (or one luma channel with ``color: y``), [0,
    1] before ``mean`` and ``std``; ``lq_path``, ``gt_path``. In training a random crop of ``gt_size`` (of sets of
    smaller images: of their usual side, see :func:`crop_side`), flips and rotations are drawn from torch's generator.

    Raises:
        InputError: a key is wrong, a folder is missing or empty, a partner is missing or of the wrong size, an image is
            broken (judged from its header until it is used).
    """

    def __init__(self, opt: dict[str, Any]) -> None:
        self.opt = opt
        self.options: DistilledPatchDatasetOptions = bind_dataset(opt)
        self.scale = int(opt['scale'])
        self.is_train = opt['phase'] == 'train'
        gt_size = self._checked_gt_size() if self.is_train else 0
        self.pairs = find_pairs(self.options, self.scale)
        shape = partial(shape_of_pair, scale=self.scale, is_train=self.is_train)
        shapes = list(ordered_map(shape, self.pairs, default_workers()))
        self._decoded_bytes = sum(3 * height * width * (1 + 1 / self.scale**2) for height, width in shapes)
        self._cache: dict[int, tuple[NDArray[np.uint8], NDArray[np.uint8]]] = {}
        self._cached_bytes = 0
        if self.options.cache == 'ram' and self._decoded_bytes > MAX_CACHE_BYTES:
            logging.getLogger('basicsr').warning(
                '%s: decoded it takes %.1f GiB, of which %.1f are kept in memory.',
                self.options.dataroot_gt,
                self._decoded_bytes / 2**30,
                MAX_CACHE_BYTES / 2**30,
            )
        if self.is_train:
            self.gt_size = crop_side(gt_size, [min(shape) for shape in shapes])
            self._say_what_is_smaller(gt_size, [min(shape) for shape in shapes])

    def __getstate__(self) -> dict[str, Any]:
        # A spawned worker gets the list of files, not a copy of every image.
        return {**self.__dict__, '_cache': {}, '_cached_bytes': 0}

    @property
    def paths(self) -> list[dict[str, str]]:
        """The files of each item, as PairedImageDataset has them."""
        return [self.paths_of(index) for index in range(len(self))]

    def paths_of(self, index: int) -> dict[str, str]:
        """``lq_path`` (the HR image's where its LR is made here) and ``gt_path`` of an item."""
        pair = self.pairs[index]
        return {'lq_path': str(pair.lr or pair.hr), 'gt_path': str(pair.hr)}

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> dict[str, Any]:
        hr, lr = self._cache[index] if index in self._cache else self._read_and_keep(index)
        if self.is_train:
            hr, lr = self._crop_and_turn(hr, lr)
        gt, lq = self._to_tensor(hr), self._to_tensor(lr)
        return {'lq': lq, 'gt': gt, **self.paths_of(index)}

    def _read_and_keep(self, index: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        images = read_pair(self.pairs[index], self.scale, self.is_train)
        worker = get_worker_info()
        share = 1 if worker is None else worker.num_workers  # each worker comes to keep the images it was asked for
        if self.options.cache == 'ram':
            limit = MAX_CACHE_BYTES // share
        else:
            limit = MAX_AUTO_CACHE_BYTES // share if self._decoded_bytes * share <= MAX_AUTO_CACHE_BYTES else 0
        num_bytes = sum(image.nbytes for image in images)
        if self.options.cache != 'none' and self._cached_bytes + num_bytes <= limit:
            self._cache[index] = np.ascontiguousarray(images[0]), images[1]  # a view would keep the columns cropped off
            self._cached_bytes += num_bytes
        return images

    def _checked_gt_size(self) -> int:
        if self.options.gt_size is None:
            raise InputError('gt_size: the crop of the training images is missing.')
        if self.options.gt_size % self.scale:
            raise InputError(f'gt_size: {self.options.gt_size} is not a multiple of the scale {self.scale}.')
        return self.options.gt_size

    def _say_what_is_smaller(self, gt_size: int, sides: Sequence[int]) -> None:
        logger = logging.getLogger('basicsr')
        if self.gt_size < gt_size:
            logger.warning(
                'gt_size: %d is larger than the images of %s; cropping %d instead.',
                gt_size,
                self.options.dataroot_gt,
                self.gt_size,
            )
        small = [pair.hr.name for pair, side in zip(self.pairs, sides) if side < self.gt_size]
        if small:
            listed = ', '.join(small[:_NAMED]) + (f' and {len(small) - _NAMED} more' if len(small) > _NAMED else '')
            logger.warning(
                '%s: %d of %d images are smaller than the crop of %d and are continued by their mirror image: %s.',
                self.options.dataroot_gt,
                len(small),
                len(sides),
                self.gt_size,
                listed,
            )

    def _crop_and_turn(
        self, hr: NDArray[np.uint8], lr: NDArray[np.uint8]
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        size = self.gt_size // self.scale
        hr, lr = continued(hr, self.gt_size), continued(lr, size)
        top, left = (int(torch.randint(length - size + 1, ())) for length in lr.shape[:2])
        flip, turn_over, transpose = (torch.rand(3) < 0.5).tolist()

        def cut(image: NDArray[np.uint8], step: int) -> NDArray[np.uint8]:
            image = image[top * step : (top + size) * step, left * step : (left + size) * step]
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


def continued(image: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Continue an image by its mirror image to the right and below until both sides have ``side`` pixels.

    The edge is mirrored with its pixels, as bicubic resizing takes what lies beyond it: the continued LR image is that
    of the continued HR image.

    Args:
        image: (H, W, 3), uint8; returned as it is where it is large enough.
        side: pixels.
    """
    below, right = (max(0, side - length) for length in image.shape[:2])
    if not below and not right:
        return image
    return np.asarray(cv2.copyMakeBorder(image, 0, below, 0, right, cv2.BORDER_REFLECT), np.uint8)
