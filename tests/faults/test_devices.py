"""What a GPU would refuse, without one: tensors that are on another device, under torch's FakeTensorMode.

Fake tensors know shape, type and device, and compute nothing. Where they cannot follow: NumPy and files (so the
writing of latents is left out, and DPM-Solver++, whose scheduler in diffusers computes in NumPy), generators on the GPU
(ours are on the CPU), values that decide what is done next (:class:`Scalars` answers 1, or yes), autocast, which is off
without a GPU, and the engine of autograd, which asks the driver for its context: gradients are zeros on the device of
their parameters, for all that the loss was made from.
"""

import functools
import multiprocessing
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import torch
from basicsr.models import build_model
from diffusers import AutoencoderKL
from latent_recipe import SCRATCH, make_stages, recipe
from sr_experiments import TINY_EDSR
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from basicsr_distill.archs.minimax_dit_arch import build_dit
from basicsr_distill.config.experiment import to_experiment
from basicsr_distill.config.recipe import Recipe
from basicsr_distill.config.sections.codecs import BlockPcaCodecOptions
from basicsr_distill.config.sections.dit import MinimaxDiTNetworkOptions
from basicsr_distill.config.sections.sample import SamplerSettings
from basicsr_distill.diffusion.block_pca import BlockPca
from basicsr_distill.diffusion.codec import _Autoencoder, unfitted_block_pca
from basicsr_distill.diffusion.sampler import image_generator, sample_latents
from basicsr_distill.ops import bicubic

CUDA = torch.device('cuda')


