"""What steers drawing, through the stage: modes, clipping, refining, own errors, published weights, targets."""

import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from basicsr.archs.edsr_arch import EDSR
from diffusers import DiTTransformer2DModel
from latent_recipe import make_stages, recipe, write_recipe

from basicsr_distill.config.experiment import to_experiment
from basicsr_distill.config.recipe import Recipe
from basicsr_distill.config.sections.base import bind
from basicsr_distill.config.sections.sample import SampleOptions
from basicsr_distill.data.latent_patch_dataset import LatentPatchDataset
from basicsr_distill.diffusion.codec import build_codec
from basicsr_distill.diffusion.modes import latent_modes
from basicsr_distill.diffusion.process import linear_alpha_bar
from basicsr_distill.diffusion.sampler import image_generator, sample_latents
from basicsr_distill.errors import InputError
from basicsr_distill.io.images import read_rgb
from basicsr_distill.io.manifest import SampleRow, read_table
from basicsr_distill.selection.medoids import choose_medoids
from basicsr_distill.stages.pipeline import distill
from basicsr_distill.stages.sample import draw as draw_module
from basicsr_distill.stages.sample import stage as sample
from basicsr_distill.stages.sample.plan import plan_draws
from basicsr_distill.training import train as train_loop

STAGES = {
    'extract': {'dataroot': 'photos', 'save_dir': 'patches', 'patch_size': 32},
    'cluster': {'save_dir': 'clusters', 'encoder': {'type': 'texture'}, 'num_clusters': 2},
}


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    root = tmp_path_factory.mktemp('recipe')
    make_stages(root)
    path = write_recipe(root / 'tiny.yml', recipe(root, total_iter=30))
    before = Path.cwd()
    os.chdir(root)
    try:
        train_loop.train(to_experiment(Recipe.load(path), is_train=True, root=root, auto_resume=True))
        return to_experiment(Recipe.load(path), is_train=True, root=root)
    finally:
        os.chdir(before)


def draw(trained, folder, **more):
    given = {'images_per_cluster': 3, 'num_steps': 6, 'guidance_scale': 1.0, 'save_dir': str(folder), 'select': 'first'}
    return sample.draw_set(bind(SampleOptions, {**given, **more}, 'sample'), trained).folder


def images(folder):
    return {row.name: read_rgb(folder / 'HR' / row.name) for row in read_table(folder / 'manifest.csv', SampleRow)}


def same(one, other):
    return all(np.array_equal(rgb, other[name]) for name, rgb in one.items())


def latents_of(trained):
    patches = LatentPatchDataset(trained.opt['datasets']['train'])
    return np.stack([patches.latent_mean(n).numpy() for n in range(len(patches))]), np.array(patches.labels), patches


def encode(trained, folder):
    """Latents of a set's images, by name."""
    codec = build_codec(latents_of(trained)[2].options.codec, Path(trained.opt['path']['experiments_root']) / 'latents')
    return {
        name: codec.encode(torch.from_numpy(rgb.copy()).permute(2, 0, 1)[None].float() / 255)[0][0].numpy()
        for name, rgb in images(folder).items()
    }


@pytest.fixture
def exact(trained, monkeypatch):
    """The noise that is expected when the data are the real latents of the label, in the network's place."""
    real, labels, _ = latents_of(trained)
    real, labels, alpha_bar = torch.from_numpy(real), torch.from_numpy(labels), linear_alpha_bar()

    def denoise(x_t, timesteps, own, drop_mask=None):
        a = alpha_bar[timesteps].view(-1, 1, 1, 1, 1)
        variance = a * 0.3**2 + 1 - a
        gap = x_t[:, None] - a.sqrt() * real
        score = -gap.square().flatten(2).sum(2) / (2 * variance.view(-1, 1))
        share = torch.softmax(score.masked_fill(labels[None] != own[:, None], -torch.inf), 1)
        eps = (1 - a[:, 0]).sqrt() * torch.einsum('nk,nkchw->nchw', share, gap) / variance[:, 0]
        return torch.cat([eps, torch.full_like(eps, -1.0)], 1)

    def load(options, source, original=draw_module.load_model):
        return replace(original(options, source), denoise=denoise)

    monkeypatch.setattr(draw_module, 'load_model', load)


def nearest_patches(trained, folder):
    real = latents_of(trained)[0]
    return [int(np.square(real - latent).sum((1, 2, 3)).argmin()) for latent in encode(trained, folder).values()]


