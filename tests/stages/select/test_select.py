"""Real patches chosen by the command's stage and published as a set."""

import csv
import json
import shutil
from pathlib import Path
from typing import get_args

import cv2
import numpy as np
import pytest
import skimage.data
import torch
import yaml
from basicsr.archs.edsr_arch import EDSR
from basicsr.utils.matlab_functions import imresize
from latent_recipe import make_stages
from support import REPOSITORY, torchrun

from basicsr_distill.config.recipe import Recipe
from basicsr_distill.config.sections.select import SelectMethod
from basicsr_distill.data.distilled_patch_dataset import DistilledPatchDataset
from basicsr_distill.errors import InputError
from basicsr_distill.io.images import read_rgb
from basicsr_distill.io.manifest import SelectRow, read_table
from basicsr_distill.selection.core_sets import choose_by_herding, choose_k_center
from basicsr_distill.selection.medoids import choose_medoids
from basicsr_distill.selection.random_choice import choose_per_cluster, choose_random, choose_under_threshold, in_band
from basicsr_distill.stages.pipeline import distill
from basicsr_distill.stages.select import choose as choice
from basicsr_distill.stages.select import stage as select
from basicsr_distill.stages.select.small_network import measure_losses

TEXTURE = {'type': 'texture'}
METHODS = ('random', 'threshold', 'band', 'uniform', 'medoids', 'herding', 'k_center', 'loss', 'file')


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    """24 patches of 32 px with psnr_db from 20 dB up in steps of 0.25, two clusters in turn, and a file of scores."""
    root = tmp_path_factory.mktemp('pool')
    rows, _ = make_stages(root)
    with (root / 'scores.csv').open('w', newline='') as file:
        csv.writer(file).writerows([['name', 'score'], *((row.name, (7 * n) % 24) for n, row in enumerate(rows))])
    (root / 'scores.txt').write_text(
        ''.join(f'{row.name.removesuffix(".png")} {(7 * n) % 24}\n' for n, row in enumerate(rows))
    )
    return root


def recipe(root, folder, clusters=True, **options):
    section = {'num_images': 6, 'save_dir': str(folder), 'encoder': TEXTURE, 'loss_iter': 3, **options}
    if section.get('method') == 'file':
        section.setdefault('scores', {'path': str(root / 'scores.csv')})
    if 'images_per_cluster' in section:
        del section['num_images']
    content = {
        'name': 'core',
        'scale': 4,
        'select': section,
        'extract': {'dataroot': str(root / 'photos'), 'save_dir': str(root / 'patches'), 'patch_size': 32},
    }
    if clusters:
        content['cluster'] = {'encoder': TEXTURE, 'num_clusters': 2, 'save_dir': str(root / 'clusters')}
    return Recipe.parse(Path('core.yml'), content)


def run(root, folder, **options):
    distill(recipe(root, folder, **options), ('select',))
    return folder


def manifest(folder):
    return read_table(folder / 'manifest.csv', SelectRow)


def patches(folder):
    return [int(row.patch[-10:-4]) for row in manifest(folder)]


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob('*')) if path.is_file()}


def test_a_set_has_the_format_of_a_drawn_one(root, tmp_path):
    folder = run(root, tmp_path / 'set')
    rows = manifest(folder)
    assert {path.name for path in folder.iterdir()} == {
        'HR',
        'LR_bicubic',
        'README.md',
        'manifest.csv',
        'meta_info.txt',
        'metadata.csv',
        'montage.png',
        'stage.json',
    }
    assert (folder / 'meta_info.txt').read_text() == ''.join(f'{row.name} (32,32,3)\n' for row in rows)
    for row in rows:
        original = cv2.imread(str(root / 'patches' / 'images' / row.patch))
        assert np.array_equal(cv2.imread(str(folder / 'HR' / row.name)), original)
        lr = cv2.imread(str(folder / 'LR_bicubic' / 'X4' / row.name)).astype(np.float32)
        expected = imresize(original.astype(np.float32) / 255, 0.25) * 255
        assert np.abs(lr - expected.clip(0, 255)).max() <= 0.51
        assert row.source == 'astronaut.png' and row.size == 32
    record = json.loads((folder / 'stage.json').read_text())
    assert record['counts'] == {'patches': 24, 'images_kept': 6}
    assert (
        record['coverage']['median'] > 0 and record['coverage_by_encoder']['texture']['coverage'] == record['coverage']
    )
    dataset = DistilledPatchDataset(
        {
            'name': 's',
            'type': 'DistilledPatchDataset',
            'dataroot_gt': str(folder),
            'scale': 4,
            'gt_size': 32,
            'phase': 'train',
            'labels': [1],
            'num_images': 1,
        }
    )
    assert len(dataset) == 1 and dataset[0]['lq'].shape == (3, 8, 8)


