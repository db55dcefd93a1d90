"""What is refused before anything is made: stock components that would fail late, and silent wrong numbers."""

import shutil
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
import pytest
import torch
from basicsr.archs import build_network
from basicsr.data import build_dataset
from numpy.typing import NDArray
from sr_experiments import TINY_EDSR, write_options
from support import save_rgb

from basicsr_distill.cli import main
from basicsr_distill.errors import InputError
from basicsr_distill.io.images import read_rgb
from basicsr_distill.io.manifest import MANIFEST_NAME
from basicsr_distill.ops.bicubic import make_lr
from basicsr_distill.stages.pack_lmdb import pack_lmdb
from basicsr_distill.training.preflight.paths import _check_inside

Options = dict[str, Any]


@pytest.fixture
def pairs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, astronaut: NDArray[np.uint8]) -> Path:
    """The working folder, with HR, LR of scales 4 and 8, lmdbs of both, a list, weights and an older experiment."""
    monkeypatch.chdir(tmp_path)
    names = [f'{number}.png' for number in range(4)]
    for number, name in enumerate(names):
        hr = astronaut[100 * number : 100 * number + 64, 200:264]
        for folder, image in (('HR', hr), ('X4', make_lr(hr, 4)), ('X8', make_lr(hr, 8))):
            save_rgb(tmp_path / folder / name, image)
    Path('list.txt').write_text(''.join(f'{name} (64,64,3)\n' for name in names))
    for folder in ('HR', 'X4'):
        pack_lmdb(tmp_path / folder, names, tmp_path / f'{folder}.lmdb')
    weights = build_network({'type': 'EDSR', **{k: v for k, v in TINY_EDSR.items() if k != 'type'}}).state_dict()
    torch.save({'params': weights}, 'edsr.pth')
    for folder in ('experiments', 'results'):
        Path(folder, 'tiny').mkdir(parents=True)
        Path(folder, 'tiny', 'kept.txt').write_text('an older run')
    return tmp_path


DISK = {'type': 'disk'}
LMDB = {'type': 'lmdb'}
PSNR = {'metrics': {'psnr': {'type': 'calculate_psnr', 'crop_border': 4}}}


def paired(**changes: Any) -> Options:
    return {
        'name': 'set',
        'type': 'PairedImageDataset',
        'dataroot_gt': 'HR',
        'dataroot_lq': 'X4',
        'io_backend': dict(DISK),
        **changes,
    }


def single(**changes: Any) -> Options:
    return {'name': 'set', 'type': 'SingleImageDataset', 'dataroot_lq': 'X4', 'io_backend': dict(DISK), **changes}


def training() -> Options:
    return {
        'name': 'tiny',
        'model_type': 'SRModel',
        'scale': 4,
        'num_gpu': 0,
        'manual_seed': 0,
        'datasets': {
            'train': paired(gt_size=32, use_hflip=True, use_rot=True, batch_size_per_gpu=2, num_worker_per_gpu=0)
        },
        'network_g': dict(TINY_EDSR),
        'path': {},
        'train': {
            'optim_g': {'type': 'Adam', 'lr': 0.001},
            'total_iter': 2,
            'scheduler': {'type': 'MultiStepLR', 'milestones': [8]},
            'pixel_opt': {'type': 'L1Loss'},
        },
    }


def measuring() -> Options:
    return {
        'name': 'tiny',
        'model_type': 'SRModel',
        'scale': 4,
        'num_gpu': 0,
        'network_g': dict(TINY_EDSR),
        'datasets': {'test_1': paired()},
        'path': {'pretrain_network_g': 'edsr.pth'},
        'val': deepcopy(PSNR),
    }


DEGRADATION: Options = {
    f'{key}{suffix}': value
    for suffix in ('', '2')
    for key, value in {
        'resize_prob': [0.2, 0.7, 0.1],
        'resize_range': [0.5, 1.5],
        'gaussian_noise_prob': 0.5,
        'noise_range': [1, 30],
        'poisson_scale_range': [0.05, 3],
        'gray_noise_prob': 0.4,
        'jpeg_range': [30, 95],
    }.items()
}
KERNELS: Options = {
    f'{key}{suffix}': value
    for suffix in ('', '2')
    for key, value in {
        'blur_kernel_size': 21,
        'kernel_list': ['iso', 'aniso'],
        'kernel_prob': [0.5, 0.5],
        'sinc_prob': 0.1,
        'blur_sigma': [0.2, 3],
        'betag_range': [0.5, 4],
        'betap_range': [1, 2],
    }.items()
}


