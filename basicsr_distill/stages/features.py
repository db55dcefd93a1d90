"""Features of many images on many ranks, saved in parts that any run can resume."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from basicsr_distill.config.sections.encoders import EncoderOptions
from basicsr_distill.errors import InputError
from basicsr_distill.features.encoders import build_encoder
from basicsr_distill.io.arrays import read_array, read_arrays
from basicsr_distill.io.files import replacing
from basicsr_distill.io.images import read_rgb
from basicsr_distill.runtime.parallel import default_workers, ordered_map
from basicsr_distill.runtime.progress import progress
from basicsr_distill.stages.sharding import own_parts, save_part

# A part holds about so many patches, in whole batches.
_PATCHES_PER_PART = 256


def encode_own_parts(
    options: EncoderOptions, paths: Sequence[Path], folder: Path, num_workers: int | None, stage: str
) -> None:
    """Save this rank's features part by part; parts and batches, and so the bits, do not depend on the ranks.

    Args:
        options: of the encoder.
        paths: the images; parts that are there are kept.
        folder: of the parts.
        num_workers: threads that decode.
        stage: its name, for messages.

    Raises:
        InputError: the encoder's weights cannot be loaded, an image cannot be read, or features are not finite.
    """
    folder.mkdir(parents=True, exist_ok=True)
    encoder = build_encoder(options)
    size = encoder.batch_size
    part_size = max(1, _PATCHES_PER_PART // size) * size
    pending = [
        (number, part) for number, part in own_parts(paths, part_size) if not (folder / _part_name(number)).is_file()
    ]
    prepared = ordered_map(
        lambda path: encoder.prepare(read_rgb(path)),
        [path for _, part in pending for path in part],
        num_workers or default_workers(),
    )
    with progress(sum(len(part) for _, part in pending), f'{stage}: encode', 'patch') as bar:
        for number, part in pending:
            batches = []
            for first in range(0, len(part), size):
                batch = [next(prepared) for _ in part[first : first + size]]
                batches.append(encoder.encode(batch))
                bar.update(len(batch))
            features = np.concatenate(batches)
            broken = np.flatnonzero(~np.isfinite(features).all(axis=1))
            if broken.size:
                raise InputError(
                    f'{part[broken[0]]}: the encoder gives features that are not finite; use another '
                    'precision or encoder.'
                )
            save_part(folder / _part_name(number), {'features': features})


def _part_name(number: int) -> str:
    return f'{number:06d}.npz'


def join_parts(folder: Path, path: Path, count: int) -> NDArray[np.float32]:
    """The features at ``path`` (.npy, (``count``, D), float32) from the parts in ``folder``, mapped into memory."""
    parts = sorted(folder.glob('*.npz'))
    size = read_arrays(parts[0])['features'].shape[1]
    header = {
        'descr': np.lib.format.dtype_to_descr(np.dtype(np.float32)),
        'fortran_order': False,
        'shape': (count, size),
    }
    # Written, not mapped: a full disk would kill the process that writes to a mapping.
    with replacing(path) as temp, temp.open('wb') as file:
        np.lib.format.write_array_header_1_0(file, header)
        for part in parts:
            file.write(read_arrays(part)['features'].tobytes())
    return read_array(path, mapped=True)