def expected_choice(method, root):
    features = np.load(root / 'clusters' / 'features.npy')
    labels = np.arange(24) % 2
    psnr_db = (20 + np.arange(24) / 4).astype(np.float32)
    inside = np.flatnonzero(in_band(psnr_db, 0.05, 0.5))
    return {
        'random': lambda: choose_random(24, 6, 0),
        'band': lambda: inside[choose_random(len(inside), 6, 0)],
        'threshold': lambda: choose_under_threshold(psnr_db, 'median', 6, 0),
        'uniform': lambda: inside[choose_per_cluster(labels[inside], 6, 0)],
        'medoids': lambda: inside[choose_medoids(features[inside], 6, 0)],
        'herding': lambda: inside[choose_by_herding(features[inside], 6)],
        'k_center': lambda: inside[choose_k_center(features[inside], 6)],
        'file': lambda: np.array(sorted(inside, key=lambda n: -((7 * n) % 24))[:6]),
    }[method]().tolist()


@pytest.mark.parametrize('method', [method for method in METHODS if method != 'loss'])
def test_every_method_chooses_from_the_band_by_its_function(method, root, tmp_path):
    assert patches(run(root, tmp_path / 'set', method=method)) == expected_choice(method, root)


@pytest.mark.parametrize('method', METHODS)
def test_smaller_sets_are_parts_of_larger_ones_as_the_card_says(method, root, tmp_path):
    few, many = (run(root, tmp_path / str(count), method=method, num_images=count) for count in (3, 7))
    assert ('is a part of this one' in (many / 'README.md').read_text()) == choice.METHODS[method].is_nested
    if choice.METHODS[method].is_nested:
        assert patches(few) == patches(many)[:3]
        assert [row.name for row in manifest(few)] == [row.name for row in manifest(many)][:3]


def test_the_hardest_for_a_small_network_are_chosen(root, tmp_path, monkeypatch):
    losses = np.random.default_rng(0).random(24)
    monkeypatch.setattr(select, 'measure_losses', lambda *_: losses)
    folder = run(root, tmp_path / 'set', method='loss', band=None, skip_hardest=0.1, num_images=4)
    assert patches(folder) == np.argsort(-losses)[2:6].tolist()


@pytest.fixture
def any_threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def test_losses_are_those_of_one_network_whatever_the_threads(root, tmp_path, monkeypatch, any_threads):
    losses, threads = [], []

    def measure(*args):
        threads.append(torch.get_num_threads())
        losses.append(measure_losses(*args))
        return losses[-1]

    monkeypatch.setattr(select, 'measure_losses', measure)
    for count in (1, 4):
        any_threads(count)
        run(root, tmp_path / str(count), method='loss', num_workers=count)
        assert torch.get_num_threads() == count
    assert threads == [1, 1]  # sums over several threads meet in another order
    assert np.array_equal(*losses) and len(set(losses[0])) == 24
    assert patches(tmp_path / '1') == patches(tmp_path / '4')


def test_within_each_cluster(root, tmp_path):
    rows = manifest(run(root, tmp_path / 'set', images_per_cluster=2, band=None))
    assert [(row.label, row.index) for row in rows] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert all(int(row.patch[-10:-4]) % 2 == row.label for row in rows)


def test_without_clusters_and_with_several_encoders(root, tmp_path):
    folder = run(root, tmp_path / 'set', clusters=False, encoder=[TEXTURE, TEXTURE])
    assert {row.label for row in manifest(folder)} == {0}
    assert set(json.loads((folder / 'stage.json').read_text())['coverage_by_encoder']) == {
        'texture',
        'texture_1',
        'joined',
    }
    assert 'joined feature distance of a real patch' in (folder / 'README.md').read_text()


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (
            {'num_images': 30},
            r'select\.num_images: 30 patches cannot be chosen from 10; ask for fewer, widen select\.band',
        ),
        ({'num_images': 30, 'method': 'random'}, '30 patches cannot be chosen from 24; ask for fewer or extract more'),
        ({'images_per_cluster': 9}, 'images_per_cluster: cluster 0: 9 patches cannot be chosen from 5'),
        ({'method': 'medoid'}, "select: method: input should be .*'medoids'"),
        ({'methud': 'medoids'}, "select: unknown key 'methud'; did you mean 'method'"),
        ({'num_images': None}, 'give one of num_images and images_per_cluster'),
        ({'images_per_cluster': 2, 'method': 'uniform'}, 'uniform takes equal shares of all clusters by itself'),
        ({'band': [0.5, 0.1]}, r'band \[0\.5, 0\.1\] must rise'),
        ({'band': [0.99, 0.991]}, 'cannot be chosen from 0'),
        ({'scores': {'path': 'scores.csv'}}, 'method file and the section scores go with each other'),
        ({'method': 'file', 'scores': {'path': 'nowhere.csv'}}, r'select\.scores\.path: nowhere\.csv: No such file'),
        ({'targets': {'type': 'teacher'}}, 'type teacher needs network and weights'),
        (
            {'targets': {'type': 'mix', 'network': {'type': 'EDSR'}, 'weights': 'no.pth'}},
            r'targets\.weights: no\.pth: no such',
        ),
        ({'codec': {'type': 'block_pca', 'block_px': 5}}, r'select\.codec: patches do not fit the codec'),
    ],
)
def test_refusals(options, message, root, tmp_path):
    with pytest.raises(InputError, match=message) as caught:
        run(root, tmp_path / 'set', **options)
    assert '\n' not in str(caught.value)
    assert not (tmp_path / 'set' / 'manifest.csv').exists()


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('name,rating\nx,1\n', "has no column 'score'; it has name, rating"),
        ('name,score\nx,1\n', r'no score for astronaut_000000\.png \(24 of 24 patches\)'),
        ('name,score\nx,high\n', "score 1, 'high', is not a number"),
    ],
)
def test_score_files_that_do_not_fit(text, message, root, tmp_path):
    path = tmp_path / 'scores.csv'
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        run(root, tmp_path / 'set', method='file', scores={'path': str(path)})


