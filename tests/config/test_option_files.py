"""Every option file of the project: checked key by key, and those of SR networks run."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from basicsr.utils.options import ordered_yaml
from sr_experiments import SlimVgg19, make_surroundings, save_slim_vgg19, shrink
from support import REPOSITORY
from torchvision.models import alexnet

from basicsr_distill.benchmark.cells import load_networks, plan_cells, train_options
from basicsr_distill.benchmark.cells import test_options as cell_test_options
from basicsr_distill.benchmark.sets import plan_sets
from basicsr_distill.cli import main
from basicsr_distill.config.benchmark_file import BenchmarkFile
from basicsr_distill.config.experiment import to_experiment
from basicsr_distill.config.recipe import Recipe
from basicsr_distill.config.yaml_files import load_option_file, read_option_file
from basicsr_distill.errors import InputError
from basicsr_distill.training import test as test_loop
from basicsr_distill.training import train as train_loop
from basicsr_distill.training.keys import check_components

OPTIONS = REPOSITORY / 'options'
TEST_SETS = ('OutdoorSceneTest300', 'Set5', 'Set14', 'B100', 'Urban100', 'Manga109')
METRICS = ('psnr_rgb', 'ssim_rgb', 'psnr_y', 'ssim_y', 'lpips')
STEMS = (
    'EDSR_Mx4',
    'RCAN_x4',
    'SwinIR_x4',
    'SRFormer_light_x4',
    'SRFormer_x4',
    'HiT_SIR_x4',
    'HiT_SNG_x4',
    'HiT_SRF_x4',
    'RealESRGAN_x4',
    'RealESRGAN_blind_x4',
    'RealSR_x4',
)


def files(pattern: str) -> list[Any]:
    return [pytest.param(path, id=path.stem) for path in sorted(OPTIONS.glob(pattern))]


def load(kind: str, stem: str) -> dict[str, Any]:
    found = list((OPTIONS / kind).rglob(f'{kind}_{stem}.yml'))
    assert len(found) == 1, f'{kind}_{stem}.yml'
    return load_option_file(found[0])


# What every file must satisfy -----------------------------------------------------------------------------------------


@pytest.mark.parametrize('path', [*files('distill/*.yml'), *files('train/**/*.yml'), *files('test/**/*.yml')])
def test_option_file_is_valid(path: Path) -> None:
    recipe = Recipe.load(path)
    check_components(recipe)
    options = recipe.options
    assert recipe.name == path.stem.removeprefix('train_').removeprefix('test_')
    for metric in ((options.get('val') or {}).get('metrics') or {}).values():
        assert metric['crop_border'] == options['scale']
    for section in options.get('datasets', {}).values():
        assert section.get('gt_size', options['scale']) % options['scale'] == 0


@pytest.mark.parametrize('path', files('benchmark/*.yml'))
def test_benchmark_file_is_valid(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every recipe, set and network that it names, down to the option files of its cells."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'options').symlink_to(OPTIONS)
    file = BenchmarkFile.load(path)
    assert file.name in (path.stem, f'{path.stem}_benchmark')  # where a recipe of the same name has the folder
    for row in file.options.sets.values():
        if row.path is not None:
            Path(row.path).mkdir(parents=True, exist_ok=True)
    networks = load_networks(file)
    sets = plan_sets(file, Path('experiments', file.name))
    cells = plan_cells(file.options, sets)
    assert len({cell.identity for cell in cells}) == len(cells)
    for cell in {cell.network: cell for cell in cells}.values():
        check_components(Recipe.parse(Path('train.yml'), train_options(cell, networks[cell.network], 100)))
        check_components(
            Recipe.parse(Path('test.yml'), cell_test_options(cell, networks[cell.network], file.options, Path('cell')))
        )
    for shared in {planned.shared.home: planned.shared for planned in sets if planned.shared}.values():
        check_components(shared.recipe)


@pytest.mark.parametrize('path', files('**/*.yml'))
def test_basicsr_reads_the_same(path: Path) -> None:
    """Its loader takes 1e-3 for text; 1.0e-3 is a number to both."""
    assert yaml.load(path.read_text(), Loader=ordered_yaml()[0]) == load_option_file(path)


@pytest.mark.parametrize(
    ('place', 'key', 'message'),
    [
        ('network_g', 'num_feats', "network_g: RRDBNet takes no key 'num_feats'; did you mean 'num_feat'"),
        ('datasets:train', 'use_flip', "datasets.train: unknown key 'use_flip'; did you mean 'use_hflip'"),
        ('path', 'strict_load', "path: unknown key 'strict_load'; did you mean 'strict_load_[dg]'"),
        ('train:optim_d', 'beta', "train.optim_d: Adam takes no key 'beta'; did you mean 'betas'"),
        (
            'train:scheduler',
            'milestone',
            "train.scheduler: MultiStepLR takes no key 'milestone'; did you mean 'milestones'",
        ),
        ('train:gan_opt', 'weight', "train.gan_opt: GANLoss takes no key 'weight'; did you mean 'loss_weight'"),
        ('train', 'perceptul_opt', "train: unknown key 'perceptul_opt'; did you mean 'perceptual_opt'"),
        (
            'train:perceptual_opt:layer_weights',
            'conv5_5',
            "layer_weights: unknown key 'conv5_5'; did you mean 'conv5_[1-4]'",
        ),
        (
            'val:metrics:psnr',
            'crop',
            "val.metrics.psnr: calculate_psnr takes no key 'crop'; did you mean 'crop_border'",
        ),
        ('val', 'save_image', "val: unknown key 'save_image'; did you mean 'save_img'"),
        ('logger', 'print_frq', "logger.print_frq'; did you mean 'print_freq'"),
        ('', 'manuel_seed', "unknown key 'manuel_seed'; did you mean 'manual_seed'"),
    ],
)
def test_a_wrong_key_is_refused_with_the_nearest(place: str, key: str, message: str) -> None:
    options = load('train', 'RealSR_x4_DIV2K')
    options['datasets']['train']['type'] = 'PairedImageDataset'
    options['datasets']['train'].pop('cache', None)
    section = options
    for part in filter(None, place.split(':')):
        section = section[part]
    section[key] = None
    with pytest.raises(InputError, match=message):
        check_components(Recipe.parse(Path('x.yml'), options))


@pytest.mark.parametrize(
    ('val', 'message'),
    [
        (True, 'val: must be a mapping'),
        ({'metrics': ['psnr']}, r'val\.metrics: must be a mapping'),
        ({'metrics': {'psnr': {'crop_border': 4}}}, r"val\.metrics\.psnr: key 'type' is missing"),
        (
            {'metrics': {'x': {'type': 'calculate_lpips', 'network': 'alex'}}},
            "x: unknown key 'network'; did you mean 'net'",
        ),
        (
            {'metrics': {'x': {'type': 'calculate_lpips', 'better': 'higher'}}},
            "val.metrics.x: better: input should be 'lower'",
        ),
    ],
)
def test_wrong_validation_sections_are_named(val: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Recipe.parse(Path('x.yml'), {**load('train', 'EDSR_Mx4_DIV2K'), 'val': val})


# Files of one network agree -------------------------------------------------------------------------------------------


@pytest.mark.parametrize('stem', STEMS)
def test_the_files_of_a_network_differ_in_the_set_alone(stem: str) -> None:
    whole, distilled = load('train', f'{stem}_DIV2K'), load('train', f'{stem}_distilled')
    share = distilled['train']['total_iter'] / whole['train']['total_iter']
    assert share == (1 if stem == 'RealSR_x4' else 0.1)
    assert distilled['val']['val_freq'] == distilled['logger']['save_checkpoint_freq'] == 1000
    assert distilled['train']['scheduler']['milestones'] == [
        step * share for step in whole['train']['scheduler']['milestones']
    ]
    for key in ('gt_size', 'use_hflip', 'use_rot', 'batch_size_per_gpu', 'num_worker_per_gpu'):
        assert distilled['datasets']['train'].get(key) == whole['datasets']['train'].get(key)
    assert without_set(distilled) == without_set(whole)


def without_set(options: dict[str, Any]) -> dict[str, Any]:
    rest = {key: value for key, value in options.items() if key != 'name'}
    rest['datasets'] = {'val': options['datasets']['val']}
    rest['train'] = {key: value for key, value in options['train'].items() if key not in ('total_iter', 'scheduler')}
    rest['val'] = {key: value for key, value in options['val'].items() if key != 'val_freq'}
    rest['logger'] = {key: value for key, value in options['logger'].items() if key != 'save_checkpoint_freq'}
    return rest


@pytest.mark.parametrize('stem', [stem for stem in STEMS if 'blind' not in stem])
def test_a_network_is_tested_as_it_was_trained(stem: str) -> None:
    train, test = load('train', f'{stem}_distilled'), load('test', stem)
    assert test['network_g'] == train['network_g'] and test['scale'] == train['scale']
    assert test['path']['pretrain_network_g'] == f'experiments/{train["name"]}/models/net_g_latest.pth'
    assert test['path']['param_key_g'] == ('params_ema' if 'ema_decay' in train['train'] else 'params')
    assert [section['name'] for section in test['datasets'].values()] == list(TEST_SETS)
    assert all(section['dataroot_gt'] == f'datasets/{section["name"]}' for section in test['datasets'].values())
    assert tuple(test['val']['metrics']) == METRICS
    assert test['val']['metrics']['lpips'] == {
        'type': 'calculate_lpips',
        'net': 'alex',
        'crop_border': 4,
        'better': 'lower',
    }
    transformer = 'RRDBNet' not in train['network_g']['type'] and train['network_g']['type'] not in ('EDSR', 'RCAN')
    assert ('tile' in test['val']) == transformer


# They run -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope='session')
def alexnet_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random backbone of LPIPS."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp('weights') / 'alexnet-owt-7be5be79.pth'
    torch.save({f'features.{name}': value for name, value in alexnet(weights=None).features.state_dict().items()}, path)
    return path


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, alexnet_weights: Path) -> Path:
    """An empty working folder with the backbones that losses and metrics need, slim or random."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr('torchvision.models.vgg.vgg19', SlimVgg19)
    save_slim_vgg19()
    Path('experiments/pretrained_models', alexnet_weights.name).symlink_to(alexnet_weights)
    return tmp_path


