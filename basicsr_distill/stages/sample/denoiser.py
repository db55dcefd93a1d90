"""The denoiser that a set is drawn from, and how well it knows an image."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from basicsr_distill.archs.minimax_dit_arch import MinimaxDiT, load_trained
from basicsr_distill.config.sections.sample import SampleOptions
from basicsr_distill.data.latent_patch_dataset import LatentPatchDataset
from basicsr_distill.diffusion.codec import Codec, build_codec
from basicsr_distill.diffusion.denoiser_quality import denoising_errors
from basicsr_distill.diffusion.sampler import Denoiser
from basicsr_distill.errors import InputError
from basicsr_distill.runtime.device import DTYPES
from basicsr_distill.stages.sample.source import Source


@dataclass(frozen=True)
class LoadedModel:
    """network and codec, on device.  denoise: the network in the precision of the stage."""

    network: MinimaxDiT
    denoise: Denoiser
    codec: Codec
    device: torch.device


def load_model(options: SampleOptions, source: Source) -> LoadedModel:
    """Network and codec, ready to draw.

    Raises:
        InputError: the checkpoint does not fit, or weights cannot be loaded.
    """
    device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    patches = source.patches
    assert isinstance(patches, LatentPatchDataset)
    section = dict(source.network)
    if source.checkpoint is None:
        network = MinimaxDiT(**{key: value for key, value in section.items() if key != 'type'})
    else:
        network = load_trained(section, source.checkpoint, options.weights)
    if source.labels.max() >= network.num_labels:
        raise InputError(f'network_g.num_labels: the patches have labels up to {source.labels.max()}.')
    dtype = DTYPES[options.precision]
    network = network.requires_grad_(False).eval().to(device, dtype)
    codec = build_codec(patches.options.codec, Path(str(patches.options.latents_dir))).to(device)

    def denoise(x_t: Tensor, timesteps: Tensor, labels: Tensor, drop_mask: Tensor | None = None) -> Tensor:
        return network(x_t.to(dtype), timesteps, labels, drop_mask)

    return LoadedModel(network, denoise, codec, device)


def own_errors(
    options: SampleOptions, source: Source, images: Sequence[NDArray[np.uint8]], labels: Sequence[int]
) -> NDArray[np.float32]:
    """Measure how badly the denoiser predicts the noise of images of its own, (N,), float32; small is well known.

    Args:
        options: of the stage.
        source: the training that was sampled from.
        images: (H, W, 3), uint8, RGB.
        labels: of the images.
    """
    model = load_model(options, source)
    errors = []
    for first in range(0, len(images), options.batch_size):
        batch = np.stack(images[first : first + options.batch_size]).transpose(0, 3, 1, 2)
        with torch.inference_mode():
            latents = model.codec.encode(torch.from_numpy(batch.copy()).float().to(model.device) / 255)[0]
        own = torch.tensor(labels[first : first + options.batch_size], device=model.device)
        errors.append(denoising_errors(model.denoise, latents, own, seed=options.seed).cpu().numpy())
    return np.concatenate(errors)
