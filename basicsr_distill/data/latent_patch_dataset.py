"""``LatentPatchDataset``: the patches of a recipe as latents of a codec, encoded once and mapped into memory."""

import io
import math
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from basicsr.utils.registry import DATASET_REGISTRY
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from basicsr_distill.config.registry import bind_dataset
from basicsr_distill.config.sections.codecs import AutoencoderKlCodecOptions, BlockPcaCodecOptions
from basicsr_distill.config.sections.datasets import LatentPatchDatasetOptions
from basicsr_distill.diffusion.codec import FITTED_NAME, Codec, build_codec, save_fitted, unfitted_block_pca
from basicsr_distill.errors import InputError
from basicsr_distill.io.arrays import read_array
from basicsr_distill.io.files import safe_join, sha256_file, write_atomic
from basicsr_distill.io.images import read_rgb
from basicsr_distill.io.inputs import file_inputs
from basicsr_distill.io.manifest import (
    IMAGES_FOLDER,
    MANIFEST_NAME,
    PatchRow,
    labels_of,
    read_json,
    read_table,
    write_json,
)
from basicsr_distill.runtime import distributed
from basicsr_distill.runtime.parallel import default_workers, one_thread_per_operation, ordered_map
from basicsr_distill.runtime.progress import progress

RECORD_NAME = 'latents.json'
# Patches per file of latents: the unit of work of a rank, and of resuming.
SHARD_SIZE = 256
# The closed-form codec is fitted to at most this many patches, evenly chosen.
_MAX_FIT = 2048


