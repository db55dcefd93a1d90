"""The first stage: grid patches of photographs that lose much when they are shrunk and enlarged again.

Two passes. The first decodes every image once and scores all its windows; its results are kept in small parts, so an
interrupted run goes on where it was. Then the threshold is known, every rank picks the same patches, and the second
pass writes them: from decoded images that are still in memory, else decoding those again that hold a chosen patch. Where
the threshold is given in decibels and nothing else has a say, patches are written while scoring: one pass does it all.
"""

import errno
import hashlib
import logging
import math
import re
import shutil
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from basicsr_distill.config.sections import ExtractOptions, PsnrMetric
from basicsr_distill.errors import InputError
from basicsr_distill.io.figures import save_psnr_histogram
from basicsr_distill.io.images import (
    FoundImage,
    UnreadableImageError,
    decode_rgb,
    file_bytes,
    find_images,
    fingerprint_images,
    is_whole_png,
    read_bytes,
    read_rgb,
    write_png,
)
from basicsr_distill.io.manifest import (
    IMAGES_FOLDER,
    MANIFEST_NAME,
    META_INFO_NAME,
    PatchRow,
    write_csv,
    write_meta_info,
    write_table,
)
from basicsr_distill.ops.psnr import psnr_after_bicubic
from basicsr_distill.runtime import distributed
from basicsr_distill.runtime.parallel import default_workers, one_thread_per_operation, ordered_map
from basicsr_distill.runtime.progress import progress
from basicsr_distill.selection.duplicates import exact_fingerprint, perceptual_fingerprint, repeated
from basicsr_distill.selection.scenes import SceneIndex
from basicsr_distill.selection.thresholds import hardest_db, histogram_text, threshold_db
from basicsr_distill.stages.record import StageRun, refuse_overlap
from basicsr_distill.stages.sharding import load_part, own_parts, save_part, shared_stage_folder

QUARANTINE_NAME = 'quarantine.csv'
_IMAGES_PER_PART = 32
# Decoded images kept between the passes, bytes per rank.
_CACHE_BYTES = 512 << 20
# Images of a worker's task: files, and pixels decoded before they are scored.
_GROUP_BYTES = 1 << 19
_GROUP_DECODED_BYTES = 1 << 24
# Windows handed over in one call: few calls, or threads wait for each other at Python's lock; scores do not depend on it.
_BATCH_BYTES = 1 << 22
_FINGERPRINTS = {'exact': exact_fingerprint, 'perceptual': perceptual_fingerprint}

log = logging.getLogger(__name__)


