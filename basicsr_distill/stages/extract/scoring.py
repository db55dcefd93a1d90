"""The first pass: every image is decoded once and all its windows are scored; results are saved in small parts."""

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from basicsr_distill.config.sections import ExtractOptions, PsnrMetric
from basicsr_distill.io.arrays import read_arrays
from basicsr_distill.io.images import FoundImage, UnreadableImageError, decode_rgb, file_bytes, read_bytes
from basicsr_distill.ops.psnr import psnr_after_bicubic
from basicsr_distill.runtime.parallel import ordered_map
from basicsr_distill.runtime.progress import progress
from basicsr_distill.selection.duplicates import exact_fingerprint, perceptual_fingerprint
from basicsr_distill.selection.scenes import SceneIndex
from basicsr_distill.stages.extract.filters import SourceFilters
from basicsr_distill.stages.extract.grid import Grid, num_parts, own_images
from basicsr_distill.stages.sharding import save_part

# Images of a worker's task: files, and pixels decoded before they are scored.
_GROUP_BYTES = 1 << 19
_GROUP_DECODED_BYTES = 1 << 24
# Windows handed over in one call: of more calls, threads wait for each other at Python's lock. No score depends on it.
_BATCH_BYTES = 1 << 22
_FINGERPRINTS = {'exact': exact_fingerprint, 'perceptual': perceptual_fingerprint}
_TEXTS = ('sha256', 'kinds', 'reason', 'detail')


def score_windows(images: Sequence[NDArray[np.uint8]], size: int, stride: int, scale: int,
                  metric: PsnrMetric) -> list[NDArray[np.float32]]:
    """Scores of all windows of the grids of some images, many windows at a time.

    Args:
        images: (H, W, 3), uint8, at least ``size`` on each side.
        size: side of the square windows, pixels.
        stride: of the grid, pixels; windows start at its multiples and lie wholly inside.
        scale: of :func:`basicsr_distill.ops.psnr.psnr_after_bicubic`.
        metric: as there.

    Returns:
        For every image psnr_db, (rows, columns), float32; flat windows are ``inf``.
    """
    grid = Grid(size, stride)
    shapes = [grid.shape(*rgb.shape[:2]) for rgb in images]
    windows = [(rgb, window) for rgb, shape in zip(images, shapes) for window in range(math.prod(shape))]
    count = max(1, min(len(windows), _BATCH_BYTES // (3 * size * size)))
    batch = torch.empty((count, 3, size, size), dtype=torch.uint8)
    planes = [list(patch) for patch in batch.numpy()]
    scores = []
    for first in range(0, len(windows), count):
        some = windows[first:first + count]
        for (rgb, window), patch in zip(some, planes):
            cv2.split(grid.crop(rgb, window), patch)  # several times as fast as a transposed copy
        scores.append(psnr_after_bicubic(batch[:len(some)], scale, metric))
    psnr_db = torch.cat(scores).numpy() if scores else np.zeros(0, np.float32)
    ends = np.cumsum([math.prod(shape) for shape in shapes])
    return [part.reshape(shape) for part, shape in zip(np.split(psnr_db, ends[:-1]), shapes)]


@dataclass
class Scored:
    """What the first pass learns about one image; the fields of all images of a part make its file."""

    sha256: str = ''
    height: int = 0
    width: int = 0
    kinds: str = ''
    reason: str = ''
    detail: str = ''
    psnr_db: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    fingerprints: NDArray[np.uint64] = field(default_factory=lambda: np.zeros(0, np.uint64))
    measures: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))