@DATASET_REGISTRY.register()
class LatentPatchDataset(Dataset[dict[str, Any]]):
    """Patches of the extract stage with the labels of the cluster stage.

    Items: ``latent`` (C, h, w), float32, drawn from the codec's distribution, of the patch or its mirror image;
    ``label``, int; and the sample's own random numbers for training, ``noise`` (C, h, w) of a standard normal, ``time``
    and ``drop`` of a uniform distribution on [0, 1). They come with the item so that training does not depend on how a
    batch is spread over processes.

    Args:
        opt: the section of the option file with BasicSR's ``phase``; its keys are those of
            :class:`~basicsr_distill.config.sections.LatentPatchDatasetOptions`.

    Raises:
        InputError: the patches or labels are missing or do not match.
    """

    def __init__(self, opt: dict[str, Any]) -> None:
        self.opt = opt
        self.options: LatentPatchDatasetOptions = bind_dataset(opt)
        self.dataroot = Path(self.options.dataroot)
        self.rows = read_table(self.dataroot / MANIFEST_NAME, PatchRow)
        if not self.rows:
            raise InputError(f'{self.dataroot / MANIFEST_NAME}: lists no patches; extract some first.')
        self.labels = labels_of(self.rows, self.dataroot, Path(self.options.labels_file))
        self._shards: dict[int, NDArray[np.float32]] = {}

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        means, stds = self._moments(index)
        flipped = int(len(means) == 2 and torch.rand(()) < 0.5)
        latent = torch.from_numpy(np.array(means[flipped]))
        if stds is not None:
            latent += torch.from_numpy(np.array(stds[flipped])) * torch.randn(latent.shape)
        return {
            'latent': latent,
            'label': self.labels[index],
            'noise': torch.randn(latent.shape),
            'time': torch.rand(()),
            'drop': torch.rand(()),
        }

    def __getstate__(self) -> dict[str, Any]:
        # Memory maps would travel to worker processes as copies of whole files.
        return {**self.__dict__, '_shards': {}}

    def latent_mean(self, index: int) -> Tensor:
        """The mean latent of a patch, (C, h, w), float32."""
        return torch.from_numpy(np.array(self._moments(index)[0][0]))

    def prepare(self) -> None:
        """Fit the codec where it is a fitted one, and encode all patches; every rank must call it.

        Files that are there are kept, and nothing is written where none is missing.

        Raises:
            InputError: the folder holds latents of other patches or another codec, or a patch cannot be read.
        """
        folder = self._folder()
        with distributed.broadcast_failure():
            if distributed.is_main():
                self._begin(folder)
        with distributed.broadcast_failure():
            self._encode_own_shards(folder)

    def _begin(self, folder: Path) -> None:
        """Make or check the folder, and fit the codec."""
        folder.mkdir(parents=True, exist_ok=True)
        if isinstance(self.options.codec, BlockPcaCodecOptions):
            self._fit_codec(self.options.codec)
        record, earlier = self._record(), read_json(folder / RECORD_NAME)
        for key, value in record.items():
            if earlier and earlier[key] != value:
                raise InputError(
                    f'{folder}: holds latents made with another {key} (was {earlier[key]!r}, now {value!r}); '
                    'give the data set or the experiment another name, or remove the folder.'
                )
        if not earlier:
            write_json(folder / RECORD_NAME, record)

    def _record(self) -> dict[str, Any]:
        """What the latents depend on."""
        codec = self.options.codec.model_dump(mode='json')
        if isinstance(self.options.codec, BlockPcaCodecOptions):
            codec['sha256'] = sha256_file(self._latents_dir() / FITTED_NAME)
        if files := file_inputs(self.options.codec, 'codec'):
            codec['files'] = files
        return {'codec': codec, 'patches': sha256_file(self.dataroot / MANIFEST_NAME), 'hflip': self.options.use_hflip}

    def _fit_codec(self, options: BlockPcaCodecOptions) -> None:
        """Fit to the training patches; a validation set uses what the training set has fitted."""
        path = self._latents_dir() / FITTED_NAME
        if self.opt.get('phase') != 'train':
            build_codec(options, path.parent)  # refuses if it is not there
            return
        if read_json(self._folder() / RECORD_NAME) and path.is_file():
            return
        chosen = self.rows[:: -(-len(self.rows) // _MAX_FIT)]
        codec = unfitted_block_pca(options)
        _check_size(codec, self.rows[0].size, self.dataroot)
        with one_thread_per_operation():
            codec.fit(lambda: self._pixels(chosen, flips=(False,)))
        save_fitted(codec, path.parent)

    def _encode_own_shards(self, folder: Path) -> None:
        shards = range(-(-len(self.rows) // SHARD_SIZE))
        pending = [
            shard
            for shard in shards[distributed.rank() :: distributed.world_size()]
            if not _shard_path(folder, shard).is_file()
        ]
        if not pending:
            return
        device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
        codec = build_codec(self.options.codec, self._latents_dir()).to(device)
        _check_size(codec, self.rows[0].size, self.dataroot)
        flips = (False, True) if self.options.use_hflip else (False,)
        has_spread = isinstance(self.options.codec, AutoencoderKlCodecOptions)
        floats = math.prod(codec.latent_shape(self.rows[0].size)) * len(flips) * (1 + has_spread)
        _check_space(folder, 4 * floats * SHARD_SIZE * len(pending))
        with progress(len(pending) * SHARD_SIZE, 'finetune: encode', 'patch') as bar:
            for shard in pending:
                rows = self.rows[shard * SHARD_SIZE : (shard + 1) * SHARD_SIZE]
                moments = _encode(codec, self._pixels(rows, flips), has_spread, device)
                if not np.isfinite(moments).all():
                    raise InputError(
                        f'{self.dataroot}: the codec gives NaN for one of {rows[0].name} ... '
                        f'{rows[-1].name}; use codec.precision: fp32.'
                    )
                moments = moments.reshape(len(rows), -1, *moments.shape[1:])
                buffer = io.BytesIO()  # to a file, numpy does not say why it could not write
                np.save(buffer, moments, allow_pickle=False)
                write_atomic(_shard_path(folder, shard), buffer.getvalue())
                bar.update(len(rows))

    def _pixels(self, rows: Sequence[PatchRow], flips: Sequence[bool]) -> Iterator[Tensor]:
        """Batches (N, 3, H, W) in [0, 1]; every patch is followed by its mirror image if ``flips`` says so."""
        paths = [
            safe_join(self.dataroot / IMAGES_FOLDER, row.name, listed_in=self.dataroot / MANIFEST_NAME) for row in rows
        ]
        return _batches(paths, flips, self.options.encode_batch_size)

    def _moments(self, index: int) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        """Means and, where the codec has any, standard deviations, of the patch and its mirror image."""
        number, place = divmod(index, SHARD_SIZE)
        if number not in self._shards:
            self._shards[number] = read_array(_shard_path(self._folder(), number), mapped=True)
        moments = self._shards[number][place]
        return moments[:, 0], moments[:, 1] if moments.shape[1] == 2 else None

    def _latents_dir(self) -> Path:
        if self.options.latents_dir is None:
            raise InputError(f"datasets.{self.opt.get('name')}: key 'latents_dir' is missing.")
        return Path(self.options.latents_dir)

    def _folder(self) -> Path:
        return self._latents_dir() / self.opt['name']


def _batches(paths: Sequence[Path], flips: Sequence[bool], size: int) -> Iterator[Tensor]:
    batch: list[Tensor] = []
    for rgb in ordered_map(read_rgb, paths, default_workers()):
        pixels = torch.from_numpy(rgb).permute(2, 0, 1)
        batch += [pixels.flip(-1) if flip else pixels for flip in flips]
        if len(batch) >= size:
            yield torch.stack(batch).float() / 255
            batch = []
    if batch:
        yield torch.stack(batch).float() / 255


def _encode(codec: Codec, batches: Iterable[Tensor], has_spread: bool, device: torch.device) -> NDArray[np.float32]:
    """Means and, with ``has_spread``, standard deviations of pixels, (N, 1 or 2, C, h, w), float32."""
    parts = []
    for pixels in batches:
        with torch.inference_mode():
            mean, std = codec.encode(pixels.to(device))
        parts.append(torch.stack([mean, std] if has_spread else [mean], 1).cpu().numpy())
    return np.concatenate(parts)


def _check_space(folder: Path, need: int) -> None:
    free = shutil.disk_usage(folder).free
    if need > free:
        raise InputError(f'{folder}: the latents need {need >> 20} MB, {free >> 20} MB are free; make room.')


def _check_size(codec: Codec, size_px: int, dataroot: Path) -> None:
    try:
        codec.latent_shape(size_px)
    except ValueError as error:
        raise InputError(f'{dataroot}: patches do not fit the codec: {error}') from error


def _shard_path(folder: Path, number: int) -> Path:
    return folder / f'{number:05d}.npy'
