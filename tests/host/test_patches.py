"""The host's patches: each is right, and still needed (a test fails when the host or a library lost the defect)."""

import errno
import importlib
import itertools
import os
import re
import socket
import subprocess
import sys
import textwrap
import time
import types
import urllib.error
from pathlib import Path

import basicsr
import cv2
import numpy as np
import pytest
import scipy.linalg
import scipy.ndimage
import torch
from basicsr.models import build_model
from basicsr.models.base_model import BaseModel
from basicsr.models.sr_model import SRModel
from safetensors.torch import save_file
from torch.nn.parallel import DistributedDataParallel

from basicsr_distill.archs.rrdb_keys import convert_rrdb_state_dict
from basicsr_distill.errors import InputError
from basicsr_distill.host import hooks
from basicsr_distill.io.weights import load_weights
from basicsr_distill.runtime import distributed
from basicsr_distill.runtime.rng import restore_rng
from basicsr_distill.training.checkpoint import CheckpointWriter, restore_model

REPOSITORY = Path(__file__).parents[2]
HOST_FOLDER = Path(basicsr.__file__).parent
without_cuda = pytest.mark.skipif(torch.cuda.is_available(), reason='the defect shows on a CPU only')


def original_of(target: str):
    """The host's function behind a patch."""
    module, qualified_name = target.split(':')
    patched = importlib.import_module(module)
    for name in qualified_name.split('.'):
        patched = getattr(patched, name)
    return patched.host_original


def test_table_is_in_force_and_points_at_real_lines():
    assert len(hooks.HOST_PATCHES) == 18
    for patch in hooks.HOST_PATCHES:
        owner, name = patch.resolve()
        assert hasattr(getattr(owner, name), 'host_original'), patch.target
        file, line = patch.where.split(':')
        assert (HOST_FOLDER / file).read_text().split('\n')[int(line) - 1].strip(), patch.where
        command = re.match(r'basicsr (?:train|test) -opt (options/\S+\.yml)', patch.breaks)
        assert command and (REPOSITORY / command[1].rstrip(',')).is_file(), patch.breaks
        assert patch.cause and patch.name == patch.target.split(':')[1]
    applied = {patch.target: getattr(*patch.resolve()) for patch in hooks.HOST_PATCHES}
    hooks._complete_host(basicsr)
    assert applied == {patch.target: getattr(*patch.resolve()) for patch in hooks.HOST_PATCHES}


def test_names_imported_by_the_host_are_patched_too():
    from basicsr.data import paired_image_dataset, single_image_dataset
    from basicsr.models import realesrgan_model
    from basicsr.utils import options

    for function in (
        paired_image_dataset.paired_paths_from_folder,
        single_image_dataset.scandir,
        basicsr.scandir,
        realesrgan_model.filter2D,
        options.init_dist,
        basicsr.init_wandb_logger,
    ):
        assert hasattr(function, 'host_original'), function


# Devices and process groups ------------------------------------------------------------------------------------------


@pytest.fixture
def one_rank(monkeypatch):
    """A process group of this process alone."""
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        port = probe.getsockname()[1]
    for name, value in {
        'RANK': 0,
        'WORLD_SIZE': 1,
        'LOCAL_RANK': 0,
        'MASTER_ADDR': '127.0.0.1',
        'MASTER_PORT': port,
    }.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setattr(torch.multiprocessing, 'get_start_method', lambda allow_none: 'fork')
    yield
    distributed.cleanup()


@without_cuda
def test_init_dist_divides_by_zero_gpus(one_rank):
    from basicsr.utils import dist_util

    with pytest.raises(ZeroDivisionError):
        original_of('basicsr.utils.dist_util:init_dist')('pytorch')
    dist_util.init_dist('pytorch')
    assert dist_util.get_dist_info() == (0, 1)
    assert torch.distributed.get_backend() == 'gloo'


