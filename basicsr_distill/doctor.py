"""``basicsr doctor``: what is installed, what computes, which weights are at hand, and what to do about the rest."""

import importlib.util
import os
import platform
import re
import shutil
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from basicsr_distill import __version__
from basicsr_distill.host import hooks

_OPTIONAL = {'tensorboard': ('use_tb_logger: true', 'tb-nightly'), 'wandb': ('logger.wandb', 'wandb')}
# What the recipes ask for, where the Hugging Face hub keeps it, and where to get it.
_HUB_WEIGHTS = (
    'facebook/DiT-XL-2-256',
    'facebook/DiT-XL-2-512',
    'stabilityai/sd-vae-ft-mse',
    'madebyollin/taesd',
    'timm/vit_base_patch32_clip_224.openai',
)
_LOCAL_WEIGHTS = {
    'experiments/pretrained_models/vgg19-dcbb9e9d.pth': 'perceptual losses (ESRGAN, Real-ESRGAN, RealSR)',
    'experiments/pretrained_models/alexnet-owt-7be5be79.pth': 'calculate_lpips',
}


def report() -> int:
    """Print the report.

    Returns:
        0 when training can start, 1 when something required is missing.
    """
    healthy = _packages()
    if healthy:
        _devices()
        _host()
    _weights()
    print('\nready' if healthy else '\nnot ready: install what is marked above')
    return 0 if healthy else 1


def _packages() -> bool:
    print(f'basicsr-distill {__version__}, Python {platform.python_version()}, {platform.platform()}')
    complete = True
    required = [re.split(r'[^\w-]', line)[0] for line in requires('basicsr-distill') or () if 'extra ==' not in line]
    for name in sorted({'basicsr', *required}):
        try:
            print(f'  {name:<18}{version(name)}')
        except PackageNotFoundError:
            complete = False
            hint = hooks.host_missing_message() if name == 'basicsr' else f'pip install {name}'
            print(f'  {name:<18}MISSING: {hint}')
    for module, (use, package) in _OPTIONAL.items():
        if importlib.util.find_spec(module) is None:
            print(f'  {module:<18}not installed (needed for {use}): pip install {package}')
    return complete


def _devices() -> None:
    import torch

    print(f'\ndevices: {os.cpu_count()} CPU cores, {torch.get_num_threads()} torch threads')
    if not torch.cuda.is_available():
        print('  no CUDA GPU: options that ask for one fall back to the CPU')
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        print(
            f'  cuda:{index} {properties.name}, {properties.total_memory / 2**30:.0f} GiB, bf16 '
            f'{"yes" if torch.cuda.is_bf16_supported() else "no"}'
        )
    free_gib = shutil.disk_usage(Path.cwd()).free / 2**30
    print(f'  {free_gib:.0f} GiB free in {Path.cwd()}')


def _host() -> None:
    import basicsr

    print(f'\nhost: BasicSR {basicsr.__version__} at {Path(basicsr.__file__).parent}')
    print(f'  patched: {", ".join(patch.name for patch in hooks.HOST_PATCHES)}')


def _weights() -> None:
    from huggingface_hub import constants, try_to_load_from_cache

    print(f'\nweights (hub cache: {constants.HF_HUB_CACHE})')
    for name in _HUB_WEIGHTS:
        files = ('config.json', 'model_index.json', 'open_clip_config.json')
        cached = any(isinstance(try_to_load_from_cache(name, file), str) for file in files)
        print(f'  {name:<50}{"cached" if cached else "not here; downloaded at first use, or give a local folder"}')
    for path, use in _LOCAL_WEIGHTS.items():
        print(f'  {path:<56}{"found" if Path(path).is_file() else f"not here; needed for {use}"}')
    pyiqa = 'is installed' if importlib.util.find_spec('pyiqa') else 'not installed: pip install basicsr-distill[iqa]'
    print(
        f'  extract.scores.metric: pyiqa (PolyForm Noncommercial 1.0.0) {pyiqa};\n'
        '    it downloads weights of chaofengc/IQA-PyTorch-Weights (CC BY-NC-SA 4.0) at first use'
    )
    print('  options/distill/demo.yml needs none of them')
