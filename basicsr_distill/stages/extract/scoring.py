"""The first pass: every image is decoded once and all its windows are scored; results are saved in small parts."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from basicsr_distill.config.sections.base import PsnrMetric
from basicsr_distill.config.sections.extract import ExtractOptions
from basicsr_distill.io.arrays import read_arrays
from basicsr_distill.io.images import FoundImage, UnreadableImageError, decode_rgb, file_bytes, read_bytes
from basicsr_distill.ops.psnr import psnr_after_bicubic
from basicsr_distill.runtime.parallel import ordered_map
from basicsr_distill.runtime.progress import progress
from basicsr_distill.selection.duplicates import exact_fingerprint, perceptual_fingerprint
from basicsr_distill.stages.extract.filters import SourceFilters, WindowFilters
from basicsr_distill.stages.extract.layout import crop, num_parts, own_images, place_windows, reduced
from basicsr_distill.stages.extract.leaks import LeakIndex
from basicsr_distill.stages.extract.scores import SetAside
from basicsr_distill.stages.sharding import save_part

# Images of a worker's task: files, and pixels decoded before they are scored.
_GROUP_BYTES = 1 << 19
_GROUP_DECODED_BYTES = 1 << 24
# Windows handed over in one call: of more calls, threads wait for each other at Python's lock. No score depends on it.
_BATCH_BYTES = 1 << 22
_FINGERPRINTS = {'exact': exact_fingerprint, 'perceptual': perceptual_fingerprint}
_TEXTS = ('sha256', 'kinds', 'reason', 'detail')


def score_windows(
    images: Sequence[NDArray[np.uint8]], places: Sequence[NDArray[np.int32]], size: int, scale: int, metric: PsnrMetric
) -> list[NDArray[np.float32]]:
    """Scores of windows of some images, many windows at a time.

    Args:
        images: (H, W, 3), uint8, at least ``size`` on each side.
        places: of every image top and left of its windows, (N, 2), int32.
        size: side of the square windows, pixels.
        scale: of :func:`basicsr_distill.ops.psnr.psnr_after_bicubic`.
        metric: as there.

    Returns:
        For every image psnr_db, (N,), float32; flat windows are ``inf``.
    """
    windows = [(rgb, place) for rgb, own in zip(images, places) for place in own]
    count = max(1, min(len(windows), _BATCH_BYTES // (3 * size * size)))
    batch = torch.empty((count, 3, size, size), dtype=torch.uint8)
    planes = [list(patch) for patch in batch.numpy()]
    scores = []
    for first in range(0, len(windows), count):
        some = windows[first : first + count]
        for (rgb, place), patch in zip(some, planes):
            cv2.split(crop(rgb, place, size), patch)  # several times as fast as a transposed copy
        scores.append(psnr_after_bicubic(batch[: len(some)], scale, metric))
    psnr_db = torch.cat(scores).numpy() if scores else np.zeros(0, np.float32)
    return np.split(psnr_db, np.cumsum([len(own) for own in places])[:-1])


@dataclass
class Scored:
    """What the first pass learns about one image; the fields of all images of a part make its file."""

    sha256: str = ''
    height: int = 0  # as decoded
    width: int = 0
    kinds: str = ''
    reason: str = ''
    detail: str = ''
    reduced_by: float = 1.0  # factor that it was shrunk by before windows were cut
    # Top and left of its windows, (N, 2), pixels of the shrunk image.
    places: NDArray[np.int32] = field(default_factory=lambda: np.zeros((0, 2), np.int32))
    psnr_db: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))  # of the windows, (N,)
    # Of the windows, (N,) or none.
    fingerprints: NDArray[np.uint64] = field(default_factory=lambda: np.zeros(0, np.uint64))
    # Of the source filters.
    measures: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    # Of the window filters, (N, filters).
    window_measures: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 0), np.float32))

    def set_aside(self, reason: str, detail: str) -> None:
        """Give the image up, with its windows."""
        self.reason, self.detail = reason, detail
        self.places, self.psnr_db, self.fingerprints = self.places[:0], self.psnr_db[:0], self.fingerprints[:0]
        self.window_measures = self.window_measures[:0]


class Scoring:
    """The first pass of one rank.

    ``take`` gets the number, the pixels and the windows of each image while it is at hand.
    """

    def __init__(
        self,
        options: ExtractOptions,
        images: Sequence[FoundImage],
        leaks: LeakIndex,
        aside: SetAside,
        folder: Path,
        take: Callable[[int, NDArray[np.uint8], Scored], None],
    ) -> None:
        self.options = options
        self.images = images
        self.leaks = leaks
        self.aside = aside
        self.folder = folder
        self.take = take
        self.filters = SourceFilters(options.source_filters)
        self.window_filters = WindowFilters(options.window_filters)

    def run(self, num_workers: int) -> None:
        """Score the images of this rank's parts, but for those that an earlier run saved."""
        pending = [
            (number, part) for number, part in own_images(len(self.images)) if not self._part_path(number).is_file()
        ]
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
        scored = [
            scored
            for number in range(num_parts(len(self.images)))
            for scored in unpack(read_arrays(self._part_path(number)))
        ]
        usable = [image for image in scored if not image.reason]
        answers = self.filters.refuse_relative([image.measures for image in usable])
        for image, (reason, detail) in zip(usable, answers):
            if reason:
                image.set_aside(reason, detail)
        return scored

    def _part_path(self, number: int) -> Path:
        return self.folder / f'scored_{number:06d}.npz'

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
        if index in self.aside:
            return Scored(reason=self.aside[index][0], detail=self.aside[index][1]), None
        try:
            data = read_bytes(image.path)
            decoded = decode_rgb(data, str(image.path))
        except UnreadableImageError as error:
            if self.options.strict:
                raise
            return Scored(reason=error.reason, detail=error.detail), None
        rgb = decoded.rgb
        scored = Scored(hashlib.sha256(data).hexdigest(), rgb.shape[0], rgb.shape[1], ' '.join(decoded.kinds))
        if min(rgb.shape[:2]) < self.options.patch_size:
            scored.set_aside('too_small', f'{rgb.shape[1]}x{rgb.shape[0]}')
            return scored, None
        verdict = self.filters.measure(rgb)
        scored.measures = verdict.measures
        if verdict.reason:
            scored.set_aside(verdict.reason, verdict.detail)
            return scored, None
        scored.reduced_by = verdict.enlarged * (self.options.reduce or 1)
        rgb = reduced(rgb, scored.reduced_by)
        if min(rgb.shape[:2]) < self.options.patch_size:
            scored.set_aside('too_small', f'{rgb.shape[1]}x{rgb.shape[0]} once reduced by {scored.reduced_by:.3g}')
            return scored, None
        leak = self.leaks.find(scored.sha256, rgb)
        if leak is not None:
            scored.set_aside('leak', leak)
            return scored, None
        return scored, rgb

    def _score_decoded(self, images: Sequence[tuple[int, NDArray[np.uint8], Scored]]) -> None:
        options = self.options
        for index, rgb, scored in images:
            scored.places = place_windows(options, rgb, self.images[index].relative)
        scores = score_windows(
            [rgb for _, rgb, _ in images],
            [scored.places for _, _, scored in images],
            options.patch_size,
            options.scale,
            options.metric,
        )
        for (index, rgb, scored), psnr_db in zip(images, scores):
            scored.psnr_db = psnr_db
            windows = [crop(rgb, place, options.patch_size) for place in scored.places]
            scored.window_measures = self.window_filters.measure(windows)
            if options.deduplicate != 'off':
                fingerprint = _FINGERPRINTS[options.deduplicate]
                scored.fingerprints = np.array([fingerprint(window) for window in windows], np.uint64)
            self.take(index, rgb, scored)


