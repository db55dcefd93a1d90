"""Guidance on a mixture of Gaussians, whose noise is known exactly, and against definitions written as loops."""

import numpy as np
import pytest
import scipy.linalg
import torch

from basicsr_distill.diffusion.guidance import latent_bounds, tangent_part, towards_modes, within_bounds
from basicsr_distill.diffusion.process import linear_alpha_bar, predict_x0
from basicsr_distill.diffusion.sampler import SamplerSettings, guided, image_generator, sample_latents

SHAPE = (4, 2, 2)
SPREAD = 0.3
COUNT = 60
SCHEDULERS = ('dpmsolver++', 'unipc', 'ddim', 'ddpm')
MEANS = 2 * torch.randn(5, *SHAPE, generator=torch.Generator().manual_seed(2))
ALPHA_BAR = linear_alpha_bar()
OWN = torch.arange(COUNT) % len(MEANS)


def mixture(x_t, timesteps, labels=None, drop_mask=None):
    """The noise that is expected in x_t when the data are equal shares of N(MEANS[k], SPREAD**2)."""
    a = ALPHA_BAR[timesteps].view(-1, 1, 1, 1)
    variance = a * SPREAD**2 + 1 - a
    gap = x_t[:, None] - a.sqrt()[:, None] * MEANS
    share = torch.softmax(-gap.square().flatten(2).sum(2) / (2 * variance.view(-1, 1)), 1)
    return (1 - a).sqrt() * torch.einsum('nk,nkchw->nchw', share, gap) / variance


def draw(denoiser, scheduler, num_steps=25):
    settings = SamplerSettings(scheduler=scheduler, num_steps=num_steps, guidance_scale=1.0)
    return sample_latents(
        denoiser,
        torch.zeros(COUNT, dtype=torch.int64),
        SHAPE,
        [image_generator(1, 0, index) for index in range(COUNT)],
        settings,
    )


def distances(latents):
    return (latents[:, None] - MEANS).flatten(2).norm(dim=2)


@pytest.mark.parametrize('scheduler', SCHEDULERS)
def test_samples_end_at_their_mode_with_guidance_and_in_any_without(scheduler):
    free = distances(draw(mixture, scheduler)).min(1)
    steered = distances(draw(towards_modes(mixture, MEANS[OWN], scale=0.3, stop=0.2), scheduler)).min(1)
    assert set(free.indices.tolist()) == set(range(5)) and (free.indices == OWN).float().mean() < 0.4
    assert (steered.indices == OWN).float().mean() > 0.95
    for found in (free, steered):  # in 16 dimensions points lie at about 4 standard deviations from their mean
        assert found.values.mean() < 5 * SPREAD


@pytest.mark.parametrize('scheduler', SCHEDULERS)
def test_scale_zero_changes_no_bit(scheduler):
    assert torch.equal(draw(towards_modes(mixture, MEANS[OWN], scale=0), scheduler), draw(mixture, scheduler))