@pytest.mark.parametrize('scheduler', ['dpmsolver++', 'unipc', 'ddim', 'ddpm'])
def test_images_end_at_their_modes_with_guidance_and_anywhere_without(trained, exact, tmp_path, scheduler):
    given = {'scheduler': scheduler, 'num_steps': 20}
    real, labels, _ = latents_of(trained)
    modes = [
        int(np.flatnonzero(labels == label)[pick])
        for label in (0, 1)
        for pick in choose_medoids(real[labels == label].reshape(12, -1), 3, seed=0)
    ]
    plain = draw(trained, tmp_path / 'plain', **given)
    pulled = draw(trained, tmp_path / 'pulled', **given, mode_guidance={'scale': 1.0, 'stop': 0.1, 'modes': 'medoids'})
    assert nearest_patches(trained, pulled) == modes
    assert nearest_patches(trained, plain) != modes
    assert same(images(plain), images(draw(trained, tmp_path / 'none', **given, mode_guidance={'scale': 0})))


@pytest.mark.parametrize('scheduler', ['dpmsolver++', 'unipc', 'ddim', 'ddpm'])
@pytest.mark.parametrize(
    ('strength', 'stop', 'pulls'),
    [
        (None, 0.99, True),
        (None, 1.0, False),
        (0.7, 0.5, True),
        (0.3, 0.5, False),
        (0.5, 0.5, False),
        (0.55, 0.5, False),
    ],
)
def test_a_pull_that_changes_nothing_is_refused(scheduler, strength, stop, pulls):
    asked = []

    def denoise(x_t, timesteps, labels):
        asked.append(float(timesteps[0]))
        return torch.zeros_like(x_t)

    section = {
        'scheduler': scheduler,
        'num_steps': 6,
        'guidance_scale': 1.0,
        'images_per_cluster': 1,
        'save_dir': 'set',
        **({'init': {'type': 'prototype', 'strength': strength}} if strength else {}),
    }
    start = torch.zeros(1, 4, 2, 2) if strength else None
    sample_latents(
        denoise,
        torch.tensor([0]),
        (4, 2, 2),
        [image_generator(0, 0, 0)],
        bind(SampleOptions, section, 'sample'),
        start=start,
        strength=strength or 1.0,
    )
    assert (asked[0] > 1000 * stop) == pulls
    section['mode_guidance'] = {'scale': 0.5, 'stop': stop}
    if pulls:
        bind(SampleOptions, section, 'sample')
    else:
        with pytest.raises(InputError, match=f'mode_guidance.stop {stop:g} leaves no step to pull in'):
            bind(SampleOptions, section, 'sample')


def test_a_pull_may_be_that_of_refining(trained, tmp_path):
    given = {'init': {'type': 'prototype', 'strength': 0.3}, 'refine': {'strength': 0.8, 'steps': 4}}
    plain, pulled = (
        images(draw(trained, tmp_path / name, **given, mode_guidance=guidance))
        for name, guidance in (('plain', {'scale': 0}), ('pulled', {'scale': 0.5}))
    )
    assert not same(plain, pulled)


@pytest.mark.parametrize('modes', ['centers', 'medoids'])
def test_an_image_is_pulled_to_the_mode_of_the_cluster_that_it_starts_from(trained, tmp_path, modes):
    folder = draw(
        trained, tmp_path / 'set', init={'type': 'prototype', 'strength': 0.9}, mode_guidance={'modes': modes}
    )
    real, labels, patches = latents_of(trained)
    numbers = {row.name: number for number, row in enumerate(patches.rows)}
    for row in read_table(folder / 'manifest.csv', SampleRow):
        mode = latent_modes(real[labels == row.label], 3, seed=0, kind=modes)[row.index]
        nearest = min(np.linalg.norm(latent - mode) for latent in real[labels == row.label])
        assert np.linalg.norm(real[numbers[row.prototype]] - mode) <= 1.0001 * nearest  # both of a pair are nearest


@pytest.mark.parametrize('modes', ['centers', 'medoids'])
def test_prototypes_and_modes_of_few_patches_begin_again_alike(trained, modes):
    real, labels, patches = latents_of(trained)
    options = bind(
        SampleOptions,
        {
            'images_per_cluster': 15,
            'oversample': 2,
            'save_dir': 'set',
            'init': {'type': 'prototype', 'strength': 0.9},
            'mode_guidance': {'modes': modes},
        },
        'sample',
    )
    draws = plan_draws(options, SimpleNamespace(patches=patches, labels=labels))
    assert len(draws) == 60
    for draw in draws:
        mode = latent_modes(real[labels == draw.label], 15, seed=0, kind=modes)[draw.index % 15]
        np.testing.assert_allclose(real[draw.prototype], mode, atol=1e-5)


