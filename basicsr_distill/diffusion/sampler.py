"""Drawing latents from a denoiser with diffusers' schedulers, every image with random numbers of its own."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler, UniPCMultistepScheduler
from torch import Tensor

from basicsr_distill.config.sections.sample import SamplerSettings
from basicsr_distill.diffusion.guidance import Denoise
from basicsr_distill.diffusion.process import BETA_END, BETA_START, NUM_TIMESTEPS

Steer = Callable[[Denoise, Callable[[Tensor], Tensor] | None], Denoise]


class Denoiser(Protocol):
    """What is sampled from; see :meth:`basicsr_distill.archs.minimax_dit_arch.MinimaxDiT.forward`."""

    def __call__(self, x_t: Tensor, timesteps: Tensor, labels: Tensor, drop_mask: Tensor | None = None) -> Tensor:
        """Predicted noise, (N, C, h, w), perhaps with C channels of variance behind."""


def image_generator(seed: int, label: int, index: int) -> torch.Generator:
    """Random numbers of one image, drawn on the CPU so that every device gets the same.

    >>> int(torch.randint(100, (), generator=image_generator(seed=0, label=1, index=2)))
    32
    """
    words = np.random.SeedSequence([seed, label, index]).generate_state(2)
    return torch.Generator().manual_seed(int(words[0]) << 31 ^ int(words[1]))


@torch.no_grad()
def sample_latents(
    denoiser: Denoiser,
    labels: Tensor,
    shape: tuple[int, int, int],
    generators: Sequence[torch.Generator],
    settings: SamplerSettings,
    learns_variance: bool = False,
    start: Tensor | None = None,
    strength: float = 1.0,
    steer: Steer | None = None,
) -> Tensor:
    """Draw one latent for each label.

    >>> def net(x_t, timesteps, labels): return torch.zeros_like(x_t)
    >>> generators, settings = [image_generator(0, 0, 0)], SamplerSettings(guidance_scale=1.0)
    >>> sample_latents(net, torch.tensor([0]), (4, 2, 2), generators, settings).shape
    torch.Size([1, 4, 2, 2])

    Args:
        denoiser: predicts the noise.
        labels: (N,), int64, on the device of the denoiser.
        shape: (C, h, w) of a latent.
        generators: one per image; its first numbers are the starting noise.
        settings: see :class:`~basicsr_distill.config.sections.SamplerSettings`.
        learns_variance: the denoiser's output has the variance behind; ``ddpm`` uses it.
        start: clean latents (N, C, h, w) to start from; pure noise when absent.
        strength: how far they are noised, as a share of the steps.
        steer: takes the denoiser under classifier-free guidance, and with ``ddpm`` the function from a timestep to the
            next one, and gives the denoiser that is followed; see :mod:`~basicsr_distill.diffusion.guidance`.

    Returns:
        (N, C, h, w), float32.
    """
    device = labels.device
    noise = torch.stack([torch.randn(shape, generator=generator) for generator in generators]).to(device)
    scheduler = make_scheduler(settings.scheduler, learns_variance)
    scheduler.set_timesteps(settings.num_steps, device=device)
    timesteps = scheduler.timesteps
    if start is None:
        x_t = noise * scheduler.init_noise_sigma
    else:
        timesteps = timesteps[-settings.steps_from(strength) :]
        if hasattr(scheduler, 'set_begin_index'):
            scheduler.set_begin_index(len(scheduler.timesteps) - len(timesteps))
        x_t = scheduler.add_noise(start.to(device, torch.float32), noise, timesteps[:1].expand(len(start)))
    is_ancestral = settings.scheduler == 'ddpm'
    ancestral = {'generator': list(generators)} if is_ancestral else {}
    predict: Denoise = partial(guided, denoiser, settings=settings)
    if steer is not None:
        predict = steer(predict, scheduler.previous_timestep if is_ancestral else None)
    for t in timesteps:
        output = predict(scheduler.scale_model_input(x_t, t), t.expand(len(labels)), labels)
        if not is_ancestral:
            output = output[:, : shape[0]]
        x_t = scheduler.step(output, t, x_t, **ancestral).prev_sample
    return x_t.float()


def guided(denoiser: Denoiser, x_t: Tensor, timesteps: Tensor, labels: Tensor, settings: SamplerSettings) -> Tensor:
    """Output of the denoiser under classifier-free guidance, both halves in one batch (Ho and Salimans 2022).

    The channels that guidance does not move, variance included, are those of the labelled half.

    >>> def net(x_t, timesteps, labels, drop_mask): return torch.where(drop_mask, 1.0, 3.0).view(-1, 1, 1, 1)
    >>> x_t, timesteps, labels = torch.zeros(1, 1, 1, 1), torch.tensor([500]), torch.tensor([0])
    >>> guided(net, x_t, timesteps, labels, SamplerSettings(guidance_scale=2.0)).item()
    5.0
    """
    low, high = settings.guidance_interval
    if settings.guidance_scale == 1 or not low <= float(timesteps[0]) / NUM_TIMESTEPS <= high:
        return denoiser(x_t, timesteps, labels).float()
    drop_mask = torch.arange(2 * len(labels), device=labels.device) >= len(labels)
    twice = denoiser(x_t.repeat(2, 1, 1, 1), timesteps.repeat(2), labels.repeat(2), drop_mask).float()
    labelled, unlabelled = twice.chunk(2)
    moved = settings.guidance_channels or x_t.shape[1]
    output = labelled.clone()
    output[:, :moved] = unlabelled[:, :moved] + settings.guidance_scale * (labelled[:, :moved] - unlabelled[:, :moved])
    return output


def make_scheduler(name: str, learns_variance: bool = False) -> Any:
    """A diffusers scheduler for noise predictions on the linear schedule, unclipped.

    >>> make_scheduler('ddim').config.prediction_type
    'epsilon'
    """
    schedule = {
        'num_train_timesteps': NUM_TIMESTEPS,
        'beta_start': BETA_START,
        'beta_end': BETA_END,
        'beta_schedule': 'linear',
    }
    if name == 'dpmsolver++':
        return DPMSolverMultistepScheduler(**schedule, solver_order=2, algorithm_type='dpmsolver++')
    if name == 'unipc':
        return UniPCMultistepScheduler(**schedule)
    if name == 'ddim':
        return DDIMScheduler(**schedule, clip_sample=False, set_alpha_to_one=True, timestep_spacing='trailing')
    if name == 'ddpm':
        return DDPMScheduler(
            **schedule,
            clip_sample=False,
            timestep_spacing='linspace',
            variance_type='learned_range' if learns_variance else 'fixed_small',
        )
    raise ValueError(f'scheduler {name!r} is none of dpmsolver++, unipc, ddim, ddpm.')
