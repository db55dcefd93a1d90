"""Modes of latents, and the denoiser's own error, against loops."""

import numpy as np
import pytest
import torch

from basicsr_distill.diffusion.denoiser_quality import denoising_errors
from basicsr_distill.diffusion.modes import latent_modes
from basicsr_distill.diffusion.process import linear_alpha_bar


@pytest.fixture
def latents():
    generator = np.random.default_rng(0)
    centers = 5 * generator.normal(size=(3, 2, 2, 2))
    return (centers[np.repeat([0, 1, 2], [12, 8, 5])] + 0.1 * generator.normal(size=(25, 2, 2, 2))).astype(np.float32)


def test_centers_are_means_and_medoids_real_latents(latents):
    parts = [latents[:12], latents[12:20], latents[20:]]
    means = [part.astype(np.float64).mean(0) for part in parts]
    np.testing.assert_allclose(latent_modes(latents, 3, seed=0), means, atol=1e-6)
    nearest = [min(part, key=lambda latent: np.linalg.norm(latent - mean)) for part, mean in zip(parts, means)]
    np.testing.assert_array_equal(latent_modes(latents, 3, seed=0, kind='medoids'), nearest)


@pytest.mark.parametrize('kind', ['centers', 'medoids'])
def test_few_latents_serve_again(latents, kind):
    modes = latent_modes(latents[[0, 15]], 5, seed=0, kind=kind)
    assert {mode.tobytes() for mode in modes} == {latents[0].tobytes(), latents[15].tobytes()}


def test_errors_are_those_of_every_latent_by_itself():
    alpha_bar = linear_alpha_bar()

    def denoise(x_t, timesteps, labels):
        return torch.cat([0.3 * x_t + labels.view(-1, 1, 1, 1) + timesteps.view(-1, 1, 1, 1) / 1000, x_t], 1)

    latents, labels = torch.randn(3, 2, 4, 4), torch.tensor([0, 1, 2])
    expected = []
    for latent, label in zip(latents, labels):
        generator, errors = torch.Generator().manual_seed(6), []
        for t in (30, 90):
            noise = torch.randn(2, 4, 4, generator=generator)
            x_t = alpha_bar[t].sqrt() * latent + (1 - alpha_bar[t]).sqrt() * noise
            errors.append((0.3 * x_t + label + t / 1000 - noise).square().mean())
        expected.append(sum(errors) / 2)
    torch.testing.assert_close(denoising_errors(denoise, latents, labels, (30, 90), seed=6), torch.stack(expected))


def test_what_the_denoiser_knows_has_the_smaller_error():
    alpha_bar = linear_alpha_bar()

    def knows_zero(x_t, timesteps, labels):
        return x_t / (1 - alpha_bar[timesteps]).sqrt().view(-1, 1, 1, 1)  # exact for data that are all zero

    latents = torch.stack([torch.zeros(2, 4, 4), torch.ones(2, 4, 4)])
    known, unknown = denoising_errors(knows_zero, latents, torch.zeros(2, dtype=torch.int64)).tolist()
    assert known < 1e-9 < unknown
