"""The terms of GSDD against loops."""

import math

import pytest
import torch

from basicsr_distill.losses.distribution_matching import (
    distribution_distance,
    mean_pairwise_cosine,
    random_features,
)


def test_distance_of_means():
    generator = torch.Generator().manual_seed(0)
    real, synthetic = torch.rand(5, 2, 3, generator=generator), torch.rand(4, 2, 3, generator=generator)
    expected = sum(
        (sum(float(x[i, j]) for x in real) / 5 - sum(float(x[i, j]) for x in synthetic) / 4) ** 2
        for i in range(2)
        for j in range(3)
    )
    assert float(distribution_distance(real, synthetic)) == pytest.approx(expected, rel=1e-5)
    assert float(distribution_distance(real, real)) == 0


def test_mean_cosine_of_all_pairs():
    latents = torch.randn(6, 3, 2, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    rows = latents.flatten(1).tolist()
    cosines = [
        sum(a * b for a, b in zip(rows[i], rows[j]))
        / math.sqrt(sum(a * a for a in rows[i]) * sum(b * b for b in rows[j]))
        for i in range(6)
        for j in range(6)
        if i != j
    ]
    assert float(mean_pairwise_cosine(latents)) == pytest.approx(sum(cosines) / len(cosines), rel=1e-9)
    assert torch.autograd.gradcheck(mean_pairwise_cosine, latents[:3].clone().requires_grad_())


def test_a_single_latent_has_no_pair():
    latent = torch.randn(1, 3, 2, 2, requires_grad=True)
    value = mean_pairwise_cosine(latent)
    value.backward()
    assert value.item() == 0 and not latent.grad.any()


def test_random_features_depend_on_their_seed_alone():
    images = torch.rand(2, 3, 32, 32)
    torch.manual_seed(1)
    first = random_features(5, width=8)(images)
    torch.manual_seed(2)
    state = torch.get_rng_state()
    net = random_features(5, width=8)
    assert torch.equal(first, net(images)) and not torch.equal(first, random_features(6, width=8)(images))
    assert not any(parameter.requires_grad for parameter in net.parameters())
    assert torch.equal(torch.get_rng_state(), state)
