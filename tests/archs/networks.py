"""The networks under test, as option files give them, and shrunk ones that run in milliseconds."""

from typing import Any

import torch
from basicsr.archs import build_network
from torch import nn

HIT = ('HiT_SIR', 'HiT_SNG', 'HiT_SRF')
SR_ARCHS = ('SRFormer', *HIT)

# Published option files, word for word but for the scale.
_COMMON: dict[str, Any] = {'in_chans': 3, 'img_range': 1.0, 'resi_connection': '1conv'}
_LIGHT = {**_COMMON, 'img_size': 64, 'depths': [6] * 4, 'embed_dim': 60, 'num_heads': [6] * 4}
_CLASSICAL = {**_COMMON, 'depths': [6] * 6, 'embed_dim': 180, 'num_heads': [6] * 6, 'mlp_ratio': 2}
PUBLISHED: dict[str, dict[str, Any]] = {
    'SRFormer-light': {
        **_LIGHT,
        'type': 'SRFormer',
        'window_size': 16,
        'mlp_ratio': 2,
        'upsampler': 'pixelshuffledirect',
    },
    'SRFormer-w24': {
        **_CLASSICAL,
        'type': 'SRFormer',
        'img_size': 48,
        'window_size': 24,
        'upsampler': 'pixelshuffle',
    },
    'SRFormer-w22': {
        **_CLASSICAL,
        'type': 'SRFormer',
        'img_size': 64,
        'window_size': 22,
        'upsampler': 'pixelshuffle',
    },
} | {
    name: {
        **_LIGHT,
        'type': name,
        'base_win_size': [8, 8],
        'expansion_factor': 2,
        'hier_win_ratios': [0.5, 1, 2, 4, 6, 8],
        'upsampler': 'pixelshuffledirect',
    }
    for name in HIT
}

SHRUNK: dict[str, dict[str, Any]] = {
    'SRFormer': {'type': 'SRFormer', 'img_size': 16, 'window_size': 8, 'embed_dim': 24},
    **{name: {'type': name, 'hier_win_ratios': [0.5, 2], 'embed_dim': 24} for name in HIT},
}


def published(name: str, upscale: int) -> nn.Module:
    """A network at full size."""
    return build_network({**PUBLISHED[name], 'upscale': upscale})


def shrunk(name: str, upscale: int = 2, seed: int = 0, **options: Any) -> nn.Module:
    """A network of one group of two blocks, with weights large enough for every term to show in the output."""
    torch.manual_seed(seed)
    net = build_network({'upscale': upscale, 'depths': [2], 'num_heads': [2], **SHRUNK[name], **options})
    return scatter(net)


def scatter(net: nn.Module, std: float = 0.3) -> nn.Module:
    """Draw all parameters anew: initial ones hide mistakes, being tiny, zero or one."""
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=std)
    return net