def model_options(folder: Path, **changes) -> dict:
    """A small SRModel, as the command would hand it to the host on a CPU."""
    options = {
        'name': 'test',
        'model_type': 'SRModel',
        'scale': 4,
        'num_gpu': 0,
        'is_train': True,
        'dist': False,
        'rank': 0,
        'world_size': 1,
        'manual_seed': 0,
        'network_g': {'type': 'EDSR', 'num_in_ch': 3, 'num_out_ch': 3, 'num_feat': 4, 'num_block': 1, 'upscale': 4},
        'path': {
            'models': str(folder / 'models'),
            'training_states': str(folder / 'training_states'),
            'visualization': str(folder / 'visualization'),
        },
        'train': {
            'ema_decay': 0.9,
            'optim_g': {'type': 'Adam', 'lr': 1e-4},
            'scheduler': {'type': 'MultiStepLR', 'milestones': [3], 'gamma': 0.5},
            'pixel_opt': {'type': 'L1Loss', 'loss_weight': 1.0},
        },
        'val': {'save_img': False, 'metrics': {'psnr': {'type': 'calculate_psnr', 'crop_border': 4}}},
    }
    for key in ('models', 'training_states'):
        (folder / key).mkdir(exist_ok=True)
    return {**options, **changes}


@without_cuda
def test_model_to_device_asks_for_a_gpu_on_a_cpu(one_rank):
    model = BaseModel({'num_gpu': 0, 'is_train': True, 'dist': True})
    net = torch.nn.Linear(2, 1)
    with pytest.raises((RuntimeError, AssertionError)):
        original_of('basicsr.models.base_model:BaseModel.model_to_device')(model, net)
    distributed.init('pytorch')
    wrapped = model.model_to_device(net)
    assert isinstance(wrapped, DistributedDataParallel)
    wrapped(torch.ones(1, 2)).sum().backward()
    assert torch.equal(net.weight.grad, torch.ones(1, 2))


def test_rank_0_validates_outside_of_ddp(tmp_path, one_rank):
    distributed.init('pytorch')
    options = model_options(tmp_path, dist=True)
    del options['train']['ema_decay']
    model = build_model(options)
    seen = []
    model.nondist_validation = lambda *args: seen.append(type(model.net_g))
    original_of('basicsr.models.sr_model:SRModel.dist_validation')(model, None, 1, None, False)
    model.dist_validation(None, 1, None, False)
    assert seen == [DistributedDataParallel, type(model.net_g.module)]
    assert isinstance(model.net_g, DistributedDataParallel)


@without_cuda
@pytest.mark.parametrize('num_gpu', [1, 2])
def test_a_model_built_by_hand_for_gpus_is_built_on_the_cpu(tmp_path, caplog, num_gpu):
    original = original_of('basicsr.models.base_model:BaseModel.__init__')
    wanted = BaseModel.__new__(BaseModel)
    original(wanted, {'num_gpu': num_gpu, 'is_train': True})
    assert wanted.device.type == 'cuda'
    model = SRModel(model_options(tmp_path, num_gpu=num_gpu))
    model.feed_data({'lq': torch.rand(1, 3, 8, 8), 'gt': torch.rand(1, 3, 32, 32)})
    model.optimize_parameters(1)
    assert model.device.type == 'cpu' and np.isfinite(model.get_current_log()['l_pix'])


def blind_options(folder: Path, model_type: str, **changes) -> dict:
    """A small RealESRNet or RealESRGAN model, with every branch of the degradation within a few draws."""
    options = model_options(
        folder,
        model_type=model_type,
        queue_size=4,
        gt_size=32,
        gt_usm=True,
        l1_gt_usm=True,
        percep_gt_usm=True,
        gan_gt_usm=False,
        second_blur_prob=0.8,
        **changes,
    )
    for suffix in ('', '2'):
        options.update(
            {
                f'resize_prob{suffix}': [0.3, 0.4, 0.3],
                f'resize_range{suffix}': [0.5, 1.2],
                f'gaussian_noise_prob{suffix}': 0.5,
                f'noise_range{suffix}': [1, 25],
                f'poisson_scale_range{suffix}': [0.05, 2.5],
                f'gray_noise_prob{suffix}': 0.4,
                f'jpeg_range{suffix}': [30, 95],
            }
        )
    options['network_d'] = {'type': 'UNetDiscriminatorSN', 'num_in_ch': 3, 'num_feat': 4}
    options['train']['optim_d'] = {'type': 'Adam', 'lr': 1e-4}
    options['train']['gan_opt'] = {'type': 'GANLoss', 'gan_type': 'vanilla', 'loss_weight': 0.1}
    return options