def test_score_files_of_either_kind_and_order(root, tmp_path):
    table, lines = (
        run(root, tmp_path / kind, method='file', scores={'path': str(root / f'scores.{kind}')})
        for kind in ('csv', 'txt')
    )
    assert patches(table) == patches(lines)
    lowest = run(
        root,
        tmp_path / 'lowest',
        method='file',
        band=None,
        num_images=3,
        scores={'path': str(root / 'scores.csv'), 'lowest_first': True},
    )
    assert patches(lowest) == sorted(range(24), key=lambda n: (7 * n) % 24)[:3]


def test_uniform_needs_clusters_that_all_have_patches(root, tmp_path):
    with pytest.raises(InputError, match="section 'cluster' is missing"):
        run(root, tmp_path / 'set', clusters=False, method='uniform')
    shutil.copytree(root, tmp_path / 'pool')
    table = tmp_path / 'pool' / 'clusters' / 'labels.csv'
    table.write_text(table.read_text().replace(',0', ',1'))
    with pytest.raises(InputError, match='cluster 0 is empty'):
        run(tmp_path / 'pool', tmp_path / 'set', method='uniform')


def test_an_interrupted_run_goes_on_and_ends_with_the_same_files(root, tmp_path, monkeypatch):
    whole = run(root, tmp_path / 'a' / 'set', clusters=False)
    with monkeypatch.context() as patch:
        patch.setattr(select, 'publish', lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run(root, tmp_path / 'b' / 'set', clusters=False)
    assert list((tmp_path / 'b' / 'set' / 'parts').rglob('*.npz'))
    monkeypatch.setattr('basicsr_distill.stages.features.read_rgb', lambda path: pytest.fail('encoded again'))
    half = run(root, tmp_path / 'b' / 'set', clusters=False)
    first, second = files(whole), files(half)
    for records in (first, second):
        records['stage.json'] = records['stage.json'].replace(b'/a/', b'').replace(b'/b/', b'')
    assert first == second
    monkeypatch.setattr(select, 'publish', lambda *_: pytest.fail('made again'))
    run(root, tmp_path / 'b' / 'set', clusters=False)
    with pytest.raises(InputError, match='num_images: was 6, now 7'):
        run(root, tmp_path / 'b' / 'set', clusters=False, num_images=7)


@pytest.mark.long
def test_two_ranks_choose_the_same_set(root, tmp_path):
    given = recipe(root, tmp_path / 'one', clusters=False, encoder=[TEXTURE, TEXTURE])
    distill(given, ('select',))
    content = {**given.options, 'select': {**given.options['select'], 'save_dir': str(tmp_path / 'two')}}
    (tmp_path / 'core.yml').write_text(yaml.safe_dump(content))
    torchrun(
        *('-m', 'basicsr_distill', 'distill', '-opt', 'core.yml', '--launcher', 'pytorch', '--stage', 'select'),
        cwd=tmp_path,
    )
    first, second = files(tmp_path / 'one'), files(tmp_path / 'two')
    second['stage.json'] = second['stage.json'].replace(b'/two"', b'/one"')
    assert first == second


def test_a_round_trip_through_the_codec(root, tmp_path):
    rough, fine = (
        run(
            root,
            tmp_path / str(components),
            num_images=2,
            codec={'type': 'block_pca', 'block_px': 8, 'components': components},
        )
        for components in (4, 192)
    )
    assert patches(rough) == patches(fine)
    for row in manifest(fine):
        original = read_rgb(root / 'patches' / 'images' / row.patch).astype(int)
        assert np.abs(read_rgb(fine / 'HR' / row.name) - original).max() <= 1  # all of 3 x 8 x 8 components
        assert np.abs(read_rgb(rough / 'HR' / row.name) - original).max() > 10
        image = cv2.imread(str(rough / 'HR' / row.name)).astype(np.float32) / 255
        lr = cv2.imread(str(rough / 'LR_bicubic' / 'X4' / row.name))
        assert np.abs(lr - (imresize(image, 0.25) * 255).clip(0, 255)).max() <= 0.51
    assert 'the patches went through it: block_pca' in (rough / 'README.md').read_text()


def test_targets_are_what_the_teacher_makes_of_the_lr_images(root, tmp_path):
    section = {'type': 'EDSR', 'num_in_ch': 3, 'num_out_ch': 3, 'num_feat': 8, 'num_block': 1, 'upscale': 4}
    torch.manual_seed(0)
    network = EDSR(**{key: value for key, value in section.items() if key != 'type'}).eval()
    torch.save({'params': network.state_dict()}, tmp_path / 'teacher.pth')
    (tmp_path / 'teacher.yml').write_text(yaml.safe_dump({'network_g': section}))
    sets = {
        kind: run(
            root,
            tmp_path / kind,
            num_images=2,
            targets={'type': kind, 'network': given, 'weights': str(tmp_path / 'teacher.pth')},
        )
        for kind, given in (('teacher', section), ('mix', str(tmp_path / 'teacher.yml')))
    }
    plain = run(root, tmp_path / 'hr', num_images=2)
    for row in manifest(plain):
        lr = read_rgb(plain / 'LR_bicubic' / 'X4' / row.name)
        hr = read_rgb(plain / 'HR' / row.name).astype(float)
        with torch.no_grad():
            made = network(torch.from_numpy(lr).permute(2, 0, 1)[None].float() / 255)[0].clamp(0, 1).permute(1, 2, 0)
        for kind, expected in (('teacher', made.numpy() * 255), ('mix', (made.numpy() * 255 + hr) / 2)):
            assert np.array_equal(read_rgb(sets[kind] / 'LR_bicubic' / 'X4' / row.name), lr)
            assert np.abs(read_rgb(sets[kind] / 'HR' / row.name) - expected).max() <= 0.51
    assert 'teacher.pth' in (sets['teacher'] / 'README.md').read_text()


@pytest.mark.parametrize(
    ('network', 'message'),
    [
        ({'type': 'EDRS'}, r'targets\.network\.type: no network is called EDRS'),
        ({'num_feat': 8}, "network: must be a section with the key 'type'"),
        (
            {'type': 'EDSR', 'num_in_ch': 3, 'num_out_ch': 3, 'num_feat': 4, 'num_block': 1, 'upscale': 4},
            'do not go with',
        ),
    ],
)
def test_teachers_that_do_not_fit(network, message, root, tmp_path):
    torch.save({'params': {'x': torch.zeros(1)}}, tmp_path / 'teacher.pth')
    with pytest.raises(InputError, match=message):
        run(
            root,
            tmp_path / 'set',
            targets={'type': 'teacher', 'network': network, 'weights': str(tmp_path / 'teacher.pth')},
        )


def test_the_recipes_run_on_a_photograph(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path('photos').mkdir()
    cv2.imwrite('photos/astronaut.png', skimage.data.astronaut()[..., ::-1])
    core_set = Recipe.load(
        REPOSITORY / 'options' / 'distill' / 'coreset.yml',
        [
            'extract:dataroot=photos',
            'extract:save_dir=core/patches',
            'extract:patch_size=64',
            'extract:stride=32',
            'select:save_dir=core/set',
            'select:num_images=4',
            'select:encoder={type: texture}',
        ],
    )
    assert core_set.stages == ('extract', 'select')
    distill(core_set)
    assert len(manifest(Path('core/set'))) == 4
    gsdd = Recipe.load(
        REPOSITORY / 'options' / 'distill' / 'gsdd_demo.yml',
        [
            'extract:dataroot=photos',
            'extract:patch_size=64',
            'cluster:num_clusters=2',
            'network_g:size_px=16',
            'sample:images_per_cluster=2',
            'train:total_iter=2',
            'train:extractor:width=4',
            'num_gpu=0',
            'logger:save_checkpoint_freq=2',
        ],
    )
    distill(gsdd)
    assert len(list(Path('datasets/gsdd_demo/distilled/HR').iterdir())) == 4


def test_every_method_that_the_options_know_has_a_row() -> None:
    assert set(get_args(SelectMethod)) == set(choice.METHODS)