def test_a_pull_along_the_data_is_another_one(trained, tmp_path):
    sets = [
        images(draw(trained, tmp_path / str(manifold), mode_guidance={'scale': 0.5, 'manifold': manifold}))
        for manifold in (False, True)
    ]
    assert not same(*sets)
    again = draw(trained, tmp_path / 'again', mode_guidance={'scale': 0.5, 'manifold': True})
    assert same(sets[1], images(again))
    assert 'centers, along the data, scale 0.5' in (again / 'README.md').read_text()


def test_clipping_keeps_latents_in_the_range_of_real_ones(trained, tmp_path):
    real = latents_of(trained)[0]
    low, high = real.min((0, 2, 3)), real.max((0, 2, 3))

    def outside(folder):
        return np.mean(
            [
                (latent < low[:, None, None] - 0.1) | (latent > high[:, None, None] + 0.1)
                for latent in encode(trained, folder).values()
            ]
        )

    free, clipped = draw(trained, tmp_path / 'free'), draw(trained, tmp_path / 'clipped', clip_x0=0.0)
    assert outside(clipped) < outside(free)
    assert 'clean latents within the 0 quantiles of real ones' in (clipped / 'README.md').read_text()


def test_refining_changes_a_little(trained, tmp_path):
    plain, gentle, hard = (
        images(draw(trained, tmp_path / name, **more))
        for name, more in {
            'plain': {},
            'gentle': {'refine': {'strength': 0.02, 'steps': 2}},
            'hard': {'refine': {'strength': 0.8, 'steps': 4}},
        }.items()
    )

    def change(other):
        return np.mean([np.abs(plain[name].astype(float) - other[name]).mean() for name in plain])

    assert 0 < change(gentle) < change(hard)


def test_the_images_that_the_denoiser_knows_best_are_kept(trained, tmp_path, monkeypatch):
    errors = np.array([5, 1, 4, 2, 0, 3, 0, 1, 2, 3, 4, 5], np.float32)
    with monkeypatch.context() as patch:
        patch.setattr(sample, 'own_errors', lambda *_: errors)
        folder = draw(trained, tmp_path / 'set', select='own_error', oversample=2)
    assert [(row.label, row.index) for row in read_table(folder / 'manifest.csv', SampleRow)] == [
        (0, 1),
        (0, 3),
        (0, 4),
        (1, 0),
        (1, 1),
        (1, 2),
    ]
    own = draw(trained, tmp_path / 'own', select='own_error', oversample=2)
    assert len(images(own)) == 6


def test_published_weights_are_drawn_from_without_training(tmp_path, monkeypatch):
    make_stages(tmp_path)
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    dit = DiTTransformer2DModel(
        num_layers=2,
        num_attention_heads=2,
        attention_head_dim=16,
        in_channels=16,
        out_channels=32,
        sample_size=4,
        num_embeds_ada_norm=5,
    )
    dit.transformer_blocks[1].norm1.emb.load_state_dict(dit.transformer_blocks[0].norm1.emb.state_dict())
    dit.save_pretrained(tmp_path / 'dit')
    options = {**recipe(tmp_path), **STAGES, 'scale': 4}
    del options['train']
    options['datasets']['train'].update(dataroot='patches', labels_file='clusters/labels.csv')
    options['network_g'] = {
        'type': 'MinimaxDiT',
        'num_labels': 2,
        'tuning': 'none',
        'local_files_only': True,
        'pretrained': str(tmp_path / 'dit'),
    }
    options['sample'] = {
        'images_per_cluster': 2,
        'num_steps': 3,
        'save_dir': 'set',
        'mode_guidance': {'scale': 0.1},
        'guidance_scale': 1.0,
    }
    given = Recipe.load(write_recipe(tmp_path / 'untuned.yml', options))
    assert given.stages == ('extract', 'cluster', 'sample')
    distill(given, ('sample',))
    rows = read_table(tmp_path / 'set' / 'manifest.csv', SampleRow)
    assert len(rows) == 4 and {row.checkpoint_sha256 for row in rows} == {''}
    assert 'centers, scale 0.1, stops at 0.5 of the noise' in (tmp_path / 'set' / 'README.md').read_text()
    with pytest.raises(InputError, match=r'tuning: none leaves nothing to train; leave the stage finetune out'):
        distill(given, ('finetune',))