def blind_batch(astronaut: np.ndarray) -> dict:
    """Two crops with different kernels, as RealESRGANDataset gives them."""
    crops = [torch.from_numpy(astronaut[top : top + 64, 200:264]).permute(2, 0, 1) / 255 for top in (0, 64)]
    kernels = torch.rand(2, 21, 21)
    kernels /= kernels.sum((1, 2), keepdim=True)
    return {'gt': torch.stack(crops), 'kernel1': kernels, 'kernel2': kernels.flip(0), 'sinc_kernel': kernels}


@without_cuda
@pytest.mark.parametrize('model_type', ['RealESRNetModel', 'RealESRGANModel'])
def test_blind_models_train_on_a_cpu(tmp_path, astronaut, model_type):
    module = f'basicsr.models.{model_type.removesuffix("Model").lower()}_model:{model_type}'
    model = build_model(blind_options(tmp_path, model_type))
    with pytest.raises((RuntimeError, AssertionError)):
        original_of(f'{module}.__init__')(model, blind_options(tmp_path, model_type))
    model.lq = model.gt = torch.zeros(2, 3, 4, 4)
    with pytest.raises((RuntimeError, AssertionError)):
        original_of(f'{module}._dequeue_and_enqueue')(model)
    torch.manual_seed(0)
    before = [parameter.clone() for parameter in model.net_g.parameters()]
    for iteration in range(1, 5):  # the queue is full after two
        model.feed_data(blind_batch(astronaut))
        assert model.lq.shape == (2, 3, 8, 8) and model.gt.shape == (2, 3, 32, 32)
        model.optimize_parameters(iteration)
    assert model.queue_ptr == model.queue_size
    assert all(np.isfinite(value) for value in model.get_current_log().values())
    assert any(not torch.equal(old, new) for old, new in zip(before, model.net_g.parameters()))
    model.save(0, 4)
    assert {path.name for path in (tmp_path / 'models').iterdir()} >= {'net_g_4.pth'}


def test_blind_model_trains_on_pairs_too(tmp_path, astronaut):
    model = build_model(blind_options(tmp_path, 'RealESRGANModel', high_order_degradation=False))
    gt = blind_batch(astronaut)['gt']
    for iteration in (1, 2):
        model.feed_data({'lq': torch.nn.functional.avg_pool2d(gt, 4), 'gt': gt})
        model.optimize_parameters(iteration)
    assert set(model.get_current_log()) == {'l_g_pix', 'l_g_gan', 'l_d_real', 'out_d_real', 'l_d_fake', 'out_d_fake'}


def test_queue_that_the_batch_does_not_divide_names_a_better_size(tmp_path, astronaut):
    model = build_model(blind_options(tmp_path, 'RealESRNetModel'))
    model.queue_size = 5
    with pytest.raises(InputError, match='queue_size: 5 is not a multiple of the batch size 2; set queue_size: 4'):
        model.feed_data(blind_batch(astronaut))


def test_esrgan_trains_on_a_cpu(tmp_path):
    model = build_model(blind_options(tmp_path, 'ESRGANModel'))
    for iteration in (1, 2):
        model.feed_data({'lq': torch.rand(2, 3, 8, 8), 'gt': torch.rand(2, 3, 32, 32)})
        model.optimize_parameters(iteration)
    assert all(np.isfinite(value) for value in model.get_current_log().values())


def test_filter2d_of_channels_last_images(astronaut):
    from basicsr.utils.img_process_util import filter2D

    images = torch.from_numpy(astronaut[None, :40, :50].repeat(2, 0)).float().permute(0, 3, 1, 2)
    assert not images.is_contiguous()
    kernels = torch.rand(2, 5, 5)
    with pytest.raises(RuntimeError, match='view'):
        original_of('basicsr.utils.img_process_util:filter2D')(images, kernels)
    filtered = filter2D(images, kernels)
    for index, channel in itertools.product(range(2), range(3)):
        expected = scipy.ndimage.correlate(images[index, channel].numpy(), kernels[index].numpy(), mode='mirror')
        np.testing.assert_allclose(filtered[index, channel], expected, rtol=1e-4)


# Newer libraries -----------------------------------------------------------------------------------------------------


