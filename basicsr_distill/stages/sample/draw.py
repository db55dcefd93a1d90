"""Images drawn in fixed micro-batches, each from its own seed, and kept one by one.

So interruptions, ranks and devices do not change which set comes out.
"""

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from basicsr_distill.config.sections.sample import PrototypeInitOptions, SampleOptions
from basicsr_distill.data.latent_patch_dataset import LatentPatchDataset
from basicsr_distill.diffusion.codec import to_uint8
from basicsr_distill.diffusion.sampler import image_generator, sample_latents
from basicsr_distill.errors import InputError
from basicsr_distill.io.images import is_whole_png, write_png
from basicsr_distill.runtime.progress import progress
from basicsr_distill.stages.sample.denoiser import LoadedModel, load_model
from basicsr_distill.stages.sample.plan import Draw
from basicsr_distill.stages.sample.source import Source
from basicsr_distill.stages.sample.steer import Steering
from basicsr_distill.stages.sharding import own_parts


def draw_own(draws: Sequence[Draw], options: SampleOptions, source: Source, folder: Path) -> None:
    """Draw this rank's share of the images into a folder; those that are there are kept.

    Raises:
        InputError: the checkpoint does not fit, or the images are not finite.
    """
    pending = [
        part
        for _, part in own_parts(draws, options.batch_size)
        if not all(is_whole_png(folder / draw.name) for draw in part)
    ]
    if not pending:
        return
    assert isinstance(source.patches, LatentPatchDataset)
    model, steering = load_model(options, source), Steering(options, source.patches)
    with progress(sum(len(part) for part in pending), 'sample: draw', 'image') as bar:
        for part in pending:
            latents = _latents(part, options, source.patches, model, steering)
            with torch.inference_mode():
                pixels = model.codec.decode(latents)
            if not torch.isfinite(pixels).all():
                raise InputError('sample.precision: the images are not finite; use fp32 or bf16.')
            for draw, rgb in zip(part, to_uint8(pixels)):
                write_png(folder / draw.name, rgb)
            bar.update(len(part))


def _latents(
    part: Sequence[Draw], options: SampleOptions, patches: LatentPatchDataset, model: LoadedModel, steering: Steering
) -> Tensor:
    """Latents of a micro-batch, (N, C, h, w), float32."""
    network = model.network
    labels = torch.tensor([draw.label for draw in part], device=model.device)
    generators = [image_generator(options.seed, draw.label, draw.index) for draw in part]
    start, strength = None, 1.0
    if isinstance(options.init, PrototypeInitOptions):
        start = torch.stack([patches.latent_mean(draw.prototype or 0) for draw in part])
        strength = options.init.strength
    draw_latents = partial(
        sample_latents,
        model.denoise,
        labels,
        (network.in_channels, network.sample_size, network.sample_size),
        generators,
        learns_variance=network.learns_variance,
        steer=partial(steering.apply, draws=part),
    )
    latents = draw_latents(settings=options, start=start, strength=strength)
    if options.refine is not None:
        # So many steps over the whole range that the last share of them is the number asked for.
        num_steps = math.ceil(options.refine.steps / options.refine.strength)
        latents = draw_latents(
            settings=options.model_copy(update={'num_steps': num_steps}),
            start=latents,
            strength=options.refine.strength,
        )
    return latents
