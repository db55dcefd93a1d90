"""The second pass: the chosen patches become files."""

import errno
import hashlib
import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from basicsr_distill.config.sections.extract import ExtractOptions
from basicsr_distill.errors import InputError
from basicsr_distill.io.images import FoundImage, decode_rgb, is_whole_png, read_bytes, write_png
from basicsr_distill.io.manifest import IMAGES_FOLDER
from basicsr_distill.runtime.parallel import ordered_map
from basicsr_distill.runtime.progress import progress
from basicsr_distill.stages.extract.choosing import Patches
from basicsr_distill.stages.extract.layout import crop, own_images, patch_name, reduced
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
        self.kept: dict[int, NDArray[np.uint8]] = {}
        self.kept_bytes = 0
        (folder / IMAGES_FOLDER).mkdir(exist_ok=True)

    def keep(self, index: int, rgb: NDArray[np.uint8], scored: Scored) -> None:
        """Keep a decoded image while there is room, whatever its scores."""
        if self.kept_bytes + rgb.nbytes <= _CACHE_BYTES:
            # Threads may overshoot the limit by an image each, which is of no consequence.
            self.kept_bytes += rgb.nbytes
            self.kept[index] = rgb

    def write_below(self, threshold_db: float, index: int, rgb: NDArray[np.uint8], scored: Scored) -> None:
        """Write the windows of an image that score below a threshold."""
        self._write_patches(index, rgb, scored.places[scored.psnr_db < threshold_db])

    def write_own(self, scored: Sequence[Scored], patches: Patches, num_workers: int) -> None:
        """Write what is missing of the patches of this rank's images.

        Raises:
            InputError: an image is no longer what was scored.
            OSError: the disk is full, or too small for what is to come.
        """
        pending = self._missing(scored, patches)
        self._check_space(sum(len(places) for _, places in pending))
        results = ordered_map(partial(self._write_image, scored), pending, num_workers)
        try:
            with progress(len(pending), 'extract: write', 'image') as bar:
                for _ in results:
                    bar.update()
        except OSError as error:
            if error.errno == errno.ENOSPC:
                need_mb = patches.owner.size * self.options.patch_size**2 * 3 >> 20
                raise OSError(
                    error.errno,
                    f'{self.folder}: the disk is full; up to {need_mb} MB are needed, '
                    'make room and run the same command again',
                ) from error
            raise

    def _missing(self, scored: Sequence[Scored], patches: Patches) -> list[tuple[int, NDArray[np.int32]]]:
        starts = np.searchsorted(patches.owner, np.arange(len(self.images) + 1))
        pending: list[tuple[int, NDArray[np.int32]]] = []
        for _, part in own_images(len(self.images)):
            for index in part:
                places = scored[index].places[patches.window[starts[index] : starts[index + 1]]]
                missing = [not is_whole_png(self._path(index, place)) for place in places]
                if any(missing):
                    pending.append((index, places[missing]))
        return pending

    def _write_image(self, scored: Sequence[Scored], job: tuple[int, NDArray[np.int32]]) -> None:
        index, places = job
        rgb = self.kept.pop(index, None)
        if rgb is None:
            path = self.images[index].path
            data = read_bytes(path)
            if hashlib.sha256(data).hexdigest() != scored[index].sha256:
                raise InputError(
                    f'{path}: changed while being extracted; leave the photographs alone and extract '
                    'into an empty save_dir.'
                )
            rgb = reduced(decode_rgb(data, str(path)).rgb, scored[index].reduced_by)
        self._write_patches(index, rgb, places)

    def _write_patches(self, index: int, rgb: NDArray[np.uint8], places: NDArray[np.int32]) -> None:
        for place in places:
            path = self._path(index, place)
            if not (self.resumed and is_whole_png(path)):
                write_png(path, crop(rgb, place, self.options.patch_size), self.options.png_level)

    def _path(self, index: int, place: NDArray[np.int32]) -> Path:
        return self.folder / IMAGES_FOLDER / patch_name(self.images[index].relative, index, *place.tolist())

    def _check_space(self, count: int) -> None:
        # A patch rarely deflates to less than a sixth; what cannot fit even so is not begun.
        least = self.options.patch_size**2 * 3 // (6 if self.options.png_level else 1)
        need, free = count * least, shutil.disk_usage(self.folder).free
        if need > free:
            raise OSError(
                errno.ENOSPC,
                f'{self.folder}: {count} patches need at least {need >> 20} MB, '
                f'{free >> 20} MB are free; make room and run the same command again',
            )