def test_any_optimizer_of_torch():
    model = BaseModel({'num_gpu': 0, 'is_train': True})
    parameters = [torch.nn.Parameter(torch.zeros(2))]
    with pytest.raises(NotImplementedError):
        original_of('basicsr.models.base_model:BaseModel.get_optimizer')(model, 'AdamW', parameters, 1e-3)
    for name, options in {
        'Adam': {'betas': (0.9, 0.99)},
        'AdamW': {'weight_decay': 0.1},
        'SGD': {'momentum': 0.9},
    }.items():
        optimizer = model.get_optimizer(name, parameters, lr=1e-3, **options)
        assert type(optimizer) is getattr(torch.optim, name)
        assert {**optimizer.defaults, **options, 'lr': 1e-3} == optimizer.defaults


@pytest.mark.parametrize(
    ('name', 'options', 'sentence'),
    [
        ('Adm', {}, 'optimizer type Adm is not one of torch.optim; did you mean Adam'),
        ('adamw', {}, 'did you mean AdamW'),
        ('lr_scheduler', {}, 'is not one of torch.optim'),
        ('SGD', {'betas': (0.9, 0.99)}, "optimizer SGD: got an unexpected keyword argument 'betas'"),
    ],
)
def test_wrong_optimizer_is_one_sentence(name, options, sentence):
    with pytest.raises(InputError, match=sentence):
        BaseModel({'num_gpu': 0, 'is_train': True}).get_optimizer(name, [], lr=1e-3, **options)


@pytest.mark.skipif(int(cv2.__version__.split('.')[0]) < 5, reason='OpenCV before 5 took fractions')
def test_jpg_quality_is_an_integer_for_opencv(astronaut):
    from basicsr.data import degradations

    image = astronaut[:64, :64].astype(np.float32) / 255
    with pytest.raises(cv2.error):
        original_of('basicsr.data.degradations:add_jpg_compression')(image, 61.7)
    _, encoded = cv2.imencode('.jpg', (image * 255).round().astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 61])
    expected = cv2.imdecode(encoded, cv2.IMREAD_COLOR) / 255
    np.testing.assert_allclose(degradations.add_jpg_compression(image, 61.7), expected, atol=1e-6)
    np.random.seed(0)
    assert degradations.random_add_jpg_compression(image, (30, 95)).shape == image.shape


def test_wandb_lost_generate_id(monkeypatch):
    from basicsr.utils import init_wandb_logger

    calls = []
    wandb = types.ModuleType('wandb')
    wandb.util = types.ModuleType('wandb.util')
    wandb.init = lambda **options: calls.append(options)
    monkeypatch.setitem(sys.modules, 'wandb', wandb)
    options = {'name': 'test', 'logger': {'wandb': {'project': 'p'}}}
    with pytest.raises(AttributeError, match='generate_id'):
        original_of('basicsr.utils.logger:init_wandb_logger')(options)
    init_wandb_logger(options)
    assert len(calls) == 1 and len(calls[0]['id']) == 8 and calls[0]['project'] == 'p'


def test_vgg_weights_out_of_reach_say_where_to_put_them(tmp_path, monkeypatch):
    from basicsr.archs.vgg_arch import VGGFeatureExtractor

    def offline(*args, **kwargs):
        raise urllib.error.URLError('no network')

    monkeypatch.setattr('torchvision.models._api.load_state_dict_from_url', offline)
    monkeypatch.chdir(tmp_path)
    extractor = VGGFeatureExtractor.__new__(VGGFeatureExtractor)
    with pytest.raises(urllib.error.URLError):
        original_of('basicsr.archs.vgg_arch:VGGFeatureExtractor.__init__')(extractor, ['relu1_1'], 'vgg11')
    place = f'{tmp_path}/experiments/pretrained_models/vgg19-dcbb9e9d.pth'
    with pytest.raises(InputError, match=rf'put vgg19-dcbb9e9d\.pth from .* at {re.escape(place)}'):
        VGGFeatureExtractor(['relu1_1'], 'vgg11')
    Path(place).parent.mkdir(parents=True)
    Path(place).write_bytes(b'half')
    with pytest.raises(InputError, match='damaged'):
        VGGFeatureExtractor(['relu1_1'])


# Checkpoints ---------------------------------------------------------------------------------------------------------