def train_files() -> list[Any]:
    """All; of the two blind ones, which blur at 400 px, one is enough for every day."""
    return [
        pytest.param(*param.values, id=param.id, marks=pytest.mark.slow if _is_slow(param.id) else ())
        for param in files('train/**/*.yml')
    ]


def _is_slow(stem: str) -> bool:
    return 'blind' in stem and 'distilled' not in stem


@pytest.mark.parametrize('path', train_files())
def test_train_file_trains_validates_and_resumes(path: Path, workplace: Path) -> None:
    options = shrink(read_option_file(path))
    make_surroundings(options)
    for total_iter in (2, 3):
        options['train']['total_iter'] = total_iter
        recipe = Recipe.parse(path, options)
        train_loop.train(to_experiment(recipe, is_train=True, root=workplace, auto_resume=total_iter == 3))
    folder = workplace / 'experiments' / options['name']
    assert sorted(file.name for file in (folder / 'training_states').iterdir()) == ['1.state', '2.state', '3.state']
    state = torch.load(folder / 'training_states' / '2.state', weights_only=True)
    validated = {
        section['name'] for phase, section in options['datasets'].items() if phase != 'train'
    }  # the demo's: none
    assert set(state.get('best_metric_results', {})) == validated
    first, last = (torch.load(folder / 'models' / f'net_g_{n}.pth', weights_only=True)['params'] for n in (1, 3))
    assert any(not torch.equal(first[name], value) for name, value in last.items() if value.is_floating_point())
    log = '\n'.join(file.read_text() for file in folder.glob('train_*.log'))
    assert 'Resuming training from iteration 2.' in log


