"""A distilled set drawn from a trained denoiser, in this process."""

import csv
import errno
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from latent_recipe import make_dit, make_stages, recipe, write_recipe
from support import torchrun

from basicsr_distill.archs.minimax_dit_arch import load_trained
from basicsr_distill.config.experiment import to_experiment
from basicsr_distill.config.recipe import Recipe
from basicsr_distill.config.sections.base import bind
from basicsr_distill.config.sections.codecs import BlockPcaCodecOptions
from basicsr_distill.config.sections.sample import SampleOptions, SamplerSettings
from basicsr_distill.diffusion.codec import build_codec
from basicsr_distill.diffusion.export import export_dit, original_weights
from basicsr_distill.diffusion.sampler import image_generator, sample_latents
from basicsr_distill.errors import InputError
from basicsr_distill.io.images import read_rgb
from basicsr_distill.io.manifest import SampleRow, read_table
from basicsr_distill.ops.bicubic import make_lr
from basicsr_distill.ops.psnr import psnr_after_bicubic
from basicsr_distill.stages.sample import draw
from basicsr_distill.stages.sample import stage as sample
from basicsr_distill.training import train as train_loop


def drawn_set(options: SampleOptions, experiment: Any) -> Path:
    """Draw a set; its folder."""
    return sample.draw_set(options, experiment).folder


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """A folder with patches, clusters and a trained denoiser; its experiment."""
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


def options(folder, **more):
    return bind(
        SampleOptions,
        {'images_per_cluster': 3, 'num_steps': 4, 'batch_size': 2, 'save_dir': str(folder), **more},
        'sample',
    )


def changed(experiment, **opt):
    return replace(experiment, opt={**experiment.opt, **opt})


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob('*')) if path.is_file()}


def images(folder):
    return {name: data for name, data in files(folder).items() if name.startswith('HR/')}


def test_a_set_has_everything_the_contract_names(trained, tmp_path):
    folder = drawn_set(options(tmp_path / 'set'), trained)
    rows = read_table(folder / 'manifest.csv', SampleRow)
    assert [(row.label, row.index) for row in rows] == [(label, index) for label in (0, 1) for index in range(3)]
    for row in rows:
        hr, lr = read_rgb(folder / 'HR' / row.name), read_rgb(folder / 'LR_bicubic' / 'X4' / row.name)
        assert hr.shape == (32, 32, 3) and np.array_equal(lr, make_lr(hr, 4))
        pixels = torch.from_numpy(hr).permute(2, 0, 1)[None].float() / 255
        assert row.psnr_db == pytest.approx(float(psnr_after_bicubic(pixels, 4, 'matlab_rgb')[0]), rel=1e-6)
        assert row.prototype == '' and row.seed == 0
    assert (folder / 'meta_info.txt').read_text() == ''.join(f'{row.name} (32,32,3)\n' for row in rows)
    stage = json.loads((folder / 'stage.json').read_text())
    assert stage['counts'] == {
        'images_drawn': 6,
        'images_flat': 0,
        'images_outside_psnr_band': 0,
        'images_not_chosen': 0,
        'images_kept': 6,
    }
    assert {path.name for path in folder.iterdir()} == {
        'HR',
        'LR_bicubic',
        'manifest.csv',
        'meta_info.txt',
        'metadata.csv',
        'nearest.csv',
        'README.md',
        'montage.png',
        'nearest.png',
        'stage.json',
    }
    card = (folder / 'README.md').read_text()
    assert '| images | 6, 2 labels |' in card and 'CC BY-NC' not in card
    assert card.startswith('---\nlicense: unknown\n') and card.count('no published weights') == 3
    with (folder / 'metadata.csv').open() as file:
        for line, row in zip(csv.DictReader(file), rows, strict=True):
            assert line['file_name'] == f'HR/{row.name}' and (folder / line['lr_file_name']).is_file()