def trained(folder: Path, num_iterations: int, **changes) -> SRModel:
    """A model after some iterations on noise."""
    torch.manual_seed(0)
    model = build_model(model_options(folder, **changes))
    for iteration in range(1, num_iterations + 1):
        step(model, iteration)
    return model


def step(model: SRModel, iteration: int) -> None:
    model.update_learning_rate(iteration)
    model.feed_data({'lq': torch.rand(1, 3, 8, 8), 'gt': torch.rand(1, 3, 32, 32)})
    model.optimize_parameters(iteration)


def test_failed_save_is_an_error(tmp_path, monkeypatch):
    model = trained(tmp_path, 1)
    model.opt['path']['models'] = model.opt['path']['training_states'] = str(tmp_path / 'absent')
    monkeypatch.setattr(time, 'sleep', lambda seconds: None)
    BaseModel.save_network(model, model.net_g, 'net_g', 1)
    BaseModel.save_training_state(model, 0, 1)
    CheckpointWriter(model, {})
    for save in (lambda: model.save_network(model.net_g, 'net_g', 1), lambda: model.save_training_state(0, 1)):
        with pytest.raises(OSError, match=r'cannot write .*absent'):
            save()


def test_saved_networks_are_those_of_the_host(tmp_path):
    model = trained(tmp_path, 1)
    for label in ('old', 'new'):
        if label == 'new':
            CheckpointWriter(model, {})
        model.save_network([torch.nn.DataParallel(model.net_g), model.net_g_ema], label, 5, ['params', 'params_ema'])
        model.save_network(model.net_g, label, -1)
    for number in ('5', 'latest'):
        old, new = (load_weights(tmp_path / 'models' / f'{label}_{number}.pth') for label in ('old', 'new'))
        assert old.keys() == new.keys()
        for key in old:
            assert list(old[key]) == list(new[key])
            assert all(torch.equal(old[key][name], new[key][name]) for name in old[key])
            assert old[key]._metadata == new[key]._metadata


def test_resumed_training_equals_uninterrupted(tmp_path):
    model = trained(tmp_path, 2)
    model.extra_state = lambda: {'memory': torch.arange(3), 'count': 2}
    model.best_metric_results = {'Set5': {'psnr': {'better': 'higher', 'val': np.float64(31.5), 'iter': 2}}}
    CheckpointWriter(model, {}).save(1, 2)
    BaseModel.save_training_state(model, 1, 3)
    lost = load_weights(tmp_path / 'training_states' / '3.state').keys()
    assert not {'rng', 'best_metric_results', 'model_state'} & lost
    for iteration in (3, 4):
        step(model, iteration)

    options = model_options(tmp_path)
    options['path']['pretrain_network_g'] = str(tmp_path / 'models' / 'net_g_2.pth')
    resumed = build_model(options)
    extra = []
    resumed.load_extra_state = extra.append
    state = load_weights(tmp_path / 'training_states' / '2.state')
    assert (state['epoch'], state['iter'], len(state['rng'])) == (1, 2, 1)
    restore_model(resumed, state)
    assert resumed.best_metric_results == {'Set5': {'psnr': {'better': 'higher', 'val': 31.5, 'iter': 2}}}
    assert extra[0]['count'] == 2 and torch.equal(extra[0]['memory'], torch.arange(3))
    restore_rng(state['rng'][0])
    for iteration in (3, 4):
        step(resumed, iteration)
    assert resumed.get_current_learning_rate() == model.get_current_learning_rate()
    for net in ('net_g', 'net_g_ema'):
        for new, old in zip(getattr(resumed, net).parameters(), getattr(model, net).parameters()):
            assert torch.equal(new, old)


def test_resuming_with_other_options(tmp_path):
    model = trained(tmp_path, 1)
    model.best_metric_results = {'Set5': {'ssim': {'better': 'higher', 'val': 0.9, 'iter': 1}}}
    CheckpointWriter(model, {}).save(0, 1)
    state = load_weights(tmp_path / 'training_states' / '1.state')
    other = trained(tmp_path, 0)
    restore_model(other, state)
    assert other.best_metric_results == {}  # the options ask for PSNR
    state['optimizers'] *= 2
    with pytest.raises(InputError, match='holds 2 optimizers, the options make 1'):
        restore_model(other, state)