class Scoring:
    """The first pass of one rank.

    ``take`` gets the number, the pixels and the scores of each image while it is at hand.
    """

    def __init__(self, options: ExtractOptions, images: Sequence[FoundImage], scenes: SceneIndex, folder: Path,
                 take: Callable[[int, NDArray[np.uint8], NDArray[np.float32]], None]) -> None:
        self.options = options
        self.images = images
        self.scenes = scenes
        self.folder = folder
        self.take = take
        self.grid = Grid(options.patch_size, options.stride or options.patch_size)
        self.filters = SourceFilters(options.source_filters)

    def run(self, num_workers: int) -> None:
        """Score the images of this rank's parts, but for those that an earlier run saved."""
        pending = [(number, part) for number, part in own_images(len(self.images))
                   if not self._part_path(number).is_file()]
        with progress(sum(len(part) for _, part in pending), 'extract: score', 'image') as bar:
            groups = [group for _, part in pending for group in self._groups(part)]
            results = chain.from_iterable(ordered_map(self._score, groups, num_workers))
            for number, part in pending:
                scored = []
                for _ in part:
                    scored.append(next(results))
                    bar.update()
                save_part(self._part_path(number), pack(scored))

    def read_parts(self) -> list[Scored]:
        """The results of all ranks, image by image."""
        scored = [scored for number in range(num_parts(len(self.images)))
                  for scored in unpack(read_arrays(self._part_path(number)))]
        usable = [image for image in scored if not image.reason]
        answers = self.filters.refuse_relative([image.measures for image in usable])
        for image, (reason, detail) in zip(usable, answers):
            if reason:
                image.reason, image.detail = reason, detail
                image.psnr_db, image.fingerprints = image.psnr_db[:0], image.fingerprints[:0]
        return scored

    def _part_path(self, number: int) -> Path:
        return self.folder / f'{number:06d}.npz'

    def _groups(self, indices: Sequence[int]) -> list[list[int]]:
        """Small images of a part in one group, large ones alone: work that is worth handing to a thread."""
        groups: list[list[int]] = []
        room = 0
        for index in indices:
            size = file_bytes(self.images[index].path)
            if not groups or size > room:
                groups.append([])
                room = _GROUP_BYTES
            groups[-1].append(index)
            room -= size
        return groups

    def _score(self, indices: Sequence[int]) -> list[Scored]:
        """Decode some images and score their windows."""
        results = []
        waiting: list[tuple[int, NDArray[np.uint8], Scored]] = []
        for index in indices:
            scored, rgb = self._read(index)
            results.append(scored)
            if rgb is not None:
                waiting.append((index, rgb, scored))
            if sum(rgb.nbytes for _, rgb, _ in waiting) > _GROUP_DECODED_BYTES:
                self._score_decoded(waiting)
                waiting.clear()
        self._score_decoded(waiting)
        return results

    def _read(self, index: int) -> tuple[Scored, NDArray[np.uint8] | None]:
        """Decode one image; an unusable one is a reason, not an error."""
        image = self.images[index]
        try:
            data = read_bytes(image.path)
            decoded = decode_rgb(data, str(image.path))
        except UnreadableImageError as error:
            if self.options.strict:
                raise
            return Scored(reason=error.reason, detail=error.detail), None
        rgb = decoded.rgb
        scored = Scored(hashlib.sha256(data).hexdigest(), rgb.shape[0], rgb.shape[1], ' '.join(decoded.kinds))
        if min(rgb.shape[:2]) < self.grid.size:
            scored.reason, scored.detail = 'too_small', f'{rgb.shape[1]}x{rgb.shape[0]}'
            return scored, None
        scored.measures, scored.reason, scored.detail = self.filters.measure(rgb)
        if scored.reason:
            return scored, None
        test = self.scenes.find(rgb)
        if test is not None:
            scored.reason, scored.detail = 'leak', f'shows the scene of {test}'
            return scored, None
        return scored, rgb

    def _score_decoded(self, images: Sequence[tuple[int, NDArray[np.uint8], Scored]]) -> None:
        scores = score_windows([rgb for _, rgb, _ in images], self.grid.size, self.grid.stride, self.options.scale,
                               self.options.metric)
        for (index, rgb, scored), psnr_db in zip(images, scores):
            scored.psnr_db = psnr_db.ravel()
            if self.options.deduplicate != 'off':
                fingerprint = _FINGERPRINTS[self.options.deduplicate]
                scored.fingerprints = np.array([fingerprint(self.grid.crop(rgb, window))
                                                for window in range(psnr_db.size)], np.uint64)
            self.take(index, rgb, scored.psnr_db)


def pack(scored: Sequence[Scored]) -> dict[str, NDArray[Any]]:
    """The arrays of a part's file."""
    texts = {name: np.array([getattr(image, name).encode('utf-8', 'surrogateescape') for image in scored])
             for name in _TEXTS}
    return {**texts, 'shape': np.array([(image.height, image.width) for image in scored]),
            'count': np.array([image.psnr_db.size for image in scored]),
            'psnr_db': np.concatenate([image.psnr_db for image in scored]),
            'fingerprints': np.concatenate([image.fingerprints for image in scored]),
            'num_measures': np.array([image.measures.size for image in scored]),
            'measures': np.concatenate([image.measures for image in scored])}


def unpack(part: dict[str, NDArray[Any]]) -> list[Scored]:
    """The images of a part's file, see :func:`pack`."""
    ends = np.cumsum(part['count'])
    prints = part['fingerprints']
    # Parts of earlier versions hold no measures, and were made without filters.
    num_measures = part.get('num_measures', np.zeros(len(ends), np.int64))
    measures = np.split(part.get('measures', np.zeros(0, np.float32)), np.cumsum(num_measures)[:-1])
    scored = []
    for number, (end, count) in enumerate(zip(ends, part['count'])):
        texts = {name: part[name][number].decode('utf-8', 'surrogateescape') for name in _TEXTS}
        scored.append(Scored(**texts, height=int(part['shape'][number, 0]), width=int(part['shape'][number, 1]),
                             psnr_db=part['psnr_db'][end - count:end],
                             fingerprints=prints[end - count:end] if prints.size else prints,
                             measures=measures[number]))
    return scored
