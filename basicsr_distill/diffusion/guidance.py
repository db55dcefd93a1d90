"""Steering a denoiser while it is sampled: towards modes of the data, and within the data's range.

Each function takes a denoiser and returns one of the same signature, so that every scheduler can sample from it and
they can be applied one over the other; the innermost acts first. A denoiser takes x_t (N, C, h, w), timesteps (N,) and
labels, and gives the noise in its first C channels; channels of variance behind them pass untouched.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from basicsr_distill.diffusion.process import NUM_TIMESTEPS, ancestral_deviation, linear_alpha_bar, predict_x0

Denoise = Callable[..., Tensor]
# Extent, as a share of the neighbours' norm, below which a direction is one that rounding chose.
_ROUNDING = 1e-5


def towards_modes(
    denoise: Denoise,
    modes: Tensor,
    scale: float,
    stop: float = 0.5,
    manifold: Tensor | None = None,
    next_timestep: Callable[[Tensor], Tensor] | None = None,
) -> Denoise:
    """Pull every sample towards its mode: eps - scale sqrt(1 - alpha_bar_t) (mode - x0_pred).

    It adds scale (mode - x0_pred) to the score, and so means the same to every deterministic scheduler and number of
    steps. With ``next_timestep`` it adds scale sigma_t (mode - x0_pred) to the mean of DDPM's step instead, sigma_t its
    deviation: 1.4 to 2.1 times as much in the first half of 50 steps. Later the pull would take away what makes a
    sample differ from its mode, so it stops.

    Source: MGD3 (Chan-Santiago et al. 2025, arXiv 2505.18963), Algorithm 1, and its code for DDPM; ``manifold`` after
    ManifoldGD (2026, arXiv 2602.23295), which leaves out the part of the pull that is normal to the data.

    >>> still = lambda x_t, timesteps, labels: torch.zeros_like(x_t)
    >>> steered = towards_modes(still, torch.ones(1, 1, 1, 1), scale=0.1)
    >>> round(steered(torch.zeros(1, 1, 1, 1), torch.tensor([999]), None).item(), 4)
    -0.1

    Args:
        denoise: what is steered; not touched where ``scale`` is 0.
        modes: one a sample, (N, C, h, w); a batch of k N samples, such as both halves of classifier-free guidance, is
            taken as k times the same.
        scale: 0.1 is the paper's; large ones fail.
        stop: share of the noise range, 0 clean and 1 noise; at and below it there is no pull.
        manifold: real latents (M, C, h, w) whose neighbourhood of x0_pred says which directions stay in the data.
        next_timestep: the timestep that DDPM goes to from one of its timesteps; absent for other schedulers.
    """
    if scale == 0:
        return denoise
    alpha_bar = linear_alpha_bar()

    def guided(x_t: Tensor, timesteps: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        output = denoise(x_t, timesteps, *args, **kwargs)
        if float(timesteps[0]) <= stop * NUM_TIMESTEPS:
            return output
        alpha_bar_t = alpha_bar.to(x_t.device)[timesteps.long()]
        channels = x_t.shape[1]
        x0_pred = predict_x0(x_t, output[:, :channels], alpha_bar_t)
        goal = modes.to(x0_pred).repeat(len(x_t) // len(modes), 1, 1, 1)
        pull = goal - x0_pred
        if manifold is not None:
            pull = tangent_part(pull, x0_pred, manifold.to(x0_pred))
        weight = scale * (1 - alpha_bar_t).sqrt().view(-1, 1, 1, 1)
        if next_timestep is not None:
            alpha_bar_next = alpha_bar.to(x_t.device)[next_timestep(timesteps[0]).long()].expand(len(x_t))
            weight = weight * _ancestral_factor(alpha_bar_t, alpha_bar_next, output[:, channels:])
        moved = output[:, :channels] - weight * pull
        return torch.cat([moved, output[:, channels:]], 1)

    return guided


def _ancestral_factor(alpha_bar_t: Tensor, alpha_bar_next: Tensor, variance_pred: Tensor) -> Tensor:
    """sigma_t sqrt(alpha_t) / beta_t; a step's mean is (x_t - beta_t eps / sqrt(1 - alpha_bar_t)) / sqrt(alpha_t).

    Args:
        alpha_bar_t: (N,), at the step's timestep.
        alpha_bar_next: (N,), at the one it leads to.
        variance_pred: (N, C, h, w); (N, 0, h, w) where the variance is not learned.
    """
    deviation = ancestral_deviation(alpha_bar_t, alpha_bar_next, variance_pred if variance_pred.shape[1] else None)
    alpha_t = (alpha_bar_t / alpha_bar_next).view(-1, 1, 1, 1)
    return deviation * alpha_t.sqrt() / (1 - alpha_t)


def tangent_part(vectors: Tensor, points: Tensor, latents: Tensor, neighbors: int = 12, dimensions: int = 3) -> Tensor:
    """The part of vectors that runs along the data: their projection onto the plane through a point's neighbours.

    The plane is spanned by the first principal directions of the nearest latents, by fewer where they extend in fewer.

    >>> line = torch.tensor([[-1.0, 0.0], [0.0, 0.0], [2.0, 0.0]])
    >>> tangent_part(torch.tensor([[3.0, 4.0]]), torch.tensor([[0.0, 1.0]]), line)
    tensor([[3., 0.]])

    Args:
        vectors: (N, ...).
        points: (N, ...), where the vectors start.
        latents: (M, ...).
        neighbors: latents that make the plane, all where there are fewer.
        dimensions: of the plane, below ``neighbors``.

    Returns:
        (N, ...).
    """
    flat, known = vectors.flatten(1), latents.flatten(1)
    # The exact differences: a matrix product would lose digits, and differ with the batch.
    distance = torch.cdist(points.flatten(1), known, compute_mode='donot_use_mm_for_euclid_dist')
    nearest = distance.argsort(dim=1, stable=True)[:, :neighbors]
    local = known[nearest]
    _, extents, axes = torch.linalg.svd(local - local.mean(1, keepdim=True), full_matrices=False)
    extends = extents > _ROUNDING * torch.linalg.vector_norm(local, dim=(1, 2))[:, None]
    axes = (axes * extends[:, :, None])[:, :dimensions]
    along = torch.einsum('nkd,nd->nk', axes, flat)
    return torch.einsum('nk,nkd->nd', along, axes).view_as(vectors)


def latent_bounds(latents: Tensor, share: float = 0.001) -> tuple[Tensor, Tensor]:
    """The range that real latents keep to: quantiles of every channel.

    >>> [bound.item() for bound in latent_bounds(torch.arange(101.0).view(1, 1, 1, 101), share=0.05)]
    [5.0, 95.0]

    Args:
        latents: (M, C, h, w).
        share: of a channel's numbers that lies below the range, and as many above, in [0, 0.5).

    Returns:
        Lowest and highest value, (C, 1, 1) each, float32.
    """
    columns = latents.detach().float().transpose(0, 1).flatten(1).sort(dim=1).values
    # torch.quantile refuses what is larger than 16 million numbers.
    place = round(share * (columns.shape[1] - 1))
    low, high = columns[:, place], columns[:, columns.shape[1] - 1 - place]
    return low.view(-1, 1, 1), high.view(-1, 1, 1)


def within_bounds(denoise: Denoise, low: Tensor, high: Tensor) -> Denoise:
    """Clip x0_pred to a range, and give the noise that goes with it.

    A weak denoiser predicts x0 far outside the data from much noise, and solvers of second order extrapolate that.
    Noise whose x0_pred lies inside is not changed by a bit.

    Source: the clipping of Ho et al. (2020) and Saharia et al. (2022), with the range of the latents for that of
    pixels.

    >>> far = lambda x_t, timesteps, labels: torch.full_like(x_t, -1.0)
    >>> bounds = torch.tensor([[[-2.0]]]), torch.tensor([[[2.0]]])
    >>> round(within_bounds(far, *bounds)(torch.zeros(1, 1, 1, 1), torch.tensor([999]), None).item(), 4)
    -0.0127

    Args:
        denoise: what is steered.
        low: (C, 1, 1), of :func:`latent_bounds`.
        high: as ``low``.
    """
    alpha_bar = linear_alpha_bar()

    def clipped(x_t: Tensor, timesteps: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        output = denoise(x_t, timesteps, *args, **kwargs)
        alpha_bar_t = alpha_bar.to(x_t.device)[timesteps.long()]
        eps = output[:, : x_t.shape[1]]
        x0_pred = predict_x0(x_t, eps, alpha_bar_t)
        inside = x0_pred.clamp(low.to(x0_pred), high.to(x0_pred))
        a = alpha_bar_t.view(-1, 1, 1, 1)
        eps = torch.where(inside == x0_pred, eps, (x_t - a.sqrt() * inside) / (1 - a).sqrt())
        return torch.cat([eps, output[:, x_t.shape[1] :]], 1)

    return clipped