def run(options: ExtractOptions) -> Path:
    """Extract patches into ``options.save_dir``; see DistilledPatchDataset for what can read them.

    Returns:
        The folder, holding images/, manifest.csv, meta_info.txt, psnr.png, stage.json, and quarantine.csv if images
        were set aside.

    Raises:
        InputError: nothing to extract, a broken image under ``strict``, an image that changes meanwhile, or a folder that
            cannot be used.
        OSError: the disk is full, or too small for what is to come.
    """
    refuse_overlap(options.save_dir, options.dataroot, 'extract.save_dir')
    images = find_images([Path(root) for root in options.dataroot])
    if not images:
        raise InputError(f'{" and ".join(options.dataroot)}: no image found; extract.dataroot must hold PNG, JPEG, BMP, WebP, '
                         'TIFF or PPM files.')
    tests = find_images([Path(root) for root in options.leak_check]) if options.leak_check else []
    folder = Path(options.save_dir)
    inputs = {'dataroot': fingerprint_images(images), 'leak_check': fingerprint_images(tests)}
    with shared_stage_folder(folder, 'extract', options.model_dump(mode='json'), inputs) as stage:
        if not stage.finished:
            with one_thread_per_operation():
                _Extraction(options, images, tests, stage).run()
    return folder


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
    shapes = [tuple((side - size) // stride + 1 for side in rgb.shape[:2]) for rgb in images]
    places = [(rgb, row * stride, column * stride) for rgb, shape in zip(images, shapes) for row, column in np.ndindex(shape)]
    count = max(1, min(len(places), _BATCH_BYTES // (3 * size * size)))
    batch = torch.empty((count, 3, size, size), dtype=torch.uint8)
    planes = [list(patch) for patch in batch.numpy()]
    scores = []
    for first in range(0, len(places), count):
        some = places[first:first + count]
        for (rgb, top, left), patch in zip(some, planes):
            cv2.split(rgb[top:top + size, left:left + size], patch)  # several times as fast as a transposed copy
        scores.append(psnr_after_bicubic(batch[:len(some)], scale, metric))
    psnr_db = torch.cat(scores).numpy() if scores else np.zeros(0, np.float32)
    ends = np.cumsum([math.prod(shape) for shape in shapes])
    return [grid.reshape(shape) for grid, shape in zip(np.split(psnr_db, ends[:-1]), shapes)]


@dataclass
class _Scored:
    """What the first pass learns about one image; the fields of all images of a part make its file."""

    sha256: str = ''
    height: int = 0
    width: int = 0
    kinds: str = ''
    reason: str = ''
    detail: str = ''
    psnr_db: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    fingerprints: NDArray[np.uint64] = field(default_factory=lambda: np.zeros(0, np.uint64))


class _Extraction:
    """One run of the stage, on one rank."""

    def __init__(self, options: ExtractOptions, images: Sequence[FoundImage], tests: Sequence[FoundImage],
                 stage: StageRun) -> None:
        self.options = options
        self.images = images
        self.stage = stage
        self.folder = stage.folder
        self.size = options.patch_size
        self.stride = options.stride or options.patch_size
        self.num_workers = options.num_workers or default_workers()
        self.scenes = SceneIndex([test.relative for test in tests], [read_rgb(test.path) for test in tests])
        self.cached: dict[int, NDArray[np.uint8]] = {}
        self.cached_bytes = 0
        decides_alone = (options.deduplicate == 'off' and not options.drop_hardest and options.max_patches is None)
        self.known_threshold_db = (
            options.threshold if decides_alone and isinstance(options.threshold, float) else None)
        (self.folder / IMAGES_FOLDER).mkdir(exist_ok=True)
        stage.parts.mkdir(exist_ok=True)

    def run(self) -> None:
        """Both passes, and what rank 0 publishes."""
        try:
            with distributed.broadcast_failure():
                self._score_own_parts()
            with distributed.broadcast_failure():
                scored = self._read_parts()
                self._refuse_unusable(scored)
                patches, counts, facts = self._select(scored)
            with distributed.broadcast_failure():
                self._write_own_patches(scored, patches)
        except InputError:
            # Whatever mends it changes the options or the photographs, so no rerun could go on from here.
            if distributed.is_main() and not self.stage.resumed:
                self.stage.abandon()
            raise
        with distributed.broadcast_failure():
            if distributed.is_main():
                self._publish(scored, patches, counts, facts)

    # First pass

    def _part_path(self, number: int) -> Path:
        return self.stage.parts / f'{number:06d}.npz'

    def _score_own_parts(self) -> None:
        pending = [(number, part) for number, part in own_parts(range(len(self.images)), _IMAGES_PER_PART)
                   if not self._part_path(number).is_file()]
        total = sum(len(part) for _, part in pending)
        with progress(total, 'extract: score', 'image') as bar:
            groups = [group for _, part in pending for group in self._groups(part)]
            results = chain.from_iterable(ordered_map(self._score, groups, self.num_workers))
            for number, part in pending:
                scored = []
                for _ in part:
                    scored.append(next(results))
                    bar.update()
                save_part(self._part_path(number), _pack(scored))

    def _groups(self, indices: Sequence[int]) -> list[list[int]]:
        """Small images of a part in one group, large ones alone: work that is long enough to be worth handing to a thread."""
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

    def _score(self, indices: Sequence[int]) -> list[_Scored]:
        """Decode some images and score their windows."""
        results = []
        waiting: list[tuple[int, NDArray[np.uint8], _Scored]] = []
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

    def _read(self, index: int) -> tuple[_Scored, NDArray[np.uint8] | None]:
        """Decode one image; an unusable one is a reason, not an error."""
        image = self.images[index]
        try:
            data = read_bytes(image.path)
            decoded = decode_rgb(data, str(image.path))
        except UnreadableImageError as error:
            if self.options.strict:
                raise
            return _Scored(reason=error.reason, detail=error.detail), None
        rgb = decoded.rgb
        scored = _Scored(hashlib.sha256(data).hexdigest(), rgb.shape[0], rgb.shape[1], ' '.join(decoded.kinds))
        if min(rgb.shape[:2]) < self.size:
            scored.reason, scored.detail = 'too_small', f'{rgb.shape[1]}x{rgb.shape[0]}'
            return scored, None
        test = self.scenes.find(rgb)
        if test is not None:
            scored.reason, scored.detail = 'leak', f'shows the scene of {test}'
            return scored, None
        return scored, rgb

    def _score_decoded(self, images: Sequence[tuple[int, NDArray[np.uint8], _Scored]]) -> None:
        grids = score_windows([rgb for _, rgb, _ in images], self.size, self.stride, self.options.scale, self.options.metric)
        for (index, rgb, scored), scores in zip(images, grids):
            scored.psnr_db = scores.ravel()
            if self.options.deduplicate != 'off':
                fingerprint = _FINGERPRINTS[self.options.deduplicate]
                scored.fingerprints = np.array([fingerprint(self._crop(rgb, *place)) for place in np.ndindex(scores.shape)],
                                               np.uint64)
            if self.known_threshold_db is not None:
                self._write_patches(index, rgb, np.flatnonzero(scored.psnr_db < self.known_threshold_db))
            elif self.cached_bytes + rgb.nbytes <= _CACHE_BYTES:
                # Threads may overshoot the limit by an image each, which is of no consequence.
                self.cached_bytes += rgb.nbytes
                self.cached[index] = rgb

    def _read_parts(self) -> list[_Scored]:
        count = -(-len(self.images) // _IMAGES_PER_PART)
        return [scored for number in range(count) for scored in _unpack(load_part(self._part_path(number)))]

    def _refuse_unusable(self, scored: Sequence[_Scored]) -> None:
        if all(image.reason for image in scored):
            reasons = Counter(image.reason for image in scored)
            listed = ', '.join(f'{count} {reason.replace("_", " ")}' for reason, count in sorted(reasons.items()))
            raise InputError(f'{" and ".join(self.options.dataroot)}: none of the {len(scored)} images can be used ({listed}); '
                             f'extract.patch_size is {self.size}.')

    # Selection

    def _select(self, scored: Sequence[_Scored]) -> tuple['_Patches', dict[str, int], dict[str, Any]]:
        """The patches to keep, in order of image and place; equal on every rank."""
        options = self.options
        psnr_db = np.concatenate([image.psnr_db for image in scored])
        per_image = [image.psnr_db.size for image in scored]
        owner = np.repeat(np.arange(len(scored)), per_image)
        window = np.concatenate([np.arange(size) for size in per_image])
        limit = threshold_db(psnr_db, options.threshold)
        hardest = hardest_db(psnr_db, options.drop_hardest)
        flat = np.isinf(psnr_db)
        over = ~flat & ~(psnr_db < limit)
        too_hard = ~flat & (psnr_db < hardest)
        chosen = np.flatnonzero(~(flat | over | too_hard))
        counts = {'patches_scored': psnr_db.size, 'patches_flat': int(flat.sum()),
                  'patches_over_threshold': int(over.sum()), 'patches_too_hard': int((too_hard & ~over).sum())}
        if options.deduplicate != 'off':
            fingerprints = np.concatenate([image.fingerprints for image in scored])[chosen]
            marks = repeated(fingerprints, near=options.deduplicate == 'perceptual')
            counts['patches_duplicate'] = int(marks.sum())
            chosen = chosen[~marks]
        if options.max_patches is not None:
            order = np.random.default_rng(options.seed).permutation(chosen.size)
            counts['patches_over_maximum'] = max(0, chosen.size - options.max_patches)
            chosen = np.sort(chosen[order[:options.max_patches]])
        counts['patches_kept'] = chosen.size
        finite = psnr_db[~flat]
        if not chosen.size:
            advice = (f'threshold: {np.median(finite):.2f} would keep half' if finite.size
                      else 'flat patches are never kept')
            raise InputError(f'{" and ".join(options.dataroot)}: no patch is left below {limit:.2f} dB '
                             f'({histogram_text(psnr_db)}); extract.{advice}.')
        facts = {'threshold_db': round(limit, 6), 'psnr_db': {
            name: round(float(value), 6)
            for name, value in zip(('min', 'median', 'max'), (finite.min(), np.median(finite), finite.max()))}}
        return _Patches(owner[chosen], window[chosen], psnr_db[chosen], finite), counts, facts

    # Second pass

    def _write_own_patches(self, scored: Sequence[_Scored], patches: '_Patches') -> None:
        starts = np.searchsorted(patches.owner, np.arange(len(self.images) + 1))
        pending: list[tuple[int, NDArray[np.int64]]] = []
        for _, part in own_parts(range(len(self.images)), _IMAGES_PER_PART):
            for index in part:
                windows = patches.window[starts[index]:starts[index + 1]]
                missing = [int(window) for window in windows
                           if not is_whole_png(self._patch_path(index, *self._place(scored[index].width, window)))]
                if missing:
                    pending.append((index, np.array(missing)))
        self._check_space(sum(len(windows) for _, windows in pending))
        results = ordered_map(partial(self._write_image, scored), pending, self.num_workers)
        try:
            with progress(len(pending), 'extract: write', 'image') as bar:
                for _ in results:
                    bar.update()
        except OSError as error:
            if error.errno == errno.ENOSPC:
                need_mb = patches.owner.size * self.size * self.size * 3 >> 20
                raise OSError(error.errno, f'{self.folder}: the disk is full; up to {need_mb} MB are needed, '
                                           'make room and run the same command again') from error
            raise

    def _write_image(self, scored: Sequence[_Scored], job: tuple[int, NDArray[np.int64]]) -> None:
        index, windows = job
        rgb = self.cached.pop(index, None)
        if rgb is None:
            path = self.images[index].path
            data = read_bytes(path)
            if hashlib.sha256(data).hexdigest() != scored[index].sha256:
                raise InputError(f'{path}: changed while being extracted; leave the photographs alone and extract into an empty '
                                 'save_dir.')
            rgb = decode_rgb(data, str(path)).rgb
        self._write_patches(index, rgb, windows)

    def _write_patches(self, index: int, rgb: NDArray[np.uint8], windows: NDArray[np.int64]) -> None:
        for window in windows:
            top, left = self._place(rgb.shape[1], int(window))
            path = self._patch_path(index, top, left)
            if not (self.stage.resumed and is_whole_png(path)):
                write_png(path, rgb[top:top + self.size, left:left + self.size], self.options.png_level)

    def _check_space(self, count: int) -> None:
        # A patch rarely deflates to less than a sixth; what cannot fit even so is not begun.
        least = self.size * self.size * 3 // (6 if self.options.png_level else 1)
        need, free = count * least, shutil.disk_usage(self.folder).free
        if need > free:
            raise OSError(errno.ENOSPC, f'{self.folder}: {count} patches need at least {need >> 20} MB, {free >> 20} MB are '
                                        'free; make room and run the same command again')

    # Places and names

    def _columns(self, width: int) -> int:
        return (width - self.size) // self.stride + 1

    def _place(self, width: int, window: int) -> tuple[int, int]:
        row, column = divmod(int(window), self._columns(width))
        return row * self.stride, column * self.stride

    def _crop(self, rgb: NDArray[np.uint8], row: int, column: int) -> NDArray[np.uint8]:
        top, left = row * self.stride, column * self.stride
        return rgb[top:top + self.size, left:left + self.size]

    def _patch_path(self, index: int, top: int, left: int) -> Path:
        return self.folder / IMAGES_FOLDER / patch_name(self.images[index].relative, index, top, left)

    # Publication

    def _publish(self, scored: Sequence[_Scored], patches: '_Patches', counts: dict[str, int],
                 facts: dict[str, Any]) -> None:
        names = []
        for owner, window in zip(patches.owner.tolist(), patches.window.tolist()):
            names.append(patch_name(self.images[owner].relative, owner, *self._place(scored[owner].width, window)))
        write_table(self.folder / MANIFEST_NAME, self._rows(scored, patches, names), PatchRow)
        write_meta_info(self.folder / META_INFO_NAME, names, (self.size, self.size, 3))
        outputs = [MANIFEST_NAME, META_INFO_NAME]
        set_aside = [(self.images[index].relative, image.reason, image.detail)
                     for index, image in enumerate(scored) if image.reason]
        if set_aside:
            write_csv(self.folder / QUARANTINE_NAME, ('source', 'reason', 'detail'), set_aside)
            outputs.append(QUARANTINE_NAME)
            log.warning('%d of %d images were set aside; see %s.', len(set_aside), len(scored),
                        self.folder / QUARANTINE_NAME)
        identical = Counter(image.sha256 for image in scored if image.sha256)
        repeats = sum(count - 1 for count in identical.values())
        if repeats:
            log.warning('%d images are copies of others; extract.deduplicate: exact drops their patches.', repeats)
        kinds = Counter(f'images_{kind}' for image in scored for kind in image.kinds.split())
        reasons = Counter(f'images_dropped_{image.reason}' for image in scored if image.reason)
        counts = {'images_found': len(scored), 'images_used': sum(not image.reason for image in scored),
                  'images_identical': repeats, **kinds, **reasons, **counts}
        save_psnr_histogram(self.folder / 'psnr.png', patches.all_psnr_db, facts['threshold_db'], self.options.metric)
        if self.options.lmdb:
            from basicsr_distill.stages.pack_lmdb import pack_lmdb

            pack_lmdb(self.folder / IMAGES_FOLDER, names, self.folder / 'images.lmdb')
        self.stage.finish(counts, outputs, figures=['psnr.png'], **facts)

    def _rows(self, scored: Sequence[_Scored], patches: '_Patches', names: Sequence[str]) -> Any:
        make = partial(PatchRow, size=self.size, metric=self.options.metric)
        for name, owner, window, psnr_db in zip(names, patches.owner.tolist(), patches.window.tolist(),
                                                patches.psnr_db.tolist()):
            top, left = self._place(scored[owner].width, window)
            yield make(name=name, source=self.images[owner].relative, source_sha256=scored[owner].sha256, top=top,
                       left=left, psnr_db=psnr_db)


@dataclass(frozen=True)
class _Patches:
    """The chosen patches: image index, window of its grid, score; and the finite scores of all windows."""

    owner: NDArray[np.int64]
    window: NDArray[np.int64]
    psnr_db: NDArray[np.float32]
    all_psnr_db: NDArray[np.float32]


def patch_name(relative: str, index: int, top: int, left: int) -> str:
    """File name of a patch: unique by the number of its image, readable by the image's own name made plain ASCII."""
    stem = unicodedata.normalize('NFKD', Path(relative).stem).encode('ascii', 'ignore').decode()
    stem = re.sub(r'[^A-Za-z0-9]+', '-', stem).strip('-')[:40]
    return f'{stem or "image"}_{index:06d}_t{top:05d}_l{left:05d}.png'


def _pack(scored: Sequence[_Scored]) -> dict[str, NDArray[Any]]:
    texts = {name: np.array([getattr(image, name).encode('utf-8', 'surrogateescape') for image in scored])
             for name in ('sha256', 'kinds', 'reason', 'detail')}
    return {**texts, 'shape': np.array([(image.height, image.width) for image in scored]),
            'count': np.array([image.psnr_db.size for image in scored]),
            'psnr_db': np.concatenate([image.psnr_db for image in scored]),
            'fingerprints': np.concatenate([image.fingerprints for image in scored])}


def _unpack(part: dict[str, NDArray[Any]]) -> list[_Scored]:
    ends = np.cumsum(part['count'])
    prints = part['fingerprints']
    scored = []
    for number, (end, count) in enumerate(zip(ends, part['count'])):
        texts = {name: part[name][number].decode('utf-8', 'surrogateescape')
                 for name in ('sha256', 'kinds', 'reason', 'detail')}
        scored.append(_Scored(**texts, height=int(part['shape'][number, 0]), width=int(part['shape'][number, 1]),
                              psnr_db=part['psnr_db'][end - count:end],
                              fingerprints=prints[end - count:end] if prints.size else prints))
    return scored