def blind() -> Options:
    return {
        **training(),
        **DEGRADATION,
        'model_type': 'RealESRGANModel',
        'gt_size': 32,
        'queue_size': 2,
        'second_blur_prob': 0.8,
        'l1_gt_usm': True,
        'percep_gt_usm': True,
        'gan_gt_usm': False,
        'network_d': {'type': 'UNetDiscriminatorSN', 'num_in_ch': 3, 'num_feat': 4},
        'datasets': {
            'train': {
                'name': 'set',
                'type': 'RealESRGANDataset',
                'dataroot_gt': 'HR',
                'meta_info': 'list.txt',
                'io_backend': dict(DISK),
                'use_hflip': True,
                'use_rot': False,
                'batch_size_per_gpu': 2,
                'num_worker_per_gpu': 0,
                'final_sinc_prob': 0.8,
                **KERNELS,
            }
        },
        'train': {
            **training()['train'],
            'optim_d': {'type': 'Adam', 'lr': 0.001},
            'gan_opt': {'type': 'GANLoss', 'gan_type': 'vanilla', 'loss_weight': 0.1},
        },
    }


def run(command: str, options: Options) -> int:
    return main([command, '-opt', str(write_options(Path('x.yml'), options))])


def tree() -> list[Path]:
    return [path for path in sorted(Path('.').rglob('*')) if 'cache' not in path.parts]


def assert_refused(command: str, options: Options, sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    write_options(Path('x.yml'), options)
    before = tree()
    capsys.readouterr()
    assert run(command, options) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith('basicsr: ')]
    assert len(lines) == 1 and 'Traceback' not in lines[0]
    assert sentence in lines[0], lines[0]
    assert tree() == before, 'a refused run made or moved a folder'


# Files that datasets are made of --------------------------------------------------------------------------------------


def wrong_lr() -> None:
    save_rgb(Path('X4/2.png'), read_rgb(Path('X4/2.png'))[:8])


def odd_hr() -> None:
    for path in Path('HR').iterdir():
        save_rgb(path, read_rgb(path)[:63, :62])


def cut_short() -> None:
    Path('X4/1.png').write_bytes(Path('X4/1.png').read_bytes()[:-20])


def cut_short_jpeg() -> None:
    for path in Path('HR').iterdir():
        save_rgb(path.with_suffix('.jpg'), read_rgb(path))
        path.unlink()
    for path in Path('X4').iterdir():
        path.rename(path.with_suffix('.jpg'))
    Path('HR/1.jpg').write_bytes(Path('HR/1.jpg').read_bytes()[:-200])


def thumbs() -> None:
    for folder in ('HR', 'X4'):
        Path(folder, 'Thumbs.db').write_bytes(b'\xd0\xcf\x11\xe0 thumbnails')


def unlisted() -> None:
    with Path('list.txt').open('a') as file:
        file.write('9.png (64,64,3)\n')


FILES: list[tuple[Callable[[], None], Options, str]] = [
    (wrong_lr, {}, 'X4/2.png: is 16x8, which at scale 4 is not the partner of 64x64'),
    (odd_hr, {}, 'crop HR images to a multiple of the scale'),
    (cut_short, {}, 'X4/1.png: the file is truncated'),
    (cut_short_jpeg, {}, 'HR/1.jpg: the file is truncated'),
    (lambda: Path('HR/3.png').write_bytes(b''), {}, 'HR/3.png: the file is empty'),
    (lambda: Path('HR/3.png').write_text('text'), {}, 'HR/3.png: not an image'),
    (thumbs, {}, 'HR/Thumbs.db: not an image'),
    (unlisted, {'meta_info_file': 'list.txt'}, 'list.txt lists what is not there: HR/9.png'),
    (
        lambda: None,
        {'dataroot_lq': 'X8'},
        'X8/0.png: is 8x8, which at scale 4 is not the partner of 64x64, it is that of scale 8',
    ),
]


