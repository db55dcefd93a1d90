"""Images through a codec and back."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from basicsr_distill.config.sections.codecs import BlockPcaCodecOptions, CodecOptions
from basicsr_distill.diffusion.codec import build_codec, to_uint8, unfitted_block_pca
from basicsr_distill.errors import InputError
from basicsr_distill.io.images import read_rgb

# The closed-form codec is fitted to at most this many patches, evenly chosen, as for the training of a denoiser.
_MAX_FIT = 2048


def through_codec(
    options: CodecOptions, images: Sequence[NDArray[np.uint8]], patches: Sequence[Path]
) -> list[NDArray[np.uint8]]:
    """Return what a codec leaves of images, (H, W, 3), uint8, RGB.

    Args:
        options: of the codec.
        images: (H, W, 3), uint8, RGB.
        patches: files that a fitted codec is fitted to.

    Raises:
        InputError: the codec's weights cannot be loaded, or the images do not fit it.
    """
    codec = _fitted(options, patches) if isinstance(options, BlockPcaCodecOptions) else build_codec(options, Path())
    decoded = []
    for rgb in images:
        try:
            codec.latent_shape(rgb.shape[0])
        except ValueError as error:
            raise InputError(f'select.codec: patches do not fit the codec: {error}') from error
        with torch.inference_mode():
            decoded.append(to_uint8(codec.decode(codec.encode(_pixels([rgb]))[0]))[0])
    return decoded


def _fitted(options: BlockPcaCodecOptions, patches: Sequence[Path]):  # type: ignore[no-untyped-def]
    chosen = patches[:: -(-len(patches) // _MAX_FIT)]
    codec = unfitted_block_pca(options)
    codec.fit(lambda: (_pixels([read_rgb(path)]) for path in chosen))
    return codec


def _pixels(images: Sequence[NDArray[np.uint8]]) -> torch.Tensor:
    return torch.from_numpy(np.stack(images).transpose(0, 3, 1, 2).copy()).float() / 255
