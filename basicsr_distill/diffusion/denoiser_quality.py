"""How good a denoiser is: errors of its noise on a set and on single latents, and a grid of samples."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from basicsr_distill.diffusion.codec import to_uint8
from basicsr_distill.diffusion.guidance import Denoise
from basicsr_distill.diffusion.process import NUM_TIMESTEPS, add_noise, linear_alpha_bar
from basicsr_distill.diffusion.sampler import SamplerSettings, image_generator, make_scheduler, sample_latents
from basicsr_distill.io.images import write_png

# Places between no noise and the most noise that is trained.
_LEVELS = (0.1, 0.3, 0.5, 0.7, 0.9)
_MAX_ITEMS = 256
_BATCH = 16
_PER_LABEL = 4
_SEED = 0
# Little noise, where the details are decided: a fifth of the range and less.
LOW_TIMESTEPS = (20, 60, 100, 140, 180, 220)


@torch.no_grad()
def noise_errors(
    net: Any, dataset: Any, alpha_bar: Tensor, max_timestep: int, device: torch.device
) -> dict[str, float]:
    """Mean squared error of the predicted noise at fixed timesteps and with fixed noise.

    Returns:
        By name ``eps_mse_t<timestep>``, and their mean ``eps_mse``.
    """
    chosen = range(0, len(dataset), -(-len(dataset) // _MAX_ITEMS))
    latents = torch.stack([dataset.latent_mean(index) for index in chosen])
    labels = torch.tensor([dataset.labels[index] for index in chosen])
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(_SEED))
    errors = {}
    for level in _LEVELS:
        t = round(level * max_timestep)
        total = 0.0
        for x0, eps, label in zip(latents.split(_BATCH), noise.split(_BATCH), labels.split(_BATCH)):
            x0, eps, label = x0.to(device), eps.to(device), label.to(device)
            timesteps = torch.full_like(label, t)
            output = net(add_noise(x0, eps, alpha_bar[timesteps]), timesteps, label)
            total += float(F.mse_loss(output[:, : x0.shape[1]].float(), eps, reduction='sum'))
        errors[f'eps_mse_t{t}'] = total / latents.numel()
    return {'eps_mse': sum(errors.values()) / len(errors), **errors}


@torch.no_grad()
def denoising_errors(
    denoise: Denoise, latents: Tensor, labels: Tensor, timesteps: Sequence[int] = LOW_TIMESTEPS, seed: int = 0
) -> Tensor:
    """Return the mean squared error of the predicted noise, of each latent, with the same noise for all.

    Source: the objective of CaO2 (2025, arXiv 2506.22637), whose latents are optimised for it at little noise.

    >>> silent = lambda x_t, timesteps, labels: torch.zeros_like(x_t)
    >>> denoising_errors(silent, torch.zeros(2, 4, 8, 8), torch.zeros(2)).sub(1).abs().lt(0.1).tolist()
    [True, True]

    Args:
        denoise: predicts the noise in its first C channels.
        latents: (N, C, h, w).
        labels: (N,), int64, on the device of the latents.
        timesteps: noise levels that are averaged.
        seed: of the noise, one for every timestep.

    Returns:
        (N,), float32; smaller is better known.
    """
    alpha_bar = linear_alpha_bar().to(latents.device)
    generator = torch.Generator().manual_seed(seed)
    total = torch.zeros(len(latents), device=latents.device)
    for timestep in timesteps:
        noise = torch.randn(latents.shape[1:], generator=generator).to(latents.device)
        now = torch.full((len(latents),), timestep, dtype=torch.int64, device=latents.device)
        output = denoise(add_noise(latents, noise, alpha_bar[now]), now, labels)[:, : latents.shape[1]].float()
        total += (output - noise).square().flatten(1).mean(1)
    return total / len(timesteps)


@torch.no_grad()
def sample_grid(
    net: Any, dataset: Any, codec: Any, max_timestep: int, device: torch.device
) -> tuple[Tensor, dict[str, float]]:
    """Samples with fixed seeds, a row of four for every label.

    They start from pure noise where all timesteps are trained. Else the denoiser has never seen that much noise, and
    they start from real latents of the label, noised as far as is trained; a label without any then has no row.

    Args:
        net: the denoiser.
        dataset: real latents and their labels.
        codec: decodes the samples.
        max_timestep: timesteps below it are trained.
        device: where the denoiser is.

    Returns:
        Pixels (3, rows * H, 4 * W) in [0, 1]; and of the latents, per label averaged: ``sample_coverage``, the mean
        over real latents (those started from left out) of the highest cosine to a sample, and ``sample_diversity``, one
        minus the mean cosine of samples to each other.
    """
    shape = (net.in_channels, net.sample_size, net.sample_size)
    settings, strength = trained_range(max_timestep)
    rows, coverage, diversity = [], [], []
    for label in range(net.num_labels):
        real = [index for index, value in enumerate(dataset.labels) if value == label][:_MAX_ITEMS]
        start = None
        if strength < 1:
            if not real:
                continue
            chosen = [real[number * len(real) // _PER_LABEL] for number in range(_PER_LABEL)]
            start = torch.stack([dataset.latent_mean(index) for index in chosen])
            real = [index for index in real if index not in chosen]
        latents = sample_latents(
            net,
            torch.full((_PER_LABEL,), label, device=device),
            shape,
            [image_generator(_SEED, label, index) for index in range(_PER_LABEL)],
            settings,
            learns_variance=net.learns_variance,
            start=start,
            strength=strength,
        )
        rows.append(torch.cat(list(codec.decode(latents).cpu()), -1))
        drawn = F.normalize(latents.flatten(1), dim=1)
        if real:
            others = F.normalize(
                torch.stack([dataset.latent_mean(index) for index in real]).flatten(1).to(device), dim=1
            )
            coverage.append(float((others @ drawn.T).amax(1).mean()))
        cosines = drawn @ drawn.T
        diversity.append(1 - float((cosines.sum() - cosines.trace()) / (_PER_LABEL * (_PER_LABEL - 1))))
    figures = {'sample_diversity': sum(diversity) / len(diversity)}
    if coverage:
        figures['sample_coverage'] = sum(coverage) / len(coverage)
    return torch.cat(rows, -2), figures


def trained_range(max_timestep: int) -> tuple[SamplerSettings, float]:
    """Return how to sample with about twenty steps, all below ``max_timestep``, and their share of all steps.

    >>> settings, strength = trained_range(200)
    >>> settings.num_steps, strength
    (100, 0.19)
    """
    settings = SamplerSettings(guidance_scale=1)
    num_steps = min(NUM_TIMESTEPS, -(-settings.num_steps * NUM_TIMESTEPS // max_timestep))
    settings = settings.model_copy(update={'num_steps': num_steps})
    scheduler = make_scheduler(settings.scheduler)
    scheduler.set_timesteps(settings.num_steps)
    return settings, int((scheduler.timesteps < max_timestep).sum()) / settings.num_steps


def save_grid(path: Path, grid: Tensor) -> None:
    """Write pixels (3, H, W) in [0, 1] as PNG."""
    write_png(path, to_uint8(grid[None])[0])