@pytest.mark.parametrize('layout', ['params', 'bare', 'module', 'safetensors', 'ema only'])
def test_layouts_of_weights_that_load(tmp_path, layout):
    model = trained(tmp_path, 0)
    weights = {key: torch.rand_like(value) for key, value in model.net_g.state_dict().items()}
    path = tmp_path / ('net.safetensors' if layout == 'safetensors' else 'net.pth')
    if layout == 'safetensors':
        save_file(weights, path)
    else:
        torch.save(
            {
                'params': {'params': weights},
                'bare': weights,
                'ema only': {'params_ema': weights},
                'module': {'params': {f'module.{key}': value for key, value in weights.items()}},
            }[layout],
            path,
        )
    if layout in ('bare', 'safetensors'):
        with pytest.raises(Exception):  # noqa: B017 a KeyError, or whatever the unpickler makes of safetensors
            original_of('basicsr.models.base_model:BaseModel.load_network')(model, model.net_g, str(path))
    key = 'params_ema' if layout in ('ema only', 'params') else 'params'  # falls back to params, as the host does
    model.load_network(model.net_g, str(path), param_key=key)
    assert all(torch.equal(value, weights[name]) for name, value in model.net_g.state_dict().items())


def test_not_strict_loads_what_fits(tmp_path):
    model = trained(tmp_path, 0)
    weights = {key: torch.rand_like(value) for key, value in model.net_g.state_dict().items()}
    changed = {**weights, 'conv_first.weight': torch.zeros(1, 2, 3), 'surplus': torch.zeros(1)}
    torch.save({'params': changed}, tmp_path / 'net.pth')
    with pytest.raises(InputError, match=r'net\.pth: does not fit EDSR .*surplus.*strict_load_g: false'):
        model.load_network(model.net_g, str(tmp_path / 'net.pth'))
    model.load_network(model.net_g, str(tmp_path / 'net.pth'), strict=False)
    for name, value in model.net_g.state_dict().items():
        assert torch.equal(value, weights[name]) == (name != 'conv_first.weight')


class Malicious:
    def __reduce__(self):
        return os.mkdir, ('executed',)


