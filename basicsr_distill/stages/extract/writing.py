"""The second pass: the chosen patches become files."""

import errno
import hashlib
import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from basicsr_distill.config.sections import ExtractOptions
from basicsr_distill.errors import InputError
from basicsr_distill.io.images import FoundImage, decode_rgb, is_whole_png, read_bytes, write_png
from basicsr_distill.io.manifest import IMAGES_FOLDER
from basicsr_distill.runtime.parallel import ordered_map
from basicsr_distill.runtime.progress import progress
from basicsr_distill.stages.extract.choosing import Patches
from basicsr_distill.stages.extract.grid import Grid, own_images, patch_name
from basicsr_distill.stages.extract.scoring import Scored

# Decoded images kept between the passes, bytes per rank.
_CACHE_BYTES = 512 << 20


class Writing:
    """Writes the patches of one rank's images, from decoded images that it kept or by decoding them again."""

    def __init__(self, options: ExtractOptions, images: Sequence[FoundImage], folder: Path, resumed: bool) -> None:
        self.options = options
        self.images = images
        self.folder = folder
        self.resumed = resumed
        self.grid = Grid(options.patch_size, options.stride or options.patch_size)
        self.kept: dict[int, NDArray[np.uint8]] = {}
        self.kept_bytes = 0
        (folder / IMAGES_FOLDER).mkdir(exist_ok=True)

    def keep(self, index: int, rgb: NDArray[np.uint8], psnr_db: NDArray[np.float32]) -> None:
        """Keep a decoded image while there is room, whatever its scores."""
        if self.kept_bytes + rgb.nbytes <= _CACHE_BYTES:
            # Threads may overshoot the limit by an image each, which is of no consequence.
            self.kept_bytes += rgb.nbytes
            self.kept[index] = rgb

    def write_below(self, threshold_db: float, index: int, rgb: NDArray[np.uint8],
                    psnr_db: NDArray[np.float32]) -> None:
        """Write the windows of an image that score below a threshold."""
        self._write_patches(index, rgb, np.flatnonzero(psnr_db < threshold_db))

    def write_own(self, scored: Sequence[Scored], patches: Patches, num_workers: int) -> None:
        """Write what is missing of the patches of this rank's images.

        Raises:
            InputError: an image is no longer what was scored.
            OSError: the disk is full, or too small for what is to come.
        """
        pending = self._missing(scored, patches)
        self._check_space(sum(len(windows) for _, windows in pending))
        results = ordered_map(partial(self._write_image, scored), pending, num_workers)
        try:
            with progress(len(pending), 'extract: write', 'image') as bar:
                for _ in results:
                    bar.update()
        except OSError as error:
            if error.errno == errno.ENOSPC:
                need_mb = patches.owner.size * self.grid.size * self.grid.size * 3 >> 20
                raise OSError(error.errno, f'{self.folder}: the disk is full; up to {need_mb} MB are needed, '
                                           'make room and run the same command again') from error
            raise

    def _missing(self, scored: Sequence[Scored], patches: Patches) -> list[tuple[int, NDArray[np.int64]]]:
        starts = np.searchsorted(patches.owner, np.arange(len(self.images) + 1))
        pending: list[tuple[int, NDArray[np.int64]]] = []
        for _, part in own_images(len(self.images)):
            for index in part:
                missing = [int(window) for window in patches.window[starts[index]:starts[index + 1]]
                           if not is_whole_png(self._path(index, scored[index].width, window))]
                if missing:
                    pending.append((index, np.array(missing)))
        return pending

    def _write_image(self, scored: Sequence[Scored], job: tuple[int, NDArray[np.int64]]) -> None:
        index, windows = job
        rgb = self.kept.pop(index, None)
        if rgb is None:
            path = self.images[index].path
            data = read_bytes(path)
            if hashlib.sha256(data).hexdigest() != scored[index].sha256:
                raise InputError(f'{path}: changed while being extracted; leave the photographs alone and extract '
                                 'into an empty save_dir.')
            rgb = decode_rgb(data, str(path)).rgb
        self._write_patches(index, rgb, windows)

    def _write_patches(self, index: int, rgb: NDArray[np.uint8], windows: NDArray[np.int64]) -> None:
        for window in windows:
            path = self._path(index, rgb.shape[1], window)
            if not (self.resumed and is_whole_png(path)):
                write_png(path, self.grid.crop(rgb, window), self.options.png_level)

    def _path(self, index: int, width: int, window: int) -> Path:
        name = patch_name(self.images[index].relative, index, *self.grid.place(width, window))
        return self.folder / IMAGES_FOLDER / name

    def _check_space(self, count: int) -> None:
        # A patch rarely deflates to less than a sixth; what cannot fit even so is not begun.
        least = self.grid.size * self.grid.size * 3 // (6 if self.options.png_level else 1)
        need, free = count * least, shutil.disk_usage(self.folder).free
        if need > free:
            raise OSError(errno.ENOSPC, f'{self.folder}: {count} patches need at least {need >> 20} MB, '
                                        f'{free >> 20} MB are free; make room and run the same command again')
