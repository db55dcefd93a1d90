"""The noise process of DiT and its training targets, as functions of tensors.

Notation: x0 clean latents, x_t noised ones, eps the noise; alpha_bar (T,) the products of 1 - beta, alpha_bar_t (N,)
their values at the samples' timesteps. All latents are (N, C, h, w), float32.
"""

import math

import torch
from torch import Tensor

NUM_TIMESTEPS = 1000
BETA_START, BETA_END = 1e-4, 2e-2


def linear_alpha_bar() -> Tensor:
    """alpha_bar of the linear schedule, (1000,), float32, falling from 0.9999 to 4e-5 (Ho et al. 2020).

    >>> round(linear_alpha_bar()[0].item(), 4), round(linear_alpha_bar()[-1].item(), 6)
    (0.9999, 4e-05)
    """
    betas = torch.linspace(BETA_START, BETA_END, NUM_TIMESTEPS, dtype=torch.float64)
    return torch.cumprod(1 - betas, 0).float()


def add_noise(x0: Tensor, eps: Tensor, alpha_bar_t: Tensor) -> Tensor:
    """x_t = sqrt(alpha_bar_t) x0 + sqrt(1 - alpha_bar_t) eps.

    >>> add_noise(torch.full((1, 1, 1, 1), 2.0), torch.ones(1, 1, 1, 1), torch.tensor([0.0])).item()
    1.0
    """
    a = _spread(alpha_bar_t)
    return a.sqrt() * x0 + (1 - a).sqrt() * eps


def predict_x0(x_t: Tensor, eps_pred: Tensor, alpha_bar_t: Tensor) -> Tensor:
    """x0_pred = (x_t - sqrt(1 - alpha_bar_t) eps_pred) / sqrt(alpha_bar_t).

    >>> predict_x0(torch.full((1, 1, 1, 1), 3.0), torch.zeros(1, 1, 1, 1), torch.tensor([0.25])).item()
    6.0
    """
    a = _spread(alpha_bar_t)
    return (x_t - (1 - a).sqrt() * eps_pred) / a.sqrt()


def ancestral_deviation(alpha_bar_t: Tensor, alpha_bar_next: Tensor, variance_pred: Tensor | None = None) -> Tensor:
    """Standard deviation of the noise that a step of DDPM adds.

    >>> ancestral_deviation(torch.tensor([0.25]), torch.tensor([0.5]), torch.ones(1, 1, 1, 1)).flatten()  # beta is 1/2
    tensor([0.7071])

    Source: Ho et al. (2020), Eq. 7; with a learned variance Nichol and Dhariwal (2021), Eq. 15.

    Args:
        alpha_bar_t: (N,), at the step's timestep, below 1.
        alpha_bar_next: (N,), at the one it leads to, below 1.
        variance_pred: v in [-1, 1], the second half of the network's channels, (N, C, h, w); the posterior's variance
            when absent.

    Returns:
        (N, C, h, w), or (N, 1, 1, 1).
    """
    a, a_next = _spread(alpha_bar_t), _spread(alpha_bar_next)
    beta = 1 - a / a_next
    posterior_variance = (1 - a_next) / (1 - a) * beta
    if variance_pred is None:
        return posterior_variance.sqrt()
    share = (variance_pred + 1) / 2
    return (0.5 * (share * beta.log() + (1 - share) * posterior_variance.log())).exp()


def simple_loss(eps_pred: Tensor, eps: Tensor, alpha_bar_t: Tensor, min_snr_gamma: float | None = None) -> Tensor:
    """Mean squared error of the noise, a scalar.

    >>> simple_loss(torch.full((1, 1, 1, 1), 2.0), torch.zeros(1, 1, 1, 1), torch.tensor([0.5]), min_snr_gamma=0.5)
    tensor(2.)

    Source: Ho et al. (2020), Eq. 14; the weight min(SNR, gamma) / SNR with SNR = a / (1 - a) is Hang et al. (2023).

    Args:
        eps_pred: (N, C, h, w), noise predicted.
        eps: (N, C, h, w), noise that is there.
        alpha_bar_t: (N,).
        min_snr_gamma: the weight's gamma; no weight when absent.
    """
    per_sample = (eps_pred - eps).square().flatten(1).mean(1)
    if min_snr_gamma is not None:
        snr = alpha_bar_t / (1 - alpha_bar_t)
        per_sample = per_sample * snr.clamp(max=min_snr_gamma) / snr
    return per_sample.mean()


def variational_bound(
    x0: Tensor, x_t: Tensor, timesteps: Tensor, eps_pred: Tensor, variance_pred: Tensor, alpha_bar: Tensor
) -> Tensor:
    """Variational bound in bits per dimension, of one timestep a sample; it trains the variance alone.

    The predicted v in [-1, 1] places log variance between the posterior's and beta_t. At t = 0 it is the likelihood of
    x0 in bins of 1/255 that are open beyond +-0.999, elsewhere KL(q(x_{t-1} | x_t, x0) || p(x_{t-1} | x_t)).

    >>> zero = torch.zeros(1, 1, 1, 1)
    >>> variational_bound(zero, zero, torch.tensor([9]), zero, zero - 1, linear_alpha_bar()).item()  # the posterior's
    0.0

    Source: Nichol and Dhariwal (2021), Eqs. 4-7, 10, 14, 15.

    Args:
        x0: (N, C, h, w).
        x_t: (N, C, h, w), with the noise on.
        timesteps: (N,), int64.
        eps_pred: its gradient is not followed.
        variance_pred: v, the second half of the network's channels.
        alpha_bar: of every timestep.

    Returns:
        Scalar, the mean over the samples.
    """
    ends = torch.cat([alpha_bar.new_ones(1), alpha_bar])
    a, a_before = _spread(ends[timesteps + 1]), _spread(ends[timesteps])
    beta = 1 - a / a_before
    # The posterior of t = 0 has no variance; that of t = 1 stands in.
    a1, a0 = alpha_bar[1], alpha_bar[0]
    first = (1 - a0) / (1 - a1) * (1 - a1 / a0)
    posterior_variance = torch.where(_spread(timesteps) == 0, first, (1 - a_before) / (1 - a) * beta)
    log_posterior, log_beta = posterior_variance.log(), beta.log()
    share = (variance_pred + 1) / 2
    log_variance = share * log_beta + (1 - share) * log_posterior

    x0_pred = predict_x0(x_t, eps_pred.detach(), a.flatten())
    mean_shift = a_before.sqrt() * beta / (1 - a) * (x0_pred - x0)
    kl = 0.5 * (
        log_variance
        - log_posterior
        - 1
        + (log_posterior - log_variance).exp()
        + mean_shift.square() * (-log_variance).exp()
    )

    deviation = (0.5 * log_variance).exp()
    upper = torch.special.ndtr((x0 - x0_pred + 1 / 255) / deviation)
    lower = torch.special.ndtr((x0 - x0_pred - 1 / 255) / deviation)
    probability = torch.where(x0 < -0.999, upper, torch.where(x0 > 0.999, 1 - lower, upper - lower))
    likelihood = -probability.clamp(min=1e-12).log()

    bound = torch.where(_spread(timesteps) == 0, likelihood, kl)
    return bound.mean() / math.log(2)


def _spread(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1, 1)
