"""Images drawn in fixed micro-batches, each from its own seed, and kept one by one.

So interruptions, ranks and devices do not change which set comes out.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from basicsr_distill.archs.minimax_dit_arch import MinimaxDiT, load_trained
from basicsr_distill.config.sections import PrototypeInitOptions, SampleOptions
from basicsr_distill.data.latent_patch_dataset import LatentPatchDataset
from basicsr_distill.diffusion.codec import build_codec, to_uint8
from basicsr_distill.diffusion.sampler import Denoiser, image_generator, sample_latents
from basicsr_distill.errors import InputError
from basicsr_distill.io.images import is_whole_png, write_png
from basicsr_distill.runtime.precision import DTYPES
from basicsr_distill.runtime.progress import progress
from basicsr_distill.stages.sample.plan import Draw
from basicsr_distill.stages.sample.source import Source
from basicsr_distill.stages.sharding import own_parts


def draw_own(draws: Sequence[Draw], options: SampleOptions, source: Source, folder: Path) -> None:
    """Draw this rank's share of the images into a folder; those that are there are kept.

    Raises:
        InputError: the checkpoint does not fit, or the images are not finite.
    """
    pending = [part for _, part in own_parts(draws, options.batch_size)
               if not all(is_whole_png(folder / draw.name) for draw in part)]
    if not pending:
        return
    patches = source.patches
    assert isinstance(patches, LatentPatchDataset)
    device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    network = _network(options, source).to(device, DTYPES[options.precision])
    denoise = _denoiser(network, DTYPES[options.precision])
    codec = build_codec(patches.options.codec, Path(str(patches.options.latents_dir))).to(device)
    with progress(sum(len(part) for part in pending), 'sample: draw', 'image') as bar:
        for part in pending:
            latents = _latents(part, options, patches, network, denoise, device)
            with torch.inference_mode():
                pixels = codec.decode(latents)
            if not torch.isfinite(pixels).all():
                raise InputError('sample.precision: the images are not finite; use fp32 or bf16.')
            for draw, rgb in zip(part, to_uint8(pixels)):
                write_png(folder / draw.name, rgb)
            bar.update(len(part))


def _network(options: SampleOptions, source: Source) -> MinimaxDiT:
    network = load_trained(dict(source.network), source.checkpoint, options.weights)
    if source.labels.max() >= network.num_labels:
        raise InputError(f'network_g.num_labels: the patches have labels up to {source.labels.max()}.')
    return network.requires_grad_(False).eval()


def _denoiser(network: MinimaxDiT, dtype: torch.dtype) -> Denoiser:
    def denoise(x_t: Tensor, timesteps: Tensor, labels: Tensor, drop_mask: Tensor | None = None) -> Tensor:
        return network(x_t.to(dtype), timesteps, labels, drop_mask)

    return denoise


def _latents(part: Sequence[Draw], options: SampleOptions, patches: LatentPatchDataset, network: MinimaxDiT,
             denoise: Denoiser, device: torch.device) -> Tensor:
    """Latents of a micro-batch, (N, C, h, w), float32."""
    labels = torch.tensor([draw.label for draw in part], device=device)
    generators = [image_generator(options.seed, draw.label, draw.index) for draw in part]
    start, strength = None, 1.0
    if isinstance(options.init, PrototypeInitOptions):
        start = torch.stack([patches.latent_mean(draw.prototype or 0) for draw in part])
        strength = options.init.strength
    shape = (network.in_channels, network.sample_size, network.sample_size)
    return sample_latents(denoise, labels, shape, generators, options, network.learns_variance, start, strength)