class Scalars(TorchDispatchMode):
    """Answers what a fake tensor cannot: the value of one element."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default:
            dtype = args[0].dtype
            return True if dtype == torch.bool else 1.0 if dtype.is_floating_point else 1
        if func is torch.ops.aten.equal.default:
            return True
        if func is torch.ops.aten.nonzero.default:  # where a scheduler looks up its timestep
            return torch.zeros(1, args[0].dim(), dtype=torch.int64, device=args[0].device)
        if func is torch.ops.aten.index.Tensor:  # a mask, all of which is true
            args = (
                args[0],
                [
                    torch.arange(len(index), device=index.device)
                    if index is not None and index.dtype == torch.bool
                    else index
                    for index in args[1]
                ],
            )
        if func is torch.ops.aten._unique2.default:  # all of them differ
            return args[0].clone(), torch.arange(len(args[0]), device=args[0].device), torch.ones_like(args[0])
        return func(*args, **(kwargs or {}))


def moved(module: torch.nn.Module, *args: Any, **kwargs: Any) -> torch.nn.Module:
    """``Module.to`` for fake tensors, whose parameters cannot be swapped in place."""
    for part in module.modules():
        for table in (part._parameters, part._buffers):
            for name, value in table.items():
                if value is not None:
                    own = {key: given for key, given in kwargs.items() if key != 'memory_format' or value.dim() == 4}
                    there = value.detach().to(*args, **own)
                    table[name] = (
                        torch.nn.Parameter(there, value.requires_grad)
                        if isinstance(value, torch.nn.Parameter)
                        else there
                    )
    return module


def leaves(*outputs: torch.Tensor) -> list[torch.Tensor]:
    """The parameters that tensors were made from."""
    waiting, seen, found = [output.grad_fn for output in outputs], set(), []
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, 'variable'):
            found.append(node.variable)
        waiting += [following for following, _ in node.next_functions]
    return found


def backward(tensors: Any, *args: Any, **kwargs: Any) -> None:
    """``torch.autograd.backward`` without its engine."""
    for parameter in leaves(*([tensors] if isinstance(tensors, torch.Tensor) else tensors)):
        parameter.grad = torch.zeros_like(parameter)


def grad(outputs: Any, inputs: Any, *args: Any, **kwargs: Any) -> tuple[torch.Tensor, ...]:
    """``torch.autograd.grad`` without its engine."""
    return tuple(torch.zeros_like(tensor) for tensor in ([inputs] if isinstance(inputs, torch.Tensor) else inputs))


def on_cuda(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Any:
    """A model built for a GPU; nothing but its construction believes that there is one."""
    options = deepcopy(options)
    options.update(num_gpu=1, dist=False, rank=0, world_size=1, is_train=True)
    with monkeypatch.context() as patched:
        patched.setattr(torch.cuda, 'is_available', lambda: True)
        return build_model(options)


def devices(tensors: Any) -> set[str]:
    return {tensor.device.type for tensor in tensors}


def in_a_process(test: Callable[..., None]) -> Callable[..., None]:
    """Run a test of fake devices in a forked process: threads of autograd keep later tests from forking ranks."""

    @functools.wraps(test)
    def forked(**fixtures: Any) -> None:
        process = multiprocessing.get_context('fork').Process(target=with_fake_tensors, args=(test, fixtures))
        process.start()
        process.join()
        assert process.exitcode == 0

    return forked


def with_fake_tensors(test: Callable[..., None], fixtures: dict[str, Any]) -> None:
    """Run a test with fake tensors, networks that can be moved, and gradients, in a process that ends with it."""
    torch.nn.Module.to = moved  # type: ignore[method-assign]
    torch.autograd.backward = backward  # type: ignore[assignment]
    torch.autograd.grad = grad  # type: ignore[assignment]
    bicubic._blocks.cache_clear()  # no real matrices from before
    with FakeTensorMode(), Scalars():
        test(**fixtures)


@in_a_process
def test_a_mismatch_is_seen() -> None:
    with pytest.raises(RuntimeError, match='same device'):
        torch.zeros(3, device=CUDA) + torch.zeros(3)
    with pytest.raises(RuntimeError, match='same device'):
        torch.nn.Conv2d(3, 3, 3)(torch.zeros(1, 3, 8, 8, device=CUDA))


@in_a_process
def test_a_step_of_an_sr_model(monkeypatch: pytest.MonkeyPatch) -> None:
    model = on_cuda(
        {
            'name': 'x',
            'model_type': 'SRModel',
            'scale': 4,
            'network_g': dict(TINY_EDSR),
            'path': {},
            'train': {
                'optim_g': {'type': 'Adam', 'lr': 1e-3},
                'ema_decay': 0.9,
                'pixel_opt': {'type': 'L1Loss', 'loss_weight': 1.0, 'reduction': 'mean'},
                'scheduler': {'type': 'MultiStepLR', 'milestones': [9]},
            },
        },
        monkeypatch,
    )
    assert model.device.type == 'cuda'
    model.feed_data({'lq': torch.zeros(2, 3, 8, 8), 'gt': torch.zeros(2, 3, 32, 32)})
    model.update_learning_rate(1)
    model.optimize_parameters(1)
    assert devices(model.net_g.parameters()) == devices(model.net_g_ema.parameters()) == {'cuda'}
    assert devices(p.grad for p in model.net_g.parameters()) == {'cuda'} and model.output.device.type == 'cuda'


@pytest.mark.parametrize(
    'change',
    [{}, {'min_snr_gamma': 5.0}, {'accumulation': 2}, {'max_timestep': 200}],
    ids=lambda change: ''.join(change) or 'plain',
)
@in_a_process
def test_a_step_of_the_denoiser(change: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    make_stages(tmp_path)
    options = recipe(tmp_path, clip_grad_norm=1.0, ema_decay=0.99, label_dropout=0.1, **change)
    monkeypatch.setattr('basicsr_distill.models.minimax_dit_model.training_cost', lambda *given: 'not counted')
    opt = to_experiment(Recipe.parse(tmp_path / 'x.yml', options), is_train=True, root=tmp_path).opt
    model = on_cuda(opt, monkeypatch)
    for iteration in (1, 2):
        model.feed_data(
            {
                'latent': torch.zeros(4, 16, 4, 4),
                'noise': torch.zeros(4, 16, 4, 4),
                'label': torch.zeros(4, dtype=torch.int64),
                'time': torch.zeros(4),
                'drop': torch.zeros(4),
            }
        )
        model.optimize_parameters(iteration)
    assert devices(model.trained) == {'cuda'} == devices(p.grad for p in model.trained if p.grad is not None)


@pytest.mark.parametrize('scheduler', ['ddpm', 'ddim'])
@in_a_process
def test_a_draw(scheduler: str) -> None:
    net = moved(build_dit(MinimaxDiTNetworkOptions(num_labels=2, tuning='full', from_scratch=dict(SCRATCH))), CUDA)
    settings = SamplerSettings(scheduler=scheduler, num_steps=3, guidance_scale=2.0)
    latents = sample_latents(
        net,
        torch.zeros(2, dtype=torch.int64, device=CUDA),
        (16, 4, 4),
        [image_generator(0, 0, index) for index in range(2)],
        settings,
        learns_variance=True,
    )
    assert latents.device.type == 'cuda' and latents.shape == (2, 16, 4, 4)


@in_a_process
def test_an_encode_and_a_decode() -> None:
    network = AutoencoderKL(
        block_out_channels=(8, 8),
        norm_num_groups=4,
        down_block_types=('DownEncoderBlock2D',) * 2,
        up_block_types=('UpDecoderBlock2D',) * 2,
    )
    kl = moved(_Autoencoder(network, 2, torch.float32), CUDA)
    pca = moved(unfitted_block_pca(BlockPcaCodecOptions(components=16)), CUDA)
    assert isinstance(pca, BlockPca)
    for codec in (kl, pca):
        mean, std = codec.encode(torch.zeros(2, 3, 32, 32, device=CUDA))
        assert mean.device.type == std.device.type == 'cuda'
        assert codec.decode(mean).device.type == 'cuda'
    assert np.prod(mean.shape[1:]) > 0
