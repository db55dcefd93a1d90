"""The sampler against diffusers' schedulers driven by hand, on denoisers whose answers are known."""

import diffusers
import pytest
import torch

from basicsr_distill.config.sections.sample import SamplerSettings
from basicsr_distill.diffusion.process import linear_alpha_bar
from basicsr_distill.diffusion.sampler import guided, image_generator, sample_latents

SHAPE = (4, 6, 6)
SCHEDULE = {'beta_start': 1e-4, 'beta_end': 2e-2, 'beta_schedule': 'linear'}
REFERENCES = {
    'dpmsolver++': lambda: diffusers.DPMSolverMultistepScheduler(**SCHEDULE),
    'unipc': lambda: diffusers.UniPCMultistepScheduler(**SCHEDULE),
    'ddim': lambda: diffusers.DDIMScheduler(**SCHEDULE, clip_sample=False, timestep_spacing='trailing'),
    'ddpm': lambda: diffusers.DDPMScheduler(
        **SCHEDULE, clip_sample=False, timestep_spacing='linspace', variance_type='learned_range'
    ),
}


def dummy(x_t, timesteps, labels, drop_mask=None):
    """A smooth function of everything that a denoiser sees, with the variance behind."""
    shift = torch.where(drop_mask, -1.0, labels.float()) if drop_mask is not None else labels.float()
    eps = torch.tanh(x_t * 0.7) * (0.3 + timesteps[:, None, None, None] / 1500) + 0.05 * shift[:, None, None, None]
    return torch.cat([eps, torch.cos(x_t)], 1)


def generators(count):
    return [image_generator(5, label=number % 2, index=number) for number in range(count)]


@pytest.mark.parametrize('name', list(REFERENCES))
@pytest.mark.parametrize('strength', [None, 0.5])
def test_each_image_equals_diffusers_on_that_image_alone(name, strength):
    labels = torch.tensor([0, 1, 0])
    start = torch.randn(3, *SHAPE, generator=torch.Generator().manual_seed(1)) if strength else None
    settings = SamplerSettings(scheduler=name, num_steps=12, guidance_scale=1)
    drawn = sample_latents(
        dummy, labels, SHAPE, generators(3), settings, learns_variance=True, start=start, strength=strength or 1.0
    )
    for number, generator in enumerate(generators(3)):
        scheduler = REFERENCES[name]()
        scheduler.set_timesteps(12)
        timesteps = scheduler.timesteps
        x = torch.randn(SHAPE, generator=generator)[None]
        if strength:
            timesteps = timesteps[6:]
            if hasattr(scheduler, 'set_begin_index'):
                scheduler.set_begin_index(6)
            x = scheduler.add_noise(start[number : number + 1], x, timesteps[:1])
        for t in timesteps:
            output = dummy(x, t[None], labels[number : number + 1])
            more = {'generator': generator} if name == 'ddpm' else {}
            x = scheduler.step(output if name == 'ddpm' else output[:, :4], t, x, **more).prev_sample
        torch.testing.assert_close(drawn[number : number + 1], x, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('name', list(REFERENCES))
def test_the_exact_denoiser_of_one_point_leads_to_it(name):
    # If the data are one point mu, the true noise prediction is (x_t - sqrt(a) mu) / sqrt(1 - a).
    mu = torch.randn(SHAPE, generator=torch.Generator().manual_seed(2))
    alpha_bar = linear_alpha_bar()

    def denoiser(x_t, timesteps, labels, drop_mask=None):
        a = alpha_bar[timesteps].view(-1, 1, 1, 1)
        return (x_t - a.sqrt() * mu) / (1 - a).sqrt()

    drawn = sample_latents(
        denoiser,
        torch.zeros(2, dtype=torch.int64),
        SHAPE,
        generators(2),
        SamplerSettings(scheduler=name, num_steps=25, guidance_scale=1),
    )
    torch.testing.assert_close(drawn, mu.expand(2, -1, -1, -1), rtol=0, atol=2e-2)


def test_images_do_not_depend_on_the_batch():
    labels, settings = torch.tensor([0, 1, 0, 1]), SamplerSettings(scheduler='ddpm', num_steps=6, guidance_scale=2.0)
    batched = sample_latents(dummy, labels, SHAPE, generators(4), settings, learns_variance=True)
    apart = [
        sample_latents(dummy, labels[n : n + 2], SHAPE, generators(4)[n : n + 2], settings, learns_variance=True)
        for n in (0, 2)
    ]
    torch.testing.assert_close(batched, torch.cat(apart), rtol=0, atol=1e-6)


def test_guidance_equals_two_separate_passes():
    x, t, labels = torch.randn(3, *SHAPE), torch.full((3,), 400), torch.tensor([0, 1, 1])
    with_label = dummy(x, t, labels)
    without = dummy(x, t, labels, torch.ones(3, dtype=torch.bool))
    settings = SamplerSettings(guidance_scale=4.0, guidance_channels=3)
    output = guided(dummy, x, t, labels, settings)
    torch.testing.assert_close(output[:, :3], without[:, :3] + 4 * (with_label[:, :3] - without[:, :3]))
    torch.testing.assert_close(output[:, 3:], with_label[:, 3:])
    everywhere = guided(dummy, x, t, labels, SamplerSettings(guidance_scale=4.0))
    torch.testing.assert_close(everywhere[:, 3], without[:, 3] + 4 * (with_label[:, 3] - without[:, 3]))
    unlabelled = guided(dummy, x, t, labels, SamplerSettings(guidance_scale=0.0))
    torch.testing.assert_close(unlabelled[:, :4], without[:, :4])


def test_guidance_costs_nothing_outside_its_interval():
    sizes = []

    def counting(x_t, timesteps, labels, drop_mask=None):
        sizes.append((len(x_t), int(timesteps[0])))
        return dummy(x_t, timesteps, labels, drop_mask)

    settings = SamplerSettings(scheduler='ddim', num_steps=10, guidance_scale=3.0, guidance_interval=(0.2, 0.7))
    sample_latents(counting, torch.tensor([0, 1]), SHAPE, generators(2), settings)
    assert {size for size, t in sizes if 200 <= t <= 700} == {4}
    assert {size for size, t in sizes if not 200 <= t <= 700} == {2}


def test_strength_is_a_share_of_the_steps():
    steps = []

    def counting(x_t, timesteps, labels, drop_mask=None):
        steps.append(int(timesteps[0]))
        return dummy(x_t, timesteps, labels, drop_mask)

    sample_latents(
        counting,
        torch.tensor([0]),
        SHAPE,
        generators(1),
        SamplerSettings(num_steps=20, guidance_scale=1),
        start=torch.zeros(1, *SHAPE),
        strength=0.25,
    )
    assert len(steps) == 5 and max(steps) < 300


def test_generators_of_images_differ_and_repeat():
    draws = {
        (seed, label, index): tuple(torch.randn(3, generator=image_generator(seed, label, index)).tolist())
        for seed in (0, 1)
        for label in (0, 1)
        for index in (0, 1)
    }
    assert len(set(draws.values())) == 8
    assert draws[0, 1, 1] == tuple(torch.randn(3, generator=image_generator(0, 1, 1)).tolist())
