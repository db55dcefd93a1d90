"""What steers drawing beside the label: modes that images are pulled to, and the range that latents keep to."""

from collections.abc import Callable, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from basicsr_distill.config.sections.sample import SampleOptions
from basicsr_distill.data.latent_patch_dataset import LatentPatchDataset
from basicsr_distill.diffusion.guidance import Denoise, latent_bounds, towards_modes, within_bounds
from basicsr_distill.diffusion.modes import latent_modes
from basicsr_distill.stages.sample.plan import Draw, some_latents


class Bounds(NamedTuple):
    """The range of real latents, channel by channel, (C, 1, 1)."""

    low: Tensor
    high: Tensor


class Steering:
    """Guidance of the draws of a set; every rank computes the same.

    Args:
        options: of the stage.
        patches: whose latents are there.
    """

    def __init__(self, options: SampleOptions, patches: LatentPatchDataset) -> None:
        self.options = options
        self.patches = patches
        self.labels = np.array(patches.labels)
        along = options.mode_guidance is not None and options.mode_guidance.manifold
        self.bounds: Bounds | None = None
        self.manifold: Tensor | None = None
        if along or options.clip_x0 is not None:
            everything = torch.from_numpy(some_latents(patches, np.arange(len(patches)))[1])
            self.manifold = everything if along else None
            if options.clip_x0 is not None:
                self.bounds = Bounds(*latent_bounds(everything, options.clip_x0))
        self._modes = cache(self._modes_of_label)

    def apply(
        self, denoise: Denoise, next_timestep: Callable[[Tensor], Tensor] | None, draws: Sequence[Draw]
    ) -> Denoise:
        """Return the denoiser of a micro-batch with all that steers it; untouched where nothing does.

        Args:
            denoise: predicts the noise.
            next_timestep: of DDPM, see :func:`~basicsr_distill.diffusion.guidance.towards_modes`.
            draws: the images of the batch.
        """
        guidance = self.options.mode_guidance
        if guidance is not None:
            modes = np.stack([self._modes(draw.label)[draw.index % self.options.images_per_cluster] for draw in draws])
            denoise = towards_modes(
                denoise, torch.from_numpy(modes), guidance.scale, guidance.stop, self.manifold, next_timestep
            )
        return denoise if self.bounds is None else within_bounds(denoise, *self.bounds)

    def _modes_of_label(self, label: int) -> NDArray[np.float32]:
        assert self.options.mode_guidance is not None
        latents = some_latents(self.patches, np.flatnonzero(self.labels == label))[1]
        return latent_modes(
            latents, self.options.images_per_cluster, self.options.seed, self.options.mode_guidance.modes
        )
