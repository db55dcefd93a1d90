"""GSDD on a toy recipe, through the training loop and step by step."""

import os
import subprocess
import sys
import time
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from basicsr.archs import build_network
from latent_recipe import make_stages, write_recipe
from support import REPOSITORY

from basicsr_distill.config.experiment import to_experiment
from basicsr_distill.config.recipe import Recipe
from basicsr_distill.data.distilled_patch_dataset import DistilledPatchDataset
from basicsr_distill.data.labelled_patch_dataset import LabelledPatchDataset
from basicsr_distill.errors import InputError
from basicsr_distill.io.images import read_rgb
from basicsr_distill.io.manifest import SampleRow, read_table
from basicsr_distill.models import gsdd_model
from basicsr_distill.models.gsdd_model import GSDDModel
from basicsr_distill.ops.bicubic import bicubic_downsample
from basicsr_distill.ops.siamese_augmentation import Augmentation, augment
from basicsr_distill.stages.pipeline import distill
from basicsr_distill.training import train as train_loop
from basicsr_distill.training.keys import check_components

RRDB = {'type': 'RRDBNet', 'num_in_ch': 3, 'num_out_ch': 3, 'scale': 4, 'num_feat': 8, 'num_block': 1, 'num_grow_ch': 4}


@pytest.fixture
def root(tmp_path, monkeypatch):
    make_stages(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def recipe(root, name='gsdd', total_iter=6, **train):
    return {
        'name': name,
        'model_type': 'GSDDModel',
        'scale': 4,
        'num_gpu': 0,
        'manual_seed': 3,
        'datasets': {
            'train': {
                'name': 'patches',
                'type': 'LabelledPatchDataset',
                'dataroot': str(root / 'patches'),
                'labels_file': str(root / 'clusters' / 'labels.csv'),
                'batch_size_per_gpu': 8,
            }
        },
        'network_g': {'type': 'LatentImages', 'num_labels': 2, 'images_per_label': 3, 'size_px': 8},
        'train': {
            'total_iter': total_iter,
            'optim_g': {'type': 'Adam', 'lr': 1e-2},
            'scheduler': {'type': 'MultiStepLR', 'milestones': [100], 'gamma': 0.5},
            'extractor': {'type': 'random_conv', 'width': 8, 'depth': 2},
            **train,
        },
        'logger': {'print_freq': 2, 'save_checkpoint_freq': 2},
    }


def experiment(root, options, auto_resume=False):
    path = write_recipe(root / f'{options["name"]}.yml', options)
    return to_experiment(Recipe.load(path), is_train=True, root=Path.cwd(), auto_resume=auto_resume)


def build(root, options):
    opt = experiment(root, options).opt
    return GSDDModel({**opt, 'rank': 0, 'world_size': 1, 'dist': False})


def train(root, options, auto_resume=False):
    train_loop.train(experiment(root, options, auto_resume))
    return Path('experiments') / options['name']


def latents(folder, iteration='latest'):
    return torch.load(folder / 'models' / f'net_g_{iteration}.pth', weights_only=True)['params']['images']


def whole_batch(root):
    dataset = LabelledPatchDataset(recipe(root)['datasets']['train'])
    return torch.utils.data.default_collate([dataset[index] for index in range(len(dataset))])


def with_generator(root):
    torch.manual_seed(0)
    # Fresh weights are so small that hardly anything of the latents would come through.
    weights = {name: 2 * value for name, value in build_network(dict(RRDB)).state_dict().items()}
    torch.save({'params_ema': weights}, root / 'rrdb.pth')
    return {'generator': dict(RRDB), 'generator_weights': str(root / 'rrdb.pth')}


@torch.no_grad()
def losses(model):
    """Under 20 augmentations that training has not met."""
    return [float(sum(model._terms(label, 1000 + number).values())) for number in range(10) for label in (0, 1)]


@pytest.mark.parametrize('generator', ['bicubic', 'rrdb'])
def test_the_loss_falls_and_only_latents_move(root, generator):
    options = recipe(root, cutout=False, **(with_generator(root) if generator == 'rrdb' else {}))
    model, batch = build(root, options), whole_batch(root)
    frozen = [model.extractor] + ([model.generator] if generator == 'rrdb' else [])
    before = [parameter.clone() for module in frozen for parameter in module.parameters()]
    start = model.net_g.images.detach().clone()
    assert [sum(parameter.numel() for parameter in group['params']) for group in model.optimizer_g.param_groups] == [
        start.numel()
    ]

    model.feed_data(batch)
    first = losses(model)
    for iteration in range(1, 41):
        model.optimize_parameters(iteration)
    assert sum(losses(model)) < 0.85 * sum(first)
    assert all(
        torch.equal(old, new)
        for old, new in zip(before, [parameter for module in frozen for parameter in module.parameters()])
    )
    assert not any(parameter.grad is not None for module in frozen for parameter in module.parameters())
    assert (model.net_g.images != start).all()


def test_latents_start_as_lr_patches_of_their_label(root):
    options = recipe(root)
    model = build(root, options)
    dataset = LabelledPatchDataset(options['datasets']['train'])
    known = {
        label: [bicubic_downsample(dataset[n]['gt'], 4) for n in range(len(dataset)) if dataset.labels[n] == label]
        for label in (0, 1)
    }
    for label in (0, 1):
        own = [next(n for n, lr in enumerate(known[label]) if torch.equal(lr, latent)) for latent in model.net_g(label)]
        assert len(set(own)) == 3


def test_a_label_pulls_its_own_latents_alone(root):
    model, batch = build(root, recipe(root)), whole_batch(root)
    model.feed_data(batch)
    model.optimize_parameters(1)  # so that Adam has momentum of both
    start = model.net_g.images.detach().clone()
    model.feed_data({key: value[batch['label'] == 1] for key, value in batch.items()})
    model.optimize_parameters(2)
    moved = (model.net_g.images - start).abs().amax((1, 2, 3, 4)).tolist()
    assert moved[0] == 0 < moved[1]


def test_one_change_of_one_kind_is_made_to_both_batches(root, monkeypatch):
    seen = []
    monkeypatch.setattr(gsdd_model, 'augment', lambda images, change: seen.append(change) or augment(images, change))
    model = build(root, recipe(root))
    model.feed_data(whole_batch(root))
    for iteration in range(1, 11):
        model.optimize_parameters(iteration)
    real, synthetic = seen[0::2], seen[1::2]
    assert len(real) == 20 and real == synthetic
    flips = [change for change in real if change.flip]
    assert len(set(real)) > 10 and all(change == Augmentation(flip=True) for change in flips)


def test_a_label_that_is_absent_keeps_its_moments(root):
    model, batch = build(root, recipe(root)), whole_batch(root)
    model.feed_data(batch)
    model.optimize_parameters(1)
    before = deepcopy([moments(model, label) for label in (0, 1)])
    model.feed_data({key: value[batch['label'] == 1] for key, value in batch.items()})
    model.optimize_parameters(2)
    for name in ('step', 'exp_avg', 'exp_avg_sq'):
        kept, moved = (torch.equal(moments(model, label)[name], before[label][name]) for label in (0, 1))
        assert kept and not moved, name


def moments(model, label):
    return model.optimizer_g.state_dict()['state'][label]


@pytest.mark.parametrize('num_labels', [1, 2])
def test_training_states_of_earlier_versions_go_on(root, num_labels):
    # All labels are in every batch, so that one Adam of all latents, as before, does the same.
    options = recipe(root)
    options['network_g']['num_labels'] = num_labels
    for folder in ('models', 'training_states'):
        (root / 'experiments' / 'gsdd' / folder).mkdir(parents=True)
    batch = whole_batch(root)
    if num_labels == 1:
        rewrite = (root / 'clusters' / 'labels.csv').read_text().replace(',1\n', ',0\n')
        (root / 'clusters' / 'labels.csv').write_text(rewrite)
        batch['label'].zero_()
    runs = []
    for earlier in (True, False):
        model = build(root, options)
        model.feed_data(batch)
        if earlier:
            model.optimizer_g = torch.optim.Adam(model.net_g.parameters(), 1e-2)
            model.optimizers = [model.optimizer_g]
        for iteration in (1, 2):
            model.optimize_parameters(iteration)
        model.save(0, 2)
        resumed = build(root, {**options, 'path': {'pretrain_network_g': 'experiments/gsdd/models/net_g_2.pth'}})
        resumed.resume_training(torch.load('experiments/gsdd/training_states/2.state', weights_only=True))
        resumed.feed_data(batch)
        resumed.optimize_parameters(3)
        runs.append(resumed)
        model.optimize_parameters(3)
        torch.testing.assert_close(resumed.net_g.images, model.net_g.images, rtol=0, atol=1e-6)
    assert len(moments(runs[0], 0)) == 3
    states = [run.optimizer_g.state_dict()['state'] for run in runs]
    torch.testing.assert_close(*states, rtol=1e-5, atol=1e-9)


def test_an_iteration_depends_on_its_number_and_not_on_the_past(root):
    moved = []
    for noise in (1, 2):
        torch.manual_seed(noise)
        model = build(root, recipe(root, synthetic_batch=2))
        model.feed_data(whole_batch(root))
        model.optimize_parameters(7)
        moved.append(model.net_g.images.detach().clone())
    assert torch.equal(*moved)


def test_interrupted_training_ends_with_the_same_latents(root):
    more = {'synthetic_batch': 2, **with_generator(root)}
    whole = train(root, recipe(root, 'whole', **more))
    half = train(root, recipe(root, 'half', **more))
    # As after kill -9 behind iteration 3: the newest checkpoint is that of iteration 2.
    for iteration in (4, 6, 'latest'):
        (half / 'models' / f'net_g_{iteration}.pth').unlink()
        if iteration != 'latest':
            (half / 'training_states' / f'{iteration}.state').unlink()
    train(root, recipe(root, 'half', **more), auto_resume=True)
    assert torch.equal(latents(whole), latents(half)) and not torch.equal(latents(whole), latents(whole, 2))


def test_published_images_come_from_the_generator(root):
    options = recipe(root, **with_generator(root))
    model = build(root, options)
    images = model.synthetic_images(1)
    assert images.shape == (3, 3, 32, 32) and images.min() >= 0 and images.max() <= 1
    with torch.no_grad():
        torch.testing.assert_close(images, model.generator(model.net_g(1)).clamp(0, 1))
    Path('experiments/gsdd/visualization').mkdir(parents=True)
    model.nondist_validation(None, 6, None, save_img=True)
    assert Path('experiments/gsdd/visualization/images_6.png').is_file()


@pytest.mark.parametrize(
    'network,train,message',
    [
        ({'num_labels': 1}, {}, 'set num_labels: 2'),
        ({'images_per_label': 13}, {}, 'label 0 has 12 patches, fewer than 13'),
        ({'size_px': 16}, {}, 'set size_px: 8'),
        ({'num_labels': 3}, {}, 'label 2 has 0 patches'),
        ({}, {'generator': dict(RRDB)}, 'give both generator and generator_weights'),
        ({}, {'generator': {'num_feat': 8}, 'generator_weights': 'x.pth'}, r"generator needs the key 'type'"),
        ({}, {'diversity': 1}, r"unknown key 'diversity'; did you mean 'diversity_weight'"),
    ],
)
def test_what_does_not_fit_is_refused(root, network, train, message):
    options = recipe(root, **train)
    options['network_g'].update(network)
    with pytest.raises(InputError, match=message):
        build(root, options)


@pytest.mark.parametrize(
    'train,message',
    [
        (
            {'generator': {**RRDB, 'num_feats': 8}},
            r"train.generator: RRDBNet takes no key 'num_feats'; did you mean 'num_feat'",
        ),
        (
            {'generator': {**RRDB, 'type': 'RRDB'}},
            r"train.generator.type: 'RRDB' is not registered; did you mean 'RRDBNet'",
        ),
        ({'generator': dict(RRDB)}, r'train.generator_weights: no.pth: no such file'),
    ],
)
def test_a_wrong_generator_is_refused_before_anything_is_written(root, train, message):
    path = write_recipe(root / 'x.yml', recipe(root, **train, generator_weights='no.pth'))
    with pytest.raises(InputError, match=message):
        check_components(Recipe.load(path))
        train_loop.train(to_experiment(Recipe.load(path), is_train=True, root=Path.cwd()))
    assert not Path('experiments/gsdd').exists()


def stages(root, **more):
    """Sections of finished extract and cluster stages, and of publishing."""
    return {
        'extract': {'dataroot': str(root / 'photos'), 'save_dir': str(root / 'patches'), 'patch_size': 32},
        'cluster': {'save_dir': str(root / 'clusters'), 'encoder': {'type': 'texture'}, 'num_clusters': 2},
        'sample': {'images_per_cluster': 3, 'save_dir': str(root / 'set'), **more},
    }


@pytest.mark.parametrize('generator', ['bicubic', 'rrdb'])
def test_a_set_is_published_in_the_common_format(root, generator):
    options = recipe(root, **(with_generator(root) if generator == 'rrdb' else {}))
    path = write_recipe(root / 'gsdd.yml', {**options, **stages(root)})
    distill(Recipe.load(path), ('finetune', 'sample'))
    rows = read_table(root / 'set' / 'manifest.csv', SampleRow)
    assert [row.name for row in rows] == [f'label{label:03d}_{index:05d}.png' for label in (0, 1) for index in range(3)]
    model = build(root, {**options, 'path': {'pretrain_network_g': 'experiments/gsdd/models/net_g_latest.pth'}})
    starts = LabelledPatchDataset(options['datasets']['train'])
    for label in (0, 1):
        images = model.synthetic_images(label)
        for row, image in zip((row for row in rows if row.label == label), images):
            written = read_rgb(root / 'set' / 'HR' / row.name)
            assert abs(written - 255 * image.permute(1, 2, 0).numpy()).max() <= 0.51
            assert starts.labels[[own.name for own in starts.rows].index(row.prototype)] == label
    card = (root / 'set' / 'README.md').read_text()
    assert ('RRDBNet, ' if generator == 'rrdb' else 'none: bicubic interpolation of the latents') in card
    dataset = DistilledPatchDataset(
        {'name': 's', 'type': 'DistilledPatchDataset', 'dataroot_gt': str(root / 'set'), 'scale': 4, 'phase': 'val'}
    )
    assert len(dataset) == 6 and dataset[0]['lq'].shape == (3, 8, 8)


@pytest.mark.parametrize(
    ('more', 'message'),
    [
        ({'num_steps': 20}, r'sample\.num_steps: GSDD draws nothing, its images are trained; remove the key'),
        ({'images_per_cluster': 4}, r'sample\.images_per_cluster: 4, but network_g\.images_per_label is 3'),
    ],
)
def test_keys_of_drawing_are_refused(root, more, message):
    path = write_recipe(root / 'gsdd.yml', {**recipe(root), **stages(root, **more)})
    with pytest.raises(InputError, match=message):
        distill(Recipe.load(path), ('sample',))


@pytest.mark.long
def test_kill_minus_nine_and_the_same_command_end_in_equal_latents(root):
    command = [sys.executable, '-m', 'basicsr_distill', 'train', '--auto_resume', '-opt']
    environment = {**os.environ, 'PYTHONPATH': str(REPOSITORY)}
    for name in ('whole', 'killed'):
        write_recipe(
            root / f'{name}.yml', recipe(root, name, total_iter=60, extractor={'type': 'random_conv', 'width': 32})
        )
    subprocess.run([*command, 'whole.yml'], check=True, env=environment, capture_output=True)
    killed = subprocess.Popen(
        [*command, 'killed.yml'], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    states = root / 'experiments' / 'killed' / 'training_states'
    while killed.poll() is None and not (states / '6.state').is_file():
        time.sleep(0.01)
    killed.kill()
    assert killed.wait() == -9
    assert not (root / 'experiments' / 'killed' / 'models' / 'net_g_latest.pth').exists()
    subprocess.run([*command, 'killed.yml'], check=True, env=environment, capture_output=True)
    assert torch.equal(latents(root / 'experiments' / 'killed'), latents(root / 'experiments' / 'whole'))


def test_vgg_weights_that_are_missing_or_damaged_are_refused_before_anything_is_made(root, monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError('no network')

    monkeypatch.setenv('TORCH_HOME', str(root / 'torch'))
    monkeypatch.setattr(torch.hub, 'download_url_to_file', refuse)
    options = recipe(root, extractor={'type': 'vgg19'})
    place = root / 'experiments' / 'pretrained_models' / 'vgg19-dcbb9e9d.pth'
    with pytest.raises(InputError, match=rf'train\.extractor: .*no network.* at {place}\.$'):
        train(root, options)
    assert not Path('experiments').exists()
    place.parent.mkdir(parents=True)
    place.write_bytes(b'half')
    with pytest.raises(InputError, match=r'train\.extractor: .*vgg19-dcbb9e9d\.pth: damaged'):
        train(root, options)
    assert not Path('experiments', 'gsdd').exists()