def test_images_are_what_the_averaged_weights_draw(trained, tmp_path):
    folder = drawn_set(options(tmp_path / 'set', guidance_scale=2.0), trained)
    from basicsr.archs import build_network

    network = build_network(trained.opt['network_g']).eval()
    models = Path(trained.opt['path']['models'])
    network.load_trained_state(torch.load(models / 'net_g_latest.pth', weights_only=True)['params_ema'], 'x')
    codec = build_codec(BlockPcaCodecOptions(components=16), Path(trained.opt['path']['experiments_root']) / 'latents')
    latents = sample_latents(
        network,
        torch.tensor([1]),
        (16, 4, 4),
        [image_generator(0, 1, 2)],
        SamplerSettings(num_steps=4, guidance_scale=2.0),
    )
    expected = codec.decode(latents)[0].permute(1, 2, 0).numpy() * 255
    got = read_rgb(folder / 'HR' / 'label001_00002.png').astype(np.float64)
    assert np.abs(got - expected).max() <= 0.51


def test_a_finished_set_is_left_alone_and_other_options_are_refused(trained, tmp_path):
    folder = drawn_set(options(tmp_path / 'set'), trained)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob('*')}
    drawn_set(options(tmp_path / 'set'), trained)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob('*')} == before
    with pytest.raises(InputError, match='num_steps: was 4, now 5'):
        drawn_set(options(tmp_path / 'set', num_steps=5), trained)


def test_an_interrupted_run_ends_with_the_same_files(trained, tmp_path, monkeypatch):
    whole = drawn_set(options(tmp_path / 'whole', oversample=2), trained)
    drawn = 0

    def failing(path, rgb, original=draw.write_png):
        nonlocal drawn
        drawn += 1
        if drawn == 4:
            path.with_name(f'{path.name}.part').write_bytes(b'half')
            raise KeyboardInterrupt
        original(path, rgb)

    with monkeypatch.context() as patch:
        patch.setattr(draw, 'write_png', failing)
        with pytest.raises(KeyboardInterrupt):
            drawn_set(options(tmp_path / 'half', oversample=2), trained)
    kept = sorted((tmp_path / 'half' / 'parts').glob('*.png'))
    assert len(kept) == 3 and not (tmp_path / 'half' / 'stage.json').exists()
    half = drawn_set(options(tmp_path / 'half', oversample=2), trained)
    first, second = files(whole), files(half)
    for records in (first, second):
        records['stage.json'] = records['stage.json'].replace(b'whole', b'x').replace(b'half', b'x')
    assert first == second


def test_the_seed_and_nothing_else_decides_the_images(trained, tmp_path):
    base = images(drawn_set(options(tmp_path / 'a'), trained))
    assert images(drawn_set(options(tmp_path / 'b'), trained)) == base
    assert not set(images(drawn_set(options(tmp_path / 'c', seed=1), trained)).values()) & set(base.values())
    # More images per label leave the first ones as they are.
    more = images(drawn_set(options(tmp_path / 'd', images_per_cluster=4, select='first'), trained))
    assert set(base) < set(more)


def test_prototypes_at_little_strength_stay_near_their_patches(trained, tmp_path):
    folder = drawn_set(options(tmp_path / 'set', init={'type': 'prototype', 'strength': 0.01}, num_steps=100), trained)
    rows = read_table(folder / 'manifest.csv', SampleRow)
    assert len({row.prototype for row in rows}) == 6
    for row in rows:
        patch = read_rgb(Path(trained.opt['datasets']['train']['dataroot']) / 'images' / row.prototype)
        error = np.square(patch.astype(float) - read_rgb(folder / 'HR' / row.name)).mean()
        assert 10 * np.log10(255**2 / error) > 20
        assert int(row.prototype[-10:-4]) % 2 == row.label
    assert 'noised real patches' in (folder / 'README.md').read_text()