def all_window_measures(scored: Sequence[Scored], filters: WindowFilters) -> NDArray[np.float32]:
    """Return what the filters measured of the windows of all images, (N, number of filters)."""
    count = len(filters.limits)
    return np.concatenate([image.window_measures.reshape(image.psnr_db.size, count) for image in scored])


def pack(scored: Sequence[Scored]) -> dict[str, NDArray[Any]]:
    """The arrays of a part's file."""
    texts = {
        name: np.array([getattr(image, name).encode('utf-8', 'surrogateescape') for image in scored]) for name in _TEXTS
    }
    return {
        **texts,
        'shape': np.array([(image.height, image.width) for image in scored]),
        'reduced_by': np.array([image.reduced_by for image in scored]),
        'count': np.array([image.psnr_db.size for image in scored]),
        'places': np.concatenate([image.places for image in scored]),
        'psnr_db': np.concatenate([image.psnr_db for image in scored]),
        'fingerprints': np.concatenate([image.fingerprints for image in scored]),
        'num_measures': np.array([image.measures.size for image in scored]),
        'measures': np.concatenate([image.measures for image in scored]),
        'num_window_measures': np.array([image.window_measures.size for image in scored]),
        'window_measures': np.concatenate([image.window_measures.ravel() for image in scored]),
    }


def unpack(part: dict[str, NDArray[Any]]) -> list[Scored]:
    """The images of a part's file, see :func:`pack`."""

    def split(name: str, sizes: NDArray[np.int64]) -> list[NDArray[Any]]:
        return np.split(part[name], np.cumsum(sizes)[:-1])

    count = part['count']
    places, psnr_db = split('places', count), split('psnr_db', count)
    fingerprints = split('fingerprints', count if part['fingerprints'].size else np.zeros_like(count))
    measures = split('measures', part['num_measures'])
    window_measures = split('window_measures', part['num_window_measures'])
    scored = []
    for number, windows in enumerate(count.tolist()):
        texts = {name: part[name][number].decode('utf-8', 'surrogateescape') for name in _TEXTS}
        height, width = part['shape'][number].tolist()
        scored.append(
            Scored(
                **texts,
                height=height,
                width=width,
                reduced_by=float(part['reduced_by'][number]),
                places=places[number],
                psnr_db=psnr_db[number],
                fingerprints=fingerprints[number],
                measures=measures[number],
                window_measures=window_measures[number].reshape(windows, -1)
                if windows
                else np.zeros((0, 0), np.float32),
            )
        )
    return scored