def test_wrong_files_of_weights_are_one_sentence(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = trained(tmp_path, 0)
    torch.save({'state_dict': {'w': torch.ones(1)}, 'epoch': 3}, 'other_key.pth')
    torch.save({'params': Malicious()}, 'malicious.pth')
    torch.save({'params': model.net_g.state_dict()}, 'half.pth')
    Path('half.pth').write_bytes(Path('half.pth').read_bytes()[:500])
    for name, sentence in {
        'absent.pth': 'no such file',
        'half.pth': 'damaged',
        'malicious.pth': r'refused.*posix\.mkdir',
        'other_key.pth': "no weights under 'params', only 'state_dict', 'epoch'",
    }.items():
        with pytest.raises(InputError, match=f'{name}: {sentence}'):
            model.load_network(model.net_g, name)
    assert not Path('executed').exists()


def test_old_rrdb_names_are_mapped(tmp_path):
    model = trained(
        tmp_path,
        0,
        network_g={
            'type': 'RRDBNet',
            'num_in_ch': 3,
            'num_out_ch': 3,
            'num_feat': 4,
            'num_block': 2,
            'num_grow_ch': 2,
            'scale': 4,
        },
    )
    weights = {key: torch.rand_like(value) for key, value in model.net_g.state_dict().items()}
    old_names = {
        'body.0.rdb1.conv1.weight': 'RRDB_trunk.0.RDB1.conv1.weight',
        'conv_hr.bias': 'HRconv.bias',
        'conv_body.weight': 'trunk_conv.weight',
        'conv_up2.weight': 'upconv2.weight',
    }
    torch.save({old_names.get(key, key): value for key, value in weights.items()}, tmp_path / 'old.pth')
    assert convert_rrdb_state_dict(torch.load(tmp_path / 'old.pth')).keys() == weights.keys()
    model.load_network(model.net_g, str(tmp_path / 'old.pth'))
    assert all(torch.equal(value, weights[name]) for name, value in model.net_g.state_dict().items())


@pytest.mark.long
def test_two_ranks_train_validate_and_save_on_a_cpu(tmp_path):
    script = tmp_path / 'script.py'
    script.write_text(
        textwrap.dedent("""
        import os
        import sys
        from pathlib import Path
        import torch
        from basicsr_distill.runtime import distributed
        sys.path.insert(0, sys.argv[1])
        import test_patches
        torch.set_num_threads(1)
        distributed.init('pytorch')
        rank = distributed.rank()
        torch.manual_seed(rank)
        options = test_patches.model_options(Path(sys.argv[2]), dist=True, rank=rank, world_size=2)
        del options['train']['ema_decay']
        model = test_patches.build_model(options)
        # Buffers make DistributedDataParallel's forward a collective operation.
        model.net_g.module.register_buffer('window', torch.zeros(3))
        model.net_g = model.model_to_device(model.net_g.module)
        class Images(list):
            class dataset:
                opt = {'name': 'noise'}
        image = {'lq': torch.rand(1, 3, 8, 8), 'gt': torch.rand(1, 3, 32, 32), 'lq_path': ['a.png']}
        for iteration in (1, 2):
            test_patches.step(model, iteration)
            model.validation(Images([image] * 3), iteration, None, False)
        test_patches.CheckpointWriter(model, {}).save(0, 2)
        total = sum(parameter.double().sum() for parameter in model.net_g.parameters()).item()
        assert len(set(distributed.gather(total))) == 1, 'the ranks drifted apart'
        distributed.barrier()
        distributed.cleanup()
        # A thread of the group that outlives the interpreter aborts the process now and then, although a model is still
        # there.
        names = [Path(f'/proc/self/task/{task}/comm').read_text() for task in os.listdir('/proc/self/task')]
        assert not [name for name in names if 'gloo' in name or 'tcpstore' in name], names
    """)
    )
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        port = probe.getsockname()[1]
    processes = [
        subprocess.Popen(
            [sys.executable, str(script), str(Path(__file__).parent), str(tmp_path)],
            text=True,
            stderr=subprocess.PIPE,
            env={
                **os.environ,
                'PYTHONPATH': str(REPOSITORY),
                'CUDA_VISIBLE_DEVICES': '',
                'RANK': str(rank),
                'WORLD_SIZE': '2',
                'LOCAL_RANK': str(rank),
                'MASTER_ADDR': '127.0.0.1',
                'MASTER_PORT': str(port),
            },
        )
        for rank in range(2)
    ]
    errors = [process.communicate(timeout=120)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], errors
    state = load_weights(tmp_path / 'training_states' / '2.state')
    assert len(state['rng']) == 2 and not torch.equal(state['rng'][0]['torch'], state['rng'][1]['torch'])
    assert state['best_metric_results']['noise']['psnr']['iter'] in (1, 2)


# Data ----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def pairs(tmp_path) -> tuple[Path, Path]:
    """Folders lq and gt with the same five names."""
    folders = tmp_path / 'lq', tmp_path / 'gt'
    for folder in folders:
        folder.mkdir()
        for name in 'cabed':
            cv2.imwrite(str(folder / f'{name}.png'), np.zeros((8, 8, 3), np.uint8))
    return folders


@pytest.fixture
def unsorted_listing(monkeypatch):
    """A file system that lists backwards."""
    listing = os.scandir

    class Backwards:
        def __init__(self, folder):
            self.entries = sorted(listing(folder), key=lambda entry: entry.name, reverse=True)

        def __enter__(self):
            return self

        def __exit__(self, *error):
            return None

        def __iter__(self):
            return iter(self.entries)

    monkeypatch.setattr(os, 'scandir', Backwards)


def test_scandir_is_in_the_order_of_names(pairs, unsorted_listing):
    from basicsr.utils import scandir

    folder = pairs[0]
    (folder / 'sub').mkdir()
    (folder / 'sub' / 'f.jpg').touch()
    (folder / '.hidden.png').touch()
    original = original_of('basicsr.utils.misc:scandir')
    assert list(original(folder)) == ['e.png', 'd.png', 'c.png', 'b.png', 'a.png']
    assert list(scandir(folder)) == ['a.png', 'b.png', 'c.png', 'd.png', 'e.png']
    assert list(scandir(folder, suffix=('.jpg', '.png'), recursive=True))[-1] == 'sub/f.jpg'
    assert list(scandir(str(folder), suffix='.jpg', recursive=True, full_path=True)) == [str(folder / 'sub' / 'f.jpg')]
    with pytest.raises(InputError, match='absent: no such folder'):
        scandir(str(folder / 'absent'))


def test_pairs_are_in_the_order_of_names(pairs, unsorted_listing):
    from basicsr.data.data_util import paired_paths_from_folder

    arguments = [str(folder) for folder in pairs], ['lq', 'gt'], '{}'
    expected = [
        {'lq_path': str(pairs[0] / f'{name}.png'), 'gt_path': str(pairs[1] / f'{name}.png')} for name in 'abcde'
    ]
    assert paired_paths_from_folder(*arguments) == expected
    # The host's follows its listing, patched by now; its table of names is what took the time.
    assert original_of('basicsr.data.data_util:paired_paths_from_folder')(*arguments) == expected


def test_pairs_are_found_in_linear_time(monkeypatch):
    from basicsr.data import data_util

    names = [f'{number:05d}.png' for number in range(4000)]
    monkeypatch.setattr(data_util, 'scandir', lambda folder: iter(names))
    monkeypatch.setattr('basicsr.utils.scandir', lambda folder: iter(names))
    seconds = []
    for function in (
        original_of('basicsr.data.data_util:paired_paths_from_folder'),
        data_util.paired_paths_from_folder,
    ):
        start = time.perf_counter()
        assert len(function(['lq', 'gt'], ['lq', 'gt'], '{}')) == len(names)
        seconds.append(time.perf_counter() - start)
    assert seconds[1] < seconds[0] / 3


def test_unpaired_folders_are_one_sentence(pairs, tmp_path):
    from basicsr.data.data_util import paired_paths_from_folder

    lq, gt = map(str, pairs)

    def refuse(folders, template, sentence):
        with pytest.raises(InputError, match=sentence):
            paired_paths_from_folder(folders, ['lq', 'gt'], template)

    refuse([lq, gt], '{}x4', r'dataroot_lq: .*lq lacks 5 of 5 partners of .*gt, first ax4\.png; check filename_tmpl')
    (pairs[1] / 'a.png').unlink()
    refuse([lq, gt], '{}', r'dataroot_lq: .*lq holds 1 files without a partner in .*gt, first a\.png')
    (tmp_path / 'empty').mkdir()
    refuse([lq, str(tmp_path / 'empty')], '{}', 'dataroot_gt: .*empty holds no images')
    refuse([str(tmp_path / 'absent'), gt], '{}', 'absent: no such folder')
    empty = [str(tmp_path / 'empty')] * 2
    assert original_of('basicsr.data.data_util:paired_paths_from_folder')(empty, ['lq', 'gt'], '{}') == []


def test_images_are_written_whole_under_any_name(tmp_path, monkeypatch, chelsea):
    from basicsr.utils import imwrite

    for name in (b'plain.png', b'latin-\xe9.png', 'grün.jpg'.encode()):
        path = os.path.join(tmp_path, 'new', os.fsdecode(name))
        imwrite(chelsea[..., ::-1], path)
        with open(path, 'rb') as file:
            read = cv2.imdecode(np.frombuffer(file.read(), np.uint8), cv2.IMREAD_COLOR)
        assert np.abs(read.astype(int) - chelsea[..., ::-1]).mean() < (3 if path.endswith('jpg') else 1e-9)
    imwrite(chelsea[..., 0], str(tmp_path / 'grey.png'), [cv2.IMWRITE_PNG_COMPRESSION, 0])
    assert (tmp_path / 'grey.png').stat().st_size > chelsea[..., 0].size

    def full(path, data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, 'write_bytes', full)
    with pytest.raises(OSError, match=r'cannot write .*/grey\.png: No space left') as error:
        imwrite(np.zeros((8, 8, 3), np.uint8), str(tmp_path / 'grey.png'))
    assert error.value.errno == errno.ENOSPC
    assert {path.name for path in tmp_path.iterdir()} == {'new', 'grey.png'} and (
        tmp_path / 'grey.png'
    ).stat().st_size > 99


def test_the_host_s_own_writer_dies_of_a_name(tmp_path):
    script = 'import os, numpy, cv2; cv2.imwrite(os.fsdecode(b"\\xe9.png"), numpy.zeros((8, 8, 3), numpy.uint8))'
    run = subprocess.run([sys.executable, '-c', script], cwd=tmp_path, capture_output=True)
    assert run.returncode != 0