@pytest.mark.parametrize('band', [(0.05, 0.9), (0.0, 1.0), (0.4, 0.6)])
def test_oversampling_keeps_the_band_and_covers_the_label(trained, tmp_path, band):
    real = [20.0 + number / 4 for number in range(24)]
    low, high = np.quantile(real, band)
    folder = drawn_set(options(tmp_path / 'set', oversample=6, psnr_band=list(band)), trained)
    counts = json.loads((folder / 'stage.json').read_text())['counts']
    assert counts['images_drawn'] == 36 and counts['images_kept'] == 6
    assert counts['images_outside_psnr_band'] + counts['images_not_chosen'] == 30
    everything = drawn_set(options(tmp_path / 'all', images_per_cluster=18, select='first'), trained)
    scores = {row.name: row.psnr_db for row in read_table(everything / 'manifest.csv', SampleRow)}
    inside = {name for name, score in scores.items() if low <= score <= high}
    kept = {row.name for row in read_table(folder / 'manifest.csv', SampleRow)}
    for label in (0, 1):
        own = {name for name in kept if name.startswith(f'label{label:03d}')}
        available = {name for name in inside if name.startswith(f'label{label:03d}')}
        assert own <= available if len(available) >= 3 else available <= own


def test_the_most_similar_patch_of_every_image_is_told(trained, tmp_path):
    folder = drawn_set(options(tmp_path / 'set'), trained)
    with (folder / 'nearest.csv').open(newline='') as file:
        lines = list(csv.DictReader(file))
    assert [line['name'] for line in lines] == sorted(path.name for path in (folder / 'HR').iterdir())
    line = lines[0]
    patch = cv2.imread(str(Path(trained.opt['datasets']['train']['dataroot']) / 'images' / line['patch'])).astype(float)
    error = np.square(patch - cv2.imread(str(folder / 'HR' / line['name']))).mean()
    assert float(line['psnr_db']) == pytest.approx(10 * np.log10(255**2 / error), abs=1e-3)


def test_the_card_tells_how_near_images_and_patches_are(trained, tmp_path):
    folder = drawn_set(options(tmp_path / 'set'), trained)
    record = json.loads((folder / 'stage.json').read_text())
    with (folder / 'nearest.csv').open(newline='') as file:
        distances = [float(line['feature_distance']) for line in csv.DictReader(file)]
    assert record['nearest_patch']['median'] == pytest.approx(np.median(distances), abs=1e-4)
    real = np.load(Path(trained.opt['datasets']['train']['labels_file']).parent / 'features.npy').astype(np.float64)
    gaps = np.linalg.norm(real[:, None] - real[None], axis=2)
    np.fill_diagonal(gaps, np.inf)
    assert record['patches_nearest_patch']['q95'] == pytest.approx(np.quantile(gaps.min(1), 0.95), abs=1e-4)
    few = drawn_set(options(tmp_path / 'few', images_per_cluster=1), trained)
    assert json.loads((few / 'stage.json').read_text())['coverage']['median'] >= record['coverage']['median'] > 0
    assert record['patches_coverage']['q05'] == 0, 'those drawn cover themselves'
    figures = ' / '.join(f'{record["coverage"][key]:.3g}' for key in ('q05', 'median', 'q95'))
    assert (
        f'| feature distance of a real patch to the nearest image | {figures} |' in (folder / 'README.md').read_text()
    )


def test_what_publication_needs_is_looked_for_before_drawing(trained, tmp_path, monkeypatch):
    section = trained.opt['datasets']['train']
    clusters = tmp_path / 'clusters'
    shutil.copytree(Path(section['labels_file']).parent, clusters)
    record = json.loads((clusters / 'stage.json').read_text())
    record['options']['encoder'] = {'type': 'open_clip', 'name': 'local-dir:/nowhere'}
    (clusters / 'stage.json').write_text(json.dumps(record))
    host = changed(trained, datasets={'train': {**section, 'labels_file': str(clusters / 'labels.csv')}})
    monkeypatch.setattr(draw, 'sample_latents', lambda *_, **__: pytest.fail('drawn'))
    with pytest.raises(InputError, match='cannot be loaded'):
        drawn_set(options(tmp_path / 'set'), host)
    assert not list((tmp_path / 'set').iterdir())


def test_latents_are_read_and_not_written_but_those_that_are_lost(trained, tmp_path):
    folder = Path(trained.opt['path']['experiments_root']) / 'latents'
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.rglob('*') if path.is_file()}
    given = {'init': {'type': 'prototype', 'strength': 0.2}, 'num_steps': 5}
    expected = images(drawn_set(options(tmp_path / 'one', **given), trained))
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in before} == before
    lost = folder / trained.opt['datasets']['train']['name'] / '00000.npy'
    lost.unlink()
    assert images(drawn_set(options(tmp_path / 'two', **given), trained)) == expected
    assert lost.read_bytes() == before[lost][0]