@pytest.mark.parametrize(('damage', 'changes', 'sentence'), FILES)
@pytest.mark.parametrize('phase', ['train', 'val', 'test'])
def test_files_that_cannot_be_used(
    pairs: Path,
    capsys: pytest.CaptureFixture[str],
    damage: Callable[[], None],
    changes: Options,
    sentence: str,
    phase: str,
) -> None:
    if phase != 'train' and damage is odd_hr:
        pytest.skip('BasicSR cuts the pixels that are left over')
    for folder in ('HR', 'X4'):  # what is damaged is not the training set's when it is the validation set's
        shutil.copytree(folder, f'good/{folder}')
    damage()
    if phase == 'test':
        options = measuring()
        options['datasets']['test_1'].update(changes)
    else:
        options = training()
        if phase == 'val':
            options['datasets']['train'].update(dataroot_gt='good/HR', dataroot_lq='good/X4')
            options.update(datasets={**options['datasets'], 'val': paired(**changes)}, val=deepcopy(PSNR))
        else:
            options['datasets']['train'].update(changes)
    assert_refused('test' if phase == 'test' else 'train', options, sentence, capsys)


def test_an_own_folder_with_lr_images_of_another_scale(pairs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = measuring()
    options['datasets']['test_1'] = {
        'name': 'set',
        'type': 'DistilledPatchDataset',
        'dataroot_gt': 'HR',
        'dataroot_lq': 'X8',
    }
    assert_refused('test', options, 'it is that of scale 8', capsys)


# Sections -------------------------------------------------------------------------------------------------------------


def section(**changes: Any) -> Callable[[Options], None]:
    return lambda options: options['datasets']['train'].update(changes)


def without(*keys: str) -> Callable[[Options], None]:
    def remove(options: Options) -> None:
        for key in keys[:-1]:
            options = options[key]
        del options[keys[-1]]

    return remove


def older_flip(options: Options) -> None:
    section(use_flip=options['datasets']['train'].pop('use_hflip'))(options)


def with_val(dataset: Options, val: Any = None) -> Callable[[Options], None]:
    def add(options: Options) -> None:
        options['datasets']['val'] = dataset
        options['val'] = deepcopy(PSNR) if val is None else val

    return add


TRAINING: list[tuple[Callable[[], Options], Callable[[Options], None], str]] = [
    (
        training,
        section(gt_size=128),
        'gt_size: 128 is larger than 4 of 4 images, the smallest of which is HR/0.png (64x64)',
    ),
    (training, section(gt_size=30), 'gt_size: 30 is not a multiple of the scale 4; write 28'),
    (training, section(gt_size='32'), "gt_size: input should be a valid integer, not '32'"),
    (training, without('datasets', 'train', 'gt_size'), "needs the key 'gt_size'"),
    (training, older_flip, 'use_flip'),
    (training, without('datasets', 'train', 'use_rot'), "needs the key 'use_rot'"),
    (training, lambda o: o.update(scale=2), 'network_g.upscale: 4 does not agree with scale: 2'),
    (training, without('scale'), 'scale'),
    (
        training,
        lambda o: (
            o['network_g'].update(type='RRDBNet', scale=2)
            or [o['network_g'].pop(key) for key in ('upscale', 'img_range', 'rgb_mean')]
        ),
        'network_g.scale: 2 does not agree with scale: 4',
    ),
    (
        training,
        lambda o: o['network_g'].update(num_in_ch=1),
        'network_g.num_in_ch: 1 does not agree with datasets.train, which gives 3 channels',
    ),
    (
        training,
        lambda o: o['network_g'].update(num_out_ch=1),
        'network_g.num_out_ch: 1 does not agree with datasets.train, which gives 3 channels',
    ),
    (
        training,
        section(color='y'),
        'network_g.num_in_ch: 3 does not agree with datasets.train, which gives 1 channel (color: y)',
    ),
    (
        training,
        lambda o: o['datasets'].update(train={**single(), 'batch_size_per_gpu': 2}),
        'has no HR images to learn from',
    ),
    (training, with_val(single()), 'val.metrics.psnr: calculate_psnr compares with HR images, which datasets.val'),
    (
        training,
        section(io_backend={'type': 'petrel'}),
        "io_backend.type: input should be 'disk', 'lmdb' or 'memcached', not 'petrel'",
    ),
    (training, section(io_backend='disk'), 'io_backend: must be a mapping'),
    (
        training,
        section(dataroot_gt='HR.lmdb', dataroot_lq='X4.lmdb'),
        'io_backend: disk, but dataroot_gt HR.lmdb is an lmdb',
    ),
    (training, section(io_backend=LMDB), 'dataroot_gt: HR does not end in .lmdb'),
    (
        training,
        section(io_backend=LMDB, dataroot_gt='HR.lmdb', dataroot_lq='HR.lmdb'),
        'is the same lmdb as dataroot_gt',
    ),
    (
        training,
        lambda o: (
            section(io_backend=dict(LMDB), dataroot_gt='HR.lmdb', dataroot_lq='X4.lmdb')(o),
            with_val(paired(io_backend=dict(LMDB), dataroot_gt='HR.lmdb', dataroot_lq='X4.lmdb'))(o),
        ),
        'HR.lmdb is already opened for',
    ),
    (
        training,
        with_val(paired(), {'metrics': {'psnr': {'type': 'calculate_psnr', 'crop_border': '4'}}}),
        "val.metrics.psnr.crop_border: '4' is not a whole number of pixels",
    ),
    (
        training,
        with_val(paired(), {'metrics': {'psnr': {'type': 'calculate_psnr', 'crop_border': 32}}}),
        'crop_border: 32 leaves nothing of HR/0.png',
    ),
    (
        training,
        with_val(paired(), {'metrics': {'n': {'type': 'calculate_niqe', 'crop_border': 4, 'better': 'higher'}}}),
        'val.metrics.n.better: higher, but a lower calculate_niqe is the better one',
    ),
    (
        training,
        with_val(paired(), {'metrics': {'n': {'type': 'calculate_niqe', 'crop_border': 4, 'better': 'smaller'}}}),
        "val.metrics.n.better: 'smaller' is neither higher nor lower",
    ),
    (
        training,
        lambda o: o['path'].update(pretrain_model_g='edsr.pth'),
        "unknown key 'pretrain_model_g'; did you mean 'pretrain_network_g'",
    ),
    (training, lambda o: o['train']['optim_g'].update(lr='fast'), "train.optim_g.lr: 'fast' is not a number"),
    (training, lambda o: o['train']['pixel_opt'].update(loss_weight='much'), "loss_weight: 'much' is not a number"),
    (
        training,
        lambda o: o['train']['scheduler'].update(milestones=8),
        'train.scheduler.milestones: 8 is not a list of numbers',
    ),
    (training, lambda o: o['network_g'].update(num_block='one'), "network_g.num_block: 'one' is not a number"),
    (training, lambda o: o['train'].update(lr=1), "unknown key 'lr'"),
    (training, lambda o: o['train'].update(iter=1), "train: unknown key 'iter'; did you mean 'total_iter'"),
    (training, lambda o: o['train'].update(ema=0.9), "train: unknown key 'ema'; did you mean 'ema_decay'"),
    (training, lambda o: o.update(lq='X4'), "x.yml: unknown key 'lq'"),
    (training, lambda o: o['train'].update(net_d_iters=1), "train: unknown key 'net_d_iters'"),
    (training, section(blur_sigma=[0.2, 3]), "datasets.train: unknown key 'blur_sigma'"),
    (training, lambda o: o.update(gt_size=32), "x.yml: unknown key 'gt_size'"),
    (
        training,
        lambda o: o['train'].update(ema_decay='0.9'),
        "train: ema_decay: input should be a valid number, not '0.9'",
    ),
    (blind, without('train', 'gan_opt'), 'train: gan_opt: field required'),
    (blind, without('network_d'), "key 'network_d' is missing"),
    (training, lambda o: o.update(num_gpu='one'), 'x.yml: num_gpu: input should be'),
    (training, section(mean='half', std='half'), "mean: input should be a valid list, not 'half'"),
    (training, lambda o: o['datasets'].update(train=blind()['datasets']['train']), 'gives no LR images to SRModel'),
    (blind, lambda o: o.update(gt_size=404), 'gt_size: 404 is more than the 400 pixels'),
    (blind, lambda o: o.update(gt_size=30), 'gt_size: 30 is not a multiple of the scale 4'),
    (blind, without('gt_size'), "key 'gt_size' is missing, which RealESRGANModel needs"),
    (blind, without('jpeg_range2'), "key 'jpeg_range2' is missing, which RealESRGANModel needs"),
    (blind, without('gan_gt_usm'), "key 'gan_gt_usm' is missing, which RealESRGANModel needs"),
    (blind, lambda o: o.update(jpeg_range2=30), 'jpeg_range2: input should be a valid list, not 30'),
    (blind, lambda o: o.update(queue_size=3), 'queue_size: 3 is not a multiple of the batch size 2'),
    (blind, lambda o: o.update(datasets=training()['datasets']), 'gives no blur kernels to RealESRGANModel'),
    (blind, without('datasets', 'train', 'use_hflip'), "RealESRGANDataset needs the key 'use_hflip'"),
    (blind, section(kernel_prob=[1]), 'cannot take its first image with these values'),
]


@pytest.mark.parametrize(('options', 'change', 'sentence'), TRAINING)
def test_sections_that_cannot_work(
    pairs: Path,
    capsys: pytest.CaptureFixture[str],
    options: Callable[[], Options],
    change: Callable[[Options], Any],
    sentence: str,
) -> None:
    changed = options()
    change(changed)
    assert_refused('train', changed, sentence, capsys)


TESTING: list[tuple[Callable[[Options], Any], str]] = [
    (lambda o: o['path'].update(pretrain_network_g=None), 'path.pretrain_network_g: is missing or empty'),
    (lambda o: o.update(path={}), 'path.pretrain_network_g: is missing or empty'),
    (
        lambda o: o.update(path={'pretrain_network': 'edsr.pth'}),
        "unknown key 'pretrain_network'; did you mean 'pretrain_network_g'",
    ),
    (
        lambda o: o.update(path={'pretrain_model_g': 'edsr.pth'}),
        "unknown key 'pretrain_model_g'; did you mean 'pretrain_network_g'",
    ),
    (lambda o: o['datasets'].update(test_2=single()), 'compares with HR images, which datasets.test_2'),
    (lambda o: o['val']['metrics']['psnr'].update(crop_border='4'), "crop_border: '4' is not a whole number"),
    (lambda o: o.update(scale=2), 'network_g.upscale: 4 does not agree with scale: 2'),
    (
        lambda o: o['network_g'].update(num_in_ch=1),
        'num_in_ch: 1 does not agree with datasets.test_1, which gives 3 channels',
    ),
    (lambda o: o['network_g'].update(num_feat=6), 'edsr.pth: does not fit EDSR'),
]


@pytest.mark.parametrize(('change', 'sentence'), TESTING)
def test_tests_that_measure_nothing(
    pairs: Path, capsys: pytest.CaptureFixture[str], change: Callable[[Options], Any], sentence: str
) -> None:
    options = measuring()
    change(options)
    assert_refused('test', options, sentence, capsys)


def test_an_lmdb_without_what_it_lists(pairs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = training()
    section(io_backend=dict(LMDB), dataroot_gt='HR.lmdb', dataroot_lq='X4.lmdb')(options)
    with lmdb.open('X4.lmdb', map_size=1 << 22) as database, database.begin(write=True) as writer:
        writer.delete(b'2')
    assert_refused('train', options, "X4.lmdb holds no '2', which its meta_info.txt lists", capsys)


# What is allowed ------------------------------------------------------------------------------------------------------


def test_the_unchanged_files_run(pairs: Path) -> None:
    options = training()
    with_val(paired())(options)
    assert run('train', options) == 0 and run('test', measuring()) == 0
    options = training()
    section(io_backend=dict(LMDB), dataroot_gt='HR.lmdb', dataroot_lq='X4.lmdb')(options)
    assert run('train', {**options, 'name': 'packed'}) == 0
    assert run('train', {**blind(), 'name': 'blind'}) == 0


def test_val_may_be_empty(pairs: Path) -> None:
    options = training()
    with_val(paired())(options)
    assert run('train', {**options, 'val': None}) == 0
    assert run('test', {**measuring(), 'val': None}) == 0


def test_doubts_are_in_the_log(pairs: Path) -> None:
    """An HR image of 70 pixels beside an LR image of 16 is what benchmarks publish, and is said."""
    for path in Path('HR').iterdir():
        save_rgb(path, np.pad(read_rgb(path), ((0, 6), (0, 6), (0, 0))))
    assert run('test', measuring()) == 0
    log = next(Path('results/tiny').glob('test_*.log')).read_text()
    assert '4 of 4 HR images are more than a pixel of LR larger than their partners, first that of X4/0.png' in log


@pytest.mark.parametrize(('kind', 'direction'), [('niqe', 'lower'), ('psnr', 'higher'), ('ssim', 'higher')])
def test_the_best_value_is_the_better_one(
    pairs: Path, monkeypatch: pytest.MonkeyPatch, kind: str, direction: str
) -> None:
    values = iter(4 * [3.0] + 4 * [1.0] + 4 * [2.0])  # three validations of four images
    monkeypatch.setattr('basicsr.models.sr_model.calculate_metric', lambda data, options: next(values))
    options = training()
    options['train']['total_iter'] = 3
    with_val(paired(), {'val_freq': 1, 'metrics': {'m': {'type': f'calculate_{kind}', 'crop_border': 4}}})(options)
    assert run('train', options) == 0
    state = torch.load('experiments/tiny/training_states/3.state', weights_only=True)
    best = state['best_metric_results']['set']['m']
    assert (best['better'], best['val']) == (direction, 1.0 if direction == 'lower' else 3.0)


def test_a_stage_folder_is_its_images(pairs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree('HR', 'patches/images')
    for name in ('stage.json', MANIFEST_NAME, 'meta_info.txt'):
        Path('patches', name).write_text('{}')
    save_rgb(Path('patches/psnr.png'), np.zeros((480, 640, 3), np.uint8))
    options = training()
    section(dataroot_gt='patches')(options)
    sentence = 'patches is the folder of a stage, which holds more than images; write patches/images'
    assert_refused('train', options, sentence, capsys)
    options['datasets']['train'] = {
        'name': 'set',
        'type': 'DistilledPatchDataset',
        'dataroot_gt': 'patches',
        'gt_size': 32,
        'batch_size_per_gpu': 2,
    }
    assert run('train', options) == 0
    assert 'psnr' not in next(Path('experiments/tiny').glob('train_*.log')).read_text()
    from basicsr_distill.data.distilled_patch_dataset import DistilledPatchDataset

    dataset = DistilledPatchDataset({**options['datasets']['train'], 'phase': 'train', 'scale': 4})
    assert sorted(pair.hr.name for pair in dataset.pairs) == ['0.png', '1.png', '2.png', '3.png']


DATASETS = {
    'PairedImageDataset': 'meta_info_file',
    'SingleImageDataset': 'meta_info_file',
    'RealESRGANDataset': 'meta_info',
    'RealESRGANPairedDataset': 'meta_info',
}


def checked(options: Options) -> Any:
    dataset = build_dataset(options)
    _check_inside(options, dataset)
    return dataset


@pytest.mark.parametrize('dataset_type', DATASETS)
def test_meta_info_stays_inside_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dataset_type: str) -> None:
    blind = dict.fromkeys(
        [
            f'{key}{suffix}'
            for suffix in ('', '2')
            for key in (
                'blur_kernel_size',
                'kernel_list',
                'kernel_prob',
                'blur_sigma',
                'betag_range',
                'betap_range',
                'sinc_prob',
            )
        ]
    )
    table = tmp_path / 'meta_info.txt'
    options: Options = {
        'name': 'set',
        'type': dataset_type,
        'dataroot_lq': str(tmp_path),
        'dataroot_gt': str(tmp_path),
        'phase': 'train',
        'scale': 4,
        'io_backend': {'type': 'disk'},
        DATASETS[dataset_type]: str(table),
        'final_sinc_prob': 0,
        **blind,
    }

    def write(*names: str) -> None:
        paired = dataset_type == 'RealESRGANPairedDataset'
        table.write_text(''.join(f'{name}, {name}\n' if paired else f'{name} (8,8,3)\n' for name in names))

    write('a.png', 'sub/b.png')
    assert len(checked(options)) == 2
    for name in ('../outside.png', '/etc/passwd'):
        write('a.png', name)
        with pytest.raises(InputError, match=r'meta_info\.txt: .* is not a file inside'):
            checked(options)
    write('../outside.png')
    assert '../outside.png' in str(build_dataset(options).paths)  # BasicSR itself takes it
    write('a.png')
    monkeypatch.chdir(tmp_path)
    assert len(checked({**options, 'dataroot_lq': '.', 'dataroot_gt': '.'})) == 1
