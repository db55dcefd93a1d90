"""Codecs between pixels and latents. Every scaling factor and every range but [0, 1] is in this file.

Outside, pixels are RGB, (N, 3, H, W), float32 in [0, 1]; latents are (N, C, h, w), float32, scaled as the denoiser
expects.
"""

from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from basicsr_distill.config.sections.codecs import (
    AutoencoderKlCodecOptions,
    AutoencoderTinyCodecOptions,
    BlockPcaCodecOptions,
)
from basicsr_distill.diffusion.block_pca import BlockPca
from basicsr_distill.errors import InputError
from basicsr_distill.runtime.device import DTYPES

FITTED_NAME = 'codec.safetensors'


class Codec(Protocol):
    """What a codec can do."""

    def encode(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the latents of pixels."""

    def decode(self, latents: Tensor) -> Tensor:
        """Pixels of latents, clamped to [0, 1]; differentiable."""

    def latent_shape(self, size_px: int) -> tuple[int, int, int]:
        """(C, h, w) of the latent of a square image.

        Raises:
            ValueError: ``size_px`` is not a multiple of the codec's factor.
        """

    def to(self, device: torch.device) -> 'Codec':
        """Move to a device."""


class _Autoencoder(nn.Module):
    """A diffusers autoencoder: pixels in [-1, 1], latents shifted and scaled by its configuration.

    Args:
        network: AutoencoderKL, or AutoencoderTiny, which has no variance.
        factor: pixels per latent along an axis.
        dtype: it computes in this type.
    """

    def __init__(self, network: Any, factor: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.network = network.requires_grad_(False).eval().to(memory_format=torch.channels_last)
        self.factor = factor
        self.dtype = dtype
        self.scale = float(network.config.scaling_factor)
        self.shift = float(getattr(network.config, 'shift_factor', None) or 0)

    def latent_shape(self, size_px: int) -> tuple[int, int, int]:
        """Shape of one latent of a square image."""
        if size_px % self.factor:
            raise ValueError(f'{size_px} pixels are not a multiple of {self.factor}.')
        return int(self.network.config.latent_channels), size_px // self.factor, size_px // self.factor

    def encode(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the latents."""
        encoded = self.network.encode((pixels * 2 - 1).to(self.dtype, memory_format=torch.channels_last))
        if hasattr(encoded, 'latent_dist'):
            mean, std = encoded.latent_dist.mean.float(), encoded.latent_dist.std.float()
        else:
            mean = encoded.latents.float()
            std = torch.zeros_like(mean)
        return (mean - self.shift) * self.scale, std * self.scale

    def decode(self, latents: Tensor) -> Tensor:
        """Pixels in [0, 1]."""
        raw = latents / self.scale + self.shift
        pixels = self.network.decode(raw.to(self.dtype, memory_format=torch.channels_last)).sample
        return (pixels.float() / 2 + 0.5).clamp(0, 1)


CodecSection = BlockPcaCodecOptions | AutoencoderKlCodecOptions | AutoencoderTinyCodecOptions


def build_codec(options: CodecSection, fitted_dir: Path | None = None) -> Codec:
    """A codec ready for use.

    Args:
        options: the ``codec`` section.
        fitted_dir: folder of what :func:`save_fitted` wrote; ``block_pca`` alone needs it.

    Raises:
        InputError: weights cannot be found or read.
    """
    if isinstance(options, BlockPcaCodecOptions):
        codec = unfitted_block_pca(options)
        path = (fitted_dir or Path()) / FITTED_NAME
        if not path.is_file():
            raise InputError(f'{path}: the fitted codec is not there; train first, which fits it to the patches.')
        from safetensors.torch import load_file

        codec.load_state_dict(load_file(path))
        return codec
    import diffusers

    if isinstance(options, AutoencoderKlCodecOptions):
        network = _from_pretrained(diffusers.AutoencoderKL, options)
        factor = 2 ** (len(network.config.block_out_channels) - 1)
    else:
        network = _from_pretrained(diffusers.AutoencoderTiny, options)
        factor = network.spatial_scale_factor
    return _Autoencoder(network, factor, DTYPES[options.precision])


def to_uint8(pixels: Tensor) -> NDArray[np.uint8]:
    """Decoded pixels as images, (N, H, W, 3), uint8.

    >>> to_uint8(torch.full((1, 3, 1, 1), 0.5)).tolist()
    [[[[128, 128, 128]]]]
    """
    return (pixels * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().cpu().numpy()


def unfitted_block_pca(options: BlockPcaCodecOptions) -> BlockPca:
    """The closed-form codec, to be fitted.

    >>> unfitted_block_pca(BlockPcaCodecOptions(components=16)).latent_shape(64)
    (16, 8, 8)
    """
    return BlockPca(options.block_px, options.components, options.whitening)


def save_fitted(codec: BlockPca, folder: Path) -> None:
    """Write what was fitted to ``folder``, atomically."""
    from safetensors.torch import save

    from basicsr_distill.io.files import write_atomic

    write_atomic(folder / FITTED_NAME, save({name: value.contiguous() for name, value in codec.state_dict().items()}))


def _from_pretrained(network_type: Any, options: AutoencoderKlCodecOptions | AutoencoderTinyCodecOptions) -> Any:
    from diffusers.utils import is_accelerate_available

    try:
        return network_type.from_pretrained(
            options.pretrained,
            subfolder=options.subfolder,
            low_cpu_mem_usage=is_accelerate_available(),
            local_files_only=options.local_files_only,
            torch_dtype=DTYPES[options.precision],
        )
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0].rstrip('.')
        raise InputError(
            f'codec.pretrained: {options.pretrained}: no {network_type.__name__} could be loaded '
            f'({reason}); give a hub id, or the folder of its config.json and weights.'
        ) from error