def test_a_full_disk_is_one_sentence(trained, tmp_path, monkeypatch):
    def full(path, rgb):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(draw, 'write_png', full)
    with pytest.raises(OSError, match=r'set: no space left on device, \d+ MB are free'):
        drawn_set(options(tmp_path / 'set'), trained)


def test_a_set_among_the_photographs_is_refused(trained, tmp_path):
    section = trained.opt['datasets']['train']
    patches = tmp_path / 'patches'
    shutil.copytree(section['dataroot'], patches)
    (patches / 'stage.json').write_text(
        json.dumps({'stage': 'extract', 'options': {'dataroot': str(tmp_path / 'photos')}})
    )
    host = changed(trained, datasets={'train': {**section, 'dataroot': str(patches)}})
    with pytest.raises(InputError, match=r'sample\.save_dir: .* must lie apart'):
        drawn_set(options(tmp_path / 'photos' / 'set'), host)


def test_an_exported_denoiser_draws_the_same(trained, tmp_path):
    checkpoint = Path(trained.opt['path']['models']) / 'net_g_latest.pth'
    export_dit(load_trained(trained.opt['network_g'], checkpoint, 'params_ema'), tmp_path / 'dit')
    assert {path.name for path in tmp_path.iterdir()} == {'dit'}
    plain = make_dit(
        num_labels=2, pretrained=str(tmp_path / 'dit'), label_init='rows', local_files_only=True, tuning='full'
    ).eval()
    network = load_trained(trained.opt['network_g'], checkpoint, 'params_ema').eval()
    given = (torch.randn(3, 16, 4, 4), torch.tensor([5, 300, 900]), torch.tensor([0, 1, 2]))
    with torch.no_grad():
        assert torch.equal(plain(*given), network(*given))
    assert original_weights(str(tmp_path / 'dit')) is None  # it was trained from random weights
    for source, target in (('facebook/DiT-XL-2-256', 'of_published'), (str(tmp_path / 'of_published'), 'again')):
        copy = make_dit(num_labels=2, pretrained=str(tmp_path / 'dit'), label_init='rows', local_files_only=True)
        copy.pretrained = source
        export_dit(copy, tmp_path / target)
    shutil.rmtree(tmp_path / 'of_published')
    assert original_weights(str(tmp_path / 'again')) == 'facebook/DiT-XL-2-256'
    with pytest.raises(InputError, match='exists already'):
        export_dit(network, tmp_path / 'dit')
    with pytest.raises(InputError, match=r'holds no params_old; it has params and params_ema'):
        load_trained(trained.opt['network_g'], checkpoint, 'params_old')


@pytest.mark.long
def test_two_ranks_draw_the_same_set(trained, tmp_path):
    whole = drawn_set(options(tmp_path / 'whole', oversample=2), trained)
    root = Path(trained.opt['path']['models']).parents[2]
    torchrun(
        *('-m', 'basicsr_distill', 'distill', '-opt', root / 'tiny.yml', '--launcher', 'pytorch', '--stage', 'sample'),
        '--force_yml',
        f'extract={{dataroot: photos, save_dir: {root}/patches, patch_size: 32}}',
        f'cluster={{save_dir: {root}/clusters, encoder: {{type: texture}}}}',
        f'sample={{images_per_cluster: 3, num_steps: 4, batch_size: 2, oversample: 2, save_dir: {tmp_path / "half"}}}',
        cwd=root,
    )
    first, second = files(whole), files(tmp_path / 'half')
    for records in (first, second):
        records['stage.json'] = records['stage.json'].replace(b'whole', b'x').replace(b'half', b'x')
    assert first == second


def test_missing_training_is_named(trained, tmp_path):
    with pytest.raises(InputError, match=r'net_g_latest\.pth: no such checkpoint'):
        drawn_set(options(tmp_path), changed(trained, path={**trained.opt['path'], 'models': str(tmp_path)}))