@pytest.mark.parametrize(
    ('scale', 'label_init', 'tuning', 'refused'),
    [
        (4.0, 'null_row', 'none', True),
        (0.0, 'null_row', 'none', True),
        (None, 'null_row', 'none', True),
        (1.0, 'null_row', 'none', False),
        (4.0, 'rows', 'none', False),
        (4.0, 'null_row', 'difffit', False),
    ],
)
def test_guidance_away_from_the_label_itself_is_refused(tmp_path, scale, label_init, tuning, refused):
    options = {**recipe(tmp_path), **STAGES, 'sample': {'images_per_cluster': 2, 'save_dir': 'set'}, 'scale': 4}
    options['datasets']['train'].update(dataroot='patches', labels_file='clusters/labels.csv')
    options['network_g'] = {
        'type': 'MinimaxDiT',
        'num_labels': 2,
        'pretrained': 'nowhere',
        'tuning': tuning,
        'label_init': label_init,
    }
    if scale is not None:
        options['sample']['guidance_scale'] = scale
    given = Recipe.parse(Path('untuned.yml'), options)
    if not refused:
        return given.check_agreement()
    with pytest.raises(
        InputError,
        match=r'sample\.guidance_scale: is .* with network_g\.tuning: none and '
        r'network_g\.label_init: null_row; set',
    ):
        distill(given, ('extract', 'cluster', 'sample'))
    assert not Path('patches').exists()


def test_training_published_weights_as_they_are_is_refused(tmp_path, monkeypatch):
    make_stages(tmp_path)
    monkeypatch.chdir(tmp_path)
    options = recipe(tmp_path)
    options['network_g'] = {'type': 'MinimaxDiT', 'num_labels': 2, 'tuning': 'none', 'pretrained': 'nowhere'}
    given = Recipe.load(write_recipe(tmp_path / 'untuned.yml', options))
    with pytest.raises(InputError, match=r'network_g\.tuning: none leaves nothing to train; set difffit'):
        train_loop.train(to_experiment(given, is_train=True, root=tmp_path))
    assert not (tmp_path / 'experiments' / 'tiny' / 'models').exists()


def test_targets_replace_the_hr_images_alone(trained, tmp_path):
    section = {'type': 'EDSR', 'num_in_ch': 3, 'num_out_ch': 3, 'num_feat': 8, 'num_block': 1, 'upscale': 4}
    network = EDSR(**{key: value for key, value in section.items() if key != 'type'}).eval()
    torch.save({'params': network.state_dict()}, tmp_path / 'teacher.pth')
    plain = draw(trained, tmp_path / 'plain')
    taught = draw(
        trained,
        tmp_path / 'taught',
        targets={'type': 'teacher', 'network': section, 'weights': str(tmp_path / 'teacher.pth')},
    )
    for name in images(plain):
        lr = read_rgb(plain / 'LR_bicubic' / 'X4' / name)
        assert np.array_equal(read_rgb(taught / 'LR_bicubic' / 'X4' / name), lr)
        with torch.no_grad():
            made = network(torch.from_numpy(lr).permute(2, 0, 1)[None].float() / 255)[0].clamp(0, 1) * 255
        assert np.abs(read_rgb(taught / 'HR' / name) - made.permute(1, 2, 0).numpy()).max() <= 0.51
    assert 'in place of the images, what the SR network of' in (taught / 'README.md').read_text()


@pytest.mark.parametrize(
    ('more', 'message'),
    [
        ({'mode_guidance': {'scale': -1}}, r'mode_guidance\.scale: input should be greater than or equal to 0'),
        ({'mode_guidance': {'mode': 'centers'}}, r"unknown key 'mode_guidance\.mode'; did you mean 'modes'"),
        ({'clip_x0': 0.5}, r'clip_x0: input should be less than 0\.5'),
        ({'refine': {'steps': 3}}, r'refine\.strength: field required'),
    ],
)
def test_wrong_values_are_refused(trained, tmp_path, more, message):
    with pytest.raises(InputError, match=message):
        draw(replace(trained), tmp_path / 'set', **more)
