"""The noise process against diffusers' scheduler, and the bound against loops from the equations."""

import math

import pytest
import torch
from diffusers import DDPMScheduler
from scipy.stats import norm

from basicsr_distill.diffusion.process import (
    add_noise,
    linear_alpha_bar,
    predict_x0,
    simple_loss,
    variational_bound,
)

SCHEDULER = DDPMScheduler(beta_start=1e-4, beta_end=2e-2, beta_schedule='linear')


def test_schedule_and_noising_equal_diffusers():
    alpha_bar = linear_alpha_bar()
    torch.testing.assert_close(alpha_bar, SCHEDULER.alphas_cumprod, rtol=1e-4, atol=1e-7)
    x0, eps, t = torch.randn(4, 2, 3, 3), torch.randn(4, 2, 3, 3), torch.tensor([0, 250, 500, 999])
    x_t = add_noise(x0, eps, alpha_bar[t])
    torch.testing.assert_close(x_t, SCHEDULER.add_noise(x0, eps, t), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(predict_x0(x_t[:3], eps[:3], alpha_bar[t[:3]]), x0[:3], rtol=1e-4, atol=1e-4)


def test_simple_loss_and_its_weight():
    eps, eps_pred = torch.randn(3, 2, 4, 4), torch.randn(3, 2, 4, 4)
    alpha_bar_t = torch.tensor([0.99, 0.6, 0.1])
    errors = [float((a - b).square().mean()) for a, b in zip(eps, eps_pred)]
    assert float(simple_loss(eps_pred, eps, alpha_bar_t)) == pytest.approx(sum(errors) / 3, rel=1e-6)
    weights = [min(a / (1 - a), 5) / (a / (1 - a)) for a in alpha_bar_t.tolist()]
    expected = sum(w * e for w, e in zip(weights, errors)) / 3
    assert float(simple_loss(eps_pred, eps, alpha_bar_t, 5.0)) == pytest.approx(expected, rel=1e-5)


def test_variational_bound_equals_a_loop_in_double_precision():
    generator = torch.Generator().manual_seed(0)
    betas = [float(b) for b in torch.linspace(1e-4, 2e-2, 1000, dtype=torch.float64)]
    bars = [1.0]
    for beta in betas:
        bars.append(bars[-1] * (1 - beta))
    timesteps = [0, 1, 400, 999]
    shape = (4, 1, 2, 3)
    x0 = torch.randn(shape, generator=generator)
    x0[0, 0, 0] = torch.tensor([-1.5, 1.5, 0.1])
    eps, eps_pred = torch.randn(shape, generator=generator), torch.randn(shape, generator=generator) * 0.01
    eps_pred = eps + eps_pred
    v = torch.rand(shape, generator=generator) * 2 - 1
    alpha_bar = linear_alpha_bar()
    x_t = add_noise(x0, eps, alpha_bar[torch.tensor(timesteps)])

    total = 0.0
    for n, t in enumerate(timesteps):
        a, before, beta = bars[t + 1], bars[t], betas[t]
        # The posterior variance of t = 0 is zero; that of t = 1 stands in, as in the published code.
        posterior = (1 - bars[1]) / (1 - bars[2]) * betas[1] if t == 0 else (1 - before) / (1 - a) * beta
        for x, xt, e, vv in zip(
            x0[n].flatten().tolist(), x_t[n].flatten().tolist(), eps_pred[n].flatten().tolist(), v[n].flatten().tolist()
        ):
            share = (vv + 1) / 2
            log_variance = share * math.log(beta) + (1 - share) * math.log(posterior)
            pred = (xt - math.sqrt(1 - a) * e) / math.sqrt(a)
            mean_q = math.sqrt(before) * beta / (1 - a) * x + math.sqrt(1 - beta) * (1 - before) / (1 - a) * xt
            mean_p = math.sqrt(before) * beta / (1 - a) * pred + math.sqrt(1 - beta) * (1 - before) / (1 - a) * xt
            if t == 0:
                deviation = math.exp(log_variance / 2)
                high = 1.0 if x > 0.999 else norm.cdf((x + 1 / 255 - mean_p) / deviation)
                low = 0.0 if x < -0.999 else norm.cdf((x - 1 / 255 - mean_p) / deviation)
                bits = -math.log(max(high - low, 1e-12))
            else:
                ratio = posterior / math.exp(log_variance)
                bits = 0.5 * (-1 - math.log(ratio) + ratio + (mean_q - mean_p) ** 2 / math.exp(log_variance))
            total += bits / math.log(2)
    expected = total / x0.numel()
    bound = variational_bound(x0, x_t, torch.tensor(timesteps), eps_pred, v, alpha_bar)
    assert float(bound) == pytest.approx(expected, rel=2e-3)


def test_variational_bound_trains_the_variance_alone():
    x0, eps_pred, v = (torch.randn(2, 1, 4, 4) for _ in range(3))
    eps_pred.requires_grad_()
    v.requires_grad_()
    variational_bound(x0, x0, torch.tensor([0, 10]), eps_pred, v, linear_alpha_bar()).backward()
    assert eps_pred.grad is None and v.grad.abs().sum() > 0
