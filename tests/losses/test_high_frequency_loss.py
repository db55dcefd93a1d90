"""The high-frequency term against BasicSR's own bicubic resizing."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from basicsr.utils.matlab_functions import imresize
from support import keys_of

from basicsr_distill.config.sections.losses import HighFrequencyLossOptions
from basicsr_distill.losses.high_frequency_loss import HighFrequencyLoss


def high_frequency_loss(decode=None, **given):
    loss = HighFrequencyLoss(**keys_of(HighFrequencyLossOptions, **given), decode=decode)

    def value(x0_pred, x0, alpha_bar_t, timesteps):
        batch = SimpleNamespace(x0=x0, alpha_bar_t=alpha_bar_t, timesteps=timesteps)
        return loss(SimpleNamespace(x0_pred=x0_pred), batch)

    return value


def smooth(latent, scale):
    planes = [imresize(imresize(plane[None], 1 / scale, True), scale, True) for plane in latent]
    return np.stack([np.asarray(plane).reshape(latent.shape[1:]) for plane in planes])


def log_energy(latent, scale=4):
    return math.log(((latent.numpy() - smooth(latent, scale)).astype(np.float64) ** 2).sum())


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(3)
    x0 = torch.randn(3, 2, 16, 16, generator=generator)
    x0_pred = x0 * 0.5 + torch.randn(x0.shape, generator=generator) * 0.2
    return x0_pred, x0, torch.tensor([0.9, 0.5, 0.01]), torch.tensor([100, 350, 900])


def test_latent_form(batch):
    x0_pred, x0, alpha_bar_t, timesteps = batch
    expected = sum(float(a) * abs(log_energy(p) - log_energy(z)) for p, z, a in zip(x0_pred, x0, alpha_bar_t)) / 3
    loss = high_frequency_loss(loss_weight=1.0)(x0_pred, x0, alpha_bar_t, timesteps)
    assert float(loss) == pytest.approx(expected, abs=2e-6)


def test_pixel_form_counts_only_early_timesteps(batch):
    x0_pred, x0, alpha_bar_t, timesteps = batch
    expected = float(alpha_bar_t[0]) * abs(log_energy(x0_pred[0] * 3) - log_energy(x0[0] * 3)) / 3
    loss = high_frequency_loss(lambda z: z * 3, loss_weight=1.0, mode='pixel')(x0_pred, x0, alpha_bar_t, timesteps)
    assert float(loss) == pytest.approx(expected, abs=2e-6)
    late = high_frequency_loss(lambda z: z * 3, mode='pixel')(x0_pred, x0, alpha_bar_t, timesteps + 300)
    assert float(late) == 0


def test_literal_form_and_its_limit(batch):
    x0_pred, x0, alpha_bar_t, timesteps = batch
    distance = np.mean([((p.numpy() - smooth(z, 4)) ** 2).mean() for p, z in zip(x0_pred, x0)])
    loss = high_frequency_loss(loss_weight=1.0, mode='literal')
    assert float(loss(x0_pred, x0, alpha_bar_t, timesteps)) == pytest.approx(-distance, rel=1e-5)
    limit = np.mean([4 * ((z.numpy() - smooth(z, 4)) ** 2).mean() for z in x0])
    assert float(loss(x0_pred * 1e4, x0, alpha_bar_t, timesteps)) == pytest.approx(-limit, rel=1e-5)


def test_off_is_zero_with_a_zero_gradient(batch):
    x0_pred, x0, alpha_bar_t, timesteps = batch
    x0_pred.requires_grad_()
    loss = high_frequency_loss(mode='off')(x0_pred, x0, alpha_bar_t, timesteps)
    loss.backward()
    assert loss.item() == 0 and not x0_pred.grad.any()


def test_flat_latents_are_alike_whatever_their_rounding():
    flat = torch.tensor([0.0, 0.3, -7.7]).view(3, 1, 1, 1).expand(3, 2, 16, 16)
    rounded = flat + 1e-7 * torch.randn(flat.shape, generator=torch.Generator().manual_seed(0))
    loss = high_frequency_loss(loss_weight=1.0)
    assert loss(rounded, flat.roll(1, 0), torch.ones(3), torch.zeros(3)) == 0


def test_flat_latents_stay_finite():
    flat = torch.zeros(1, 1, 8, 8, requires_grad=True)
    loss = high_frequency_loss()(flat, torch.ones(1, 1, 8, 8), torch.ones(1), torch.zeros(1))
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(flat.grad).all()


def test_unknown_mode_is_refused():
    with pytest.raises(ValueError, match='latnt'):
        HighFrequencyLoss(**{**keys_of(HighFrequencyLossOptions), 'mode': 'latnt'}, decode=None)