def test_the_pull_is_what_the_paper_says():
    x_t, a = torch.randn(COUNT, *SHAPE, generator=torch.Generator().manual_seed(1)), float(ALPHA_BAR[700])
    t = torch.full((COUNT,), 700)
    x0 = predict_x0(x_t, mixture(x_t, t), ALPHA_BAR[t])
    moved = predict_x0(x_t, towards_modes(mixture, MEANS[OWN], 0.1)(x_t, t, None), ALPHA_BAR[t])
    torch.testing.assert_close(moved, x0 + 0.1 * (MEANS[OWN] - x0) * (1 - a) / a**0.5, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('learned', [True, False])
def test_with_ddpm_the_pull_is_that_of_the_released_code(learned):
    num_steps, scale, settings = 50, 0.1, SamplerSettings(scheduler='ddpm', num_steps=50, guidance_scale=1.0)

    def denoiser(x_t, timesteps, labels=None, drop_mask=None):
        eps = mixture(x_t, timesteps)
        return torch.cat([eps, x_t.cos()], 1) if learned else eps

    def released(generator, mode):
        # x_{t-1} = mu + scale sigma_t (mode - x0_pred) + sigma_t z while t > 500, with all from DDPM's definitions.
        timesteps = np.linspace(0, 999, num_steps).round()[::-1].astype(int).tolist()
        x = torch.randn(SHAPE, generator=generator)
        for t, before in zip(timesteps, [*timesteps[1:], None]):
            output = denoiser(x[None], torch.tensor([t]))[0]
            a, a_before = float(ALPHA_BAR[t]), 1.0 if before is None else float(ALPHA_BAR[before])
            beta = 1 - a / a_before
            x0_pred = (x - (1 - a) ** 0.5 * output[:4]) / a**0.5
            mu = (a_before**0.5 * beta * x0_pred + (a / a_before) ** 0.5 * (1 - a_before) * x) / (1 - a)
            if before is None:
                return mu
            smallest = (1 - a_before) / (1 - a) * beta
            share = (output[4:] + 1) / 2 if learned else torch.tensor(0.0)
            sigma = (0.5 * (share * np.log(beta) + (1 - share) * np.log(smallest))).exp()
            pull = scale * sigma * (mode - x0_pred) if t > 500 else 0.0
            x = mu + pull + sigma * torch.randn(SHAPE, generator=generator)

    drawn = sample_latents(
        denoiser,
        torch.zeros(5, dtype=torch.int64),
        SHAPE,
        [image_generator(1, 0, index) for index in range(5)],
        settings,
        learns_variance=learned,
        steer=lambda denoise, next_timestep: towards_modes(denoise, MEANS, scale, next_timestep=next_timestep),
    )
    expected = torch.stack([released(image_generator(1, 0, index), MEANS[index]) for index in range(5)])
    torch.testing.assert_close(drawn, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize('scheduler', SCHEDULERS)
def test_the_next_timestep_is_told_for_ddpm_alone(scheduler):
    told = []
    settings = SamplerSettings(scheduler=scheduler, num_steps=4, guidance_scale=1.0)
    sample_latents(
        mixture,
        torch.zeros(1, dtype=torch.int64),
        SHAPE,
        [image_generator(1, 0, 0)],
        settings,
        steer=lambda denoise, next_timestep: told.append(next_timestep) or denoise,
    )
    assert (told[0] is not None) == (scheduler == 'ddpm')


def test_the_pull_stops():
    x_t = torch.randn(COUNT, *SHAPE)
    steered = towards_modes(mixture, MEANS[OWN], 0.1, stop=0.4)
    for t in (0, 399, 400):
        now = torch.full((COUNT,), t)
        assert torch.equal(steered(x_t, now, None), mixture(x_t, now)), t
    now = torch.full((COUNT,), 401)
    assert not torch.equal(steered(x_t, now, None), mixture(x_t, now))


def with_label(x_t, timesteps, labels, drop_mask=None):
    """Noise that depends on the label, with the variance behind."""
    shift = labels.float() if drop_mask is None else torch.where(drop_mask, -1.0, labels.float())
    return torch.cat([mixture(x_t, timesteps) + 0.1 * shift.view(-1, 1, 1, 1), x_t.cos()], 1)


def test_it_goes_with_classifier_free_guidance():
    x_t, t, labels = torch.randn(3, *SHAPE), torch.full((3,), 800), torch.tensor([0, 1, 2])
    settings = SamplerSettings(guidance_scale=3.0)
    inside = guided(towards_modes(with_label, MEANS[:3], 0.1), x_t, t, labels, settings)

    def both(x_t, timesteps, labels):
        return guided(with_label, x_t, timesteps, labels, settings)

    outside = towards_modes(both, MEANS[:3], 0.1)(x_t, t, labels)
    torch.testing.assert_close(inside, outside, rtol=1e-4, atol=1e-4)
    assert torch.equal(outside[:, 4:], x_t.cos())


def test_tangent_part_projects_onto_the_neighbours_plane():
    generator = np.random.default_rng(0)
    latents = generator.normal(size=(40, 6))
    vectors, points = generator.normal(size=(2, 5, 6))
    expected = []
    for vector, point in zip(vectors, points):
        near = sorted(range(40), key=lambda n: np.linalg.norm(latents[n] - point))[:8]
        _, axes = np.linalg.eigh(np.cov(latents[near].T))
        expected.append(sum((axis @ vector) * axis for axis in axes.T[-2:]))
    found = tangent_part(*(torch.tensor(each) for each in (vectors, points, latents)), neighbors=8, dimensions=2)
    np.testing.assert_allclose(found, expected, atol=1e-9)


@pytest.mark.parametrize('distinct', [1, 2, 3])
def test_directions_in_which_the_data_do_not_extend_are_not_along_it(distinct):
    """Few latents, or copies, span fewer directions than are asked for; rounding must not choose the others."""
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(distinct, 16, generator=generator)
    vector, rounding = torch.randn(1, 16, generator=generator), 1e-7 * torch.randn(12, 16, generator=generator)
    axes = scipy.linalg.orth((latents - latents.mean(0)).double().T.numpy(), rcond=1e-5)
    found = tangent_part(vector, torch.zeros(1, 16), latents[torch.arange(12) % distinct] + rounding)
    np.testing.assert_allclose(found, vector.double().numpy() @ axes @ axes.T, atol=1e-4)


def test_with_a_manifold_the_pull_stays_in_it():
    flat = torch.zeros(30, *SHAPE)
    flat[:, 0] = torch.randn(30, 2, 2, generator=torch.Generator().manual_seed(3))
    x_t, now = torch.randn(COUNT, *SHAPE), torch.full((COUNT,), 700)
    steered = towards_modes(mixture, MEANS[OWN], 0.1, manifold=flat)(x_t, now, None)
    moved = steered - mixture(x_t, now)
    assert moved[:, 0].abs().max() > 1e-2
    torch.testing.assert_close(moved[:, 1:], torch.zeros_like(moved[:, 1:]), rtol=0, atol=1e-5)


def test_bounds_are_quantiles_of_every_channel():
    latents = torch.randn(20, *SHAPE, generator=torch.Generator().manual_seed(4)) * torch.tensor([1, 2, 3, 4]).view(
        4, 1, 1
    )
    low, high = latent_bounds(latents, share=0.1)
    for channel in range(4):
        values = sorted(latents[:, channel].flatten().tolist())
        assert (low[channel].item(), high[channel].item()) == (values[8], values[71])


def overconfident(x_t, timesteps, labels=None, drop_mask=None):
    """As a weak denoiser from much noise: x0 predicted too large."""
    return mixture(x_t, timesteps) * 0.8


@pytest.mark.parametrize('scheduler', SCHEDULERS)
def test_clipping_ends_the_overshoot_of_a_weak_denoiser(scheduler):
    real = MEANS[OWN] + SPREAD * torch.randn(COUNT, *SHAPE, generator=torch.Generator().manual_seed(5))
    low, high = latent_bounds(real)
    wild = draw(overconfident, scheduler)
    tame = draw(within_bounds(overconfident, low, high), scheduler)
    assert (wild - wild.clamp(low, high)).abs().max() > 0.5
    assert (tame - tame.clamp(low, high)).abs().max() < 0.1


def test_clipping_changes_no_bit_inside():
    x_t, now = torch.randn(COUNT, *SHAPE), torch.full((COUNT,), 900)
    wide = torch.full((4, 1, 1), 100.0)
    assert torch.equal(within_bounds(with_label, -wide, wide)(x_t, now, OWN), with_label(x_t, now, OWN))
    narrow = torch.full((4, 1, 1), 0.5)
    output = within_bounds(with_label, -narrow, narrow)(x_t, now, OWN)
    before, after = (predict_x0(x_t, eps[:, :4], ALPHA_BAR[now]) for eps in (with_label(x_t, now, OWN), output))
    torch.testing.assert_close(after, before.clamp(-0.5, 0.5), rtol=0, atol=1e-4)
    assert torch.equal(output[:, 4:], x_t.cos())
