"""What newer libraries have changed or removed."""

import difflib
import inspect
from functools import partial
from typing import Any

import torch

from basicsr_distill.errors import InputError
from basicsr_distill.host.patches.table import HostFunction, patch


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
