"""How well a denoiser knows a latent: samples that it can denoise itself are chosen before others."""

from collections.abc import Sequence

import torch
from torch import Tensor

from basicsr_distill.diffusion.guidance import Denoise
from basicsr_distill.diffusion.process import add_noise, linear_alpha_bar

# Little noise, where the details are decided: a fifth of the range and less.
LOW_TIMESTEPS = (20, 60, 100, 140, 180, 220)


@torch.no_grad()
def denoising_errors(
    denoise: Denoise, latents: Tensor, labels: Tensor, timesteps: Sequence[int] = LOW_TIMESTEPS, seed: int = 0
) -> Tensor:
    """Mean squared error of the predicted noise, of each latent, with the same noise for all.

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
