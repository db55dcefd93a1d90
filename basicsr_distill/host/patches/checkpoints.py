"""Checkpoints: safe to load, whatever their format."""

from typing import Any

import torch
from basicsr.archs.rrdbnet_arch import RRDBNet
from basicsr.utils import get_root_logger

from basicsr_distill.errors import InputError
from basicsr_distill.host.patches.table import HostFunction, patch
from basicsr_distill.io.weights import load_weights


@patch(
    'basicsr.models.base_model:BaseModel.load_network',
    'models/base_model.py:290',
    "leaves safe loading to torch's default, and knows neither safetensors, bare state_dicts nor old key names",
    'basicsr test -opt options/test/EDSR/test_EDSR_Mx4.yml, from safetensors or a damaged file',
)
def _load_network(original: HostFunction) -> HostFunction:
    def load_network(
        self: Any, net: torch.nn.Module, load_path: str, strict: bool = True, param_key: str | None = 'params'
    ) -> None:
        """Load ``params``-style files, bare state_dicts and safetensors.

        Raises:
            InputError: the file is missing, damaged or unsafe, lacks the key, or does not fit the network.
        """
        net = self.get_bare_model(net)
        weights, used_key = _select_weights(load_weights(load_path), param_key, load_path)
        get_root_logger().info(f'Loading {type(net).__name__} from {load_path}, param key: {used_key}.')
        weights = {name.removeprefix('module.'): value for name, value in weights.items()}
        if isinstance(net, RRDBNet):
            from basicsr_distill.archs.rrdb_keys import convert_rrdb_state_dict

            weights = convert_rrdb_state_dict(weights)
        self._print_different_keys_loading(net, weights, strict)
        try:
            net.load_state_dict(weights, strict=strict)
        except RuntimeError as error:
            first = str(error).split('\n')[1].strip() if '\n' in str(error) else str(error)
            raise InputError(
                f'{load_path}: does not fit {type(net).__name__} ({first[:200]}); choose the network '
                'options it was made with, or set strict_load_g: false to load what fits.'
            ) from error

    return load_network


def _select_weights(loaded: dict[str, Any], param_key: str | None, path: str) -> tuple[dict[str, Any], str | None]:
    """The state_dict inside a checkpoint, and the key it lay under (None for the root)."""
    for key in (param_key, 'params'):
        if param_key is not None and key in loaded and isinstance(loaded[key], dict):
            return loaded[key], key
    if all(isinstance(value, torch.Tensor) for value in loaded.values()):
        return loaded, None
    raise InputError(
        f'{path}: no weights under {param_key!r}, only {", ".join(map(repr, list(loaded)[:5]))}; '
        'set param_key_g (or param_key_d) to one of these.'
    )