@pytest.mark.long
@pytest.mark.parametrize('path', files('test/**/*.yml'))
def test_test_file_measures(path: Path, workplace: Path) -> None:
    options = shrink(read_option_file(path))
    make_surroundings(options)
    test_loop.test(to_experiment(Recipe.parse(path, options), is_train=False, root=workplace))
    results = json.loads((workplace / 'results' / options['name'] / 'metrics.json').read_text())
    assert list(results) == [section['name'] for section in options['datasets'].values()]
    for measured in results.values():
        assert list(measured) == list(options['val']['metrics'])
        assert 2 < measured['psnr_rgb'] < measured['psnr_y'] + 20 < 80 and -1 <= measured['ssim_y'] < 1
        assert measured.get('lpips', 1) > 0
    assert len(list((workplace / 'results' / options['name'] / 'visualization').rglob('*.png'))) >= 3 * len(results)


# Weights that are not there -------------------------------------------------------------------------------------------


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder, an empty torch cache, no network."""

    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError('no network')

    from basicsr_distill.metrics.lpips_metric import load_lpips

    load_lpips.cache_clear()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'torch'))
    monkeypatch.setattr(torch.hub, 'download_url_to_file', refuse)
    return tmp_path


@pytest.mark.parametrize('stem', ['RealESRGAN_x4_distilled', 'RealSR_x4_DIV2K'])
def test_a_perceptual_loss_without_vgg_is_refused_before_anything_is_built(stem: str, offline: Path) -> None:
    path = next(OPTIONS.rglob(f'train_{stem}.yml'))
    options = shrink(read_option_file(path))
    make_surroundings(options)
    before = sorted(offline.rglob('*'))
    with pytest.raises(InputError, match=r'train\.perceptual_opt: .*no network') as error:
        train_loop.train(to_experiment(Recipe.parse(path, options), is_train=True, root=offline))
    assert str(offline / 'experiments/pretrained_models/vgg19-dcbb9e9d.pth') in str(error.value)
    assert [file for file in sorted(offline.rglob('*')) if file not in before and 'torch' not in file.parts] == []


def test_lpips_without_its_backbone_is_refused_and_can_be_left_out(
    offline: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = OPTIONS / 'test/EDSR/test_EDSR_Mx4.yml'
    options = shrink(read_option_file(path))
    make_surroundings(options)
    small = [f'network_g:{key}={options["network_g"][key]}' for key in ('num_feat', 'num_block')]
    assert main(['test', '-opt', str(path), '--force_yml', *small]) == 2
    message = capsys.readouterr().err
    assert (
        'val.metrics.lpips' in message
        and str(offline / 'experiments/pretrained_models/alexnet-owt-7be5be79.pth') in message
    )
    assert '--force_yml val:metrics:lpips=none' in message and message.count('\n') == 1
    assert not (offline / 'results').exists()

    assert (
        main(['test', '-opt', str(path), '--force_yml', *small, 'val:metrics:lpips=none', 'datasets:test_6=none']) == 0
    )
    results = json.loads((offline / 'results/EDSR_Mx4/metrics.json').read_text())
    assert list(results) == list(TEST_SETS[:-1]) and list(results['Set5']) == list(METRICS[:-1])
