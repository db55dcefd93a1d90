"""What newer libraries have changed or removed."""

import difflib
import inspect
import os
from functools import partial
from typing import Any

import numpy as np
import torch

from basicsr_distill.errors import InputError
from basicsr_distill.host.patches.table import HostFunction, patch
from basicsr_distill.io.weights import load_weights


@patch(
    'basicsr.models.base_model:BaseModel.get_optimizer',
    'models/base_model.py:107',
    'knows Adam only',
    'basicsr train -opt options/distill/demo.yml',
)
def _get_optimizer(original: HostFunction) -> HostFunction:
    def get_optimizer(self: Any, optim_type: str, params: Any, lr: float, **kwargs: Any) -> torch.optim.Optimizer:
        """Any class of torch.optim by its exact name."""
        classes: dict[str, Any] = {
            name: value
            for name, value in vars(torch.optim).items()
            if inspect.isclass(value) and issubclass(value, torch.optim.Optimizer) and name != 'Optimizer'
        }
        if optim_type not in classes:
            by_lower_case = {name.lower(): name for name in classes}
            nearest = difflib.get_close_matches(str(optim_type).lower(), by_lower_case, n=1, cutoff=0)
            raise InputError(
                f'train: optimizer type {optim_type} is not one of torch.optim; '
                f'did you mean {by_lower_case[nearest[0]]}?'
            )
        optimizer = classes[optim_type]
        try:
            inspect.signature(optimizer).bind(params, lr=lr, **kwargs)
        except TypeError as error:
            raise InputError(f'train: optimizer {optim_type}: {error}.') from error
        return optimizer(params, lr=lr, **kwargs)

    return get_optimizer


@patch(
    'basicsr.data.degradations:add_jpg_compression',
    'data/degradations.py:745',
    'OpenCV 5 takes integer parameters only; earlier ones cut the fraction off',
    'basicsr train -opt options/train/RealESRGAN/train_RealESRGAN_blind_x4_distilled.yml',
)
def _add_jpg_compression(original: HostFunction) -> HostFunction:
    def add_jpg_compression(img: np.ndarray, quality: float = 90) -> np.ndarray:
        return original(img, int(quality))

    return add_jpg_compression


@patch(
    'basicsr.utils.logger:init_wandb_logger',
    'utils/logger.py:138',
    'wandb 0.31 removed wandb.util.generate_id',
    'basicsr train -opt options/train/EDSR/train_EDSR_Mx4_DIV2K.yml --force_yml logger:wandb:project=mine',
)
def _init_wandb_logger(original: HostFunction) -> HostFunction:
    def init_wandb_logger(opt: dict[str, Any]) -> None:
        import secrets

        import wandb  # type: ignore[import-not-found]

        if not hasattr(wandb.util, 'generate_id'):
            wandb.util.generate_id = partial(secrets.token_hex, 4)
        original(opt)

    return init_wandb_logger


@patch(
    'basicsr.archs.vgg_arch:VGGFeatureExtractor.__init__',
    'archs/vgg_arch.py:103',
    'ends in a traceback of the downloader, or of the unpickler, where weights are missing or damaged',
    'basicsr train -opt options/train/RealESRGAN/train_RealESRGAN_x4_distilled.yml, without the weights of VGG',
)
def _vgg_init(original: HostFunction) -> HostFunction:
    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        from basicsr.archs.vgg_arch import VGG_PRETRAIN_PATH

        if os.path.exists(VGG_PRETRAIN_PATH):
            load_weights(VGG_PRETRAIN_PATH)  # refuses what is damaged or unsafe with a sentence
        try:
            original(self, *args, **kwargs)
        except OSError as error:
            raise InputError(
                f'train: perceptual_opt: the VGG weights cannot be downloaded ({error}); put '
                f'{os.path.basename(VGG_PRETRAIN_PATH)} from https://download.pytorch.org/models/ at '
                f'{os.path.abspath(VGG_PRETRAIN_PATH)}.'
            ) from error

    return init
