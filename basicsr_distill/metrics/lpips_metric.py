"""LPIPS as a metric of BasicSR.

Source: Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric", CVPR 2018.
"""

import warnings
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from basicsr.metrics.metric_util import reorder_image
from basicsr.utils.registry import METRIC_REGISTRY
from numpy.typing import NDArray

from basicsr_distill.errors import InputError
from basicsr_distill.features.backbones import backbone_file
from basicsr_distill.io.weights import load_weights

_BACKBONES = {'alex': 'alexnet', 'vgg': 'vgg16', 'squeeze': 'squeezenet1_1'}
# Below this the backbones' pooling leaves no pixel.
MIN_SIZE_PX = 32


@METRIC_REGISTRY.register()
def calculate_lpips(
    img: NDArray[Any],
    img2: NDArray[Any],
    crop_border: int,
    input_order: str,
    net: str,
    weights: str | None,
    better: str,
) -> float:
    """LPIPS version 0.1 of two images by the ``lpips`` package; 0 for equal images, lower is better.

    Args:
        img: (H, W, 3) BGR or (H, W) grey, range [0, 255], at least 32 px a side after cropping.
        img2: the same of the other image.
        crop_border: pixels cut off each side.
        input_order: ``HWC`` or ``CHW``.
        net: backbone, ``alex``, ``vgg`` or ``squeeze``.
        weights: a local file, see :func:`load_lpips`.
        better: which way is better; read from the option file by validation alone.

    Raises:
        InputError: the weights cannot be had, or the images are too small.
    """
    if img.shape != img2.shape:
        raise ValueError(f'LPIPS of images of different shapes, {img.shape} and {img2.shape}')
    model = load_lpips(net, weights)
    device = next(model.parameters()).device
    first, second = (_to_tensor(reorder_image(image, input_order), crop_border).to(device) for image in (img, img2))
    if min(first.shape[-2:]) < MIN_SIZE_PX:
        raise InputError(
            f'calculate_lpips: images of {first.shape[-1]}x{first.shape[-2]} after cropping are too small; '
            f'LPIPS needs {MIN_SIZE_PX} pixels a side.'
        )
    with torch.no_grad():
        return float(model(first, second))


def _to_tensor(image: NDArray[Any], crop_border: int) -> torch.Tensor:
    """(H, W, C) BGR in [0, 255] to (1, 3, H, W) RGB in [-1, 1]."""
    inner = slice(crop_border, -crop_border or None)
    rgb = np.ascontiguousarray(image[inner, inner, ::-1].transpose(2, 0, 1), dtype=np.float32)
    return torch.from_numpy(rgb / 127.5 - 1).expand(3, -1, -1)[None]


@lru_cache(maxsize=2)
def load_lpips(net: str, weights: str | None) -> torch.nn.Module:
    """The LPIPS network, on the GPU where there is one.

    Args:
        net: ``alex``, ``vgg`` or ``squeeze``.
        weights: a file of torchvision's weights of the backbone (the package brings the heads), or of a whole
            ``lpips.LPIPS``; None for :func:`~basicsr_distill.features.backbones.backbone_file`.

    Raises:
        InputError: the weights cannot be had, or are not those of this network.
    """
    import lpips

    path = weights or backbone_file(_BACKBONES[net])
    loaded = load_weights(path)
    with warnings.catch_warnings():  # the package calls torchvision by its old keywords
        warnings.simplefilter('ignore')
        model = lpips.LPIPS(net=net, pnet_rand=True, verbose=False)
    own = model.state_dict()
    if not any(key.startswith('net.slice') for key in loaded):
        # The package keeps torchvision's numbers of layers: net.slice2.3.weight is features.3.weight.
        backbone = {key: f'features.{key.split(".", 2)[2]}' for key in own if key.startswith('net.slice')}
        loaded = {key: loaded.get(backbone[key]) if key in backbone else value for key, value in own.items()}
    for key, value in own.items():
        if loaded.get(key) is None or loaded[key].shape != value.shape:
            raise InputError(f'{path}: not the weights of {_BACKBONES[net]} or of LPIPS with it ({key} does not fit)')
    model.load_state_dict({key: loaded[key] for key in own})
    return model.to('cuda' if torch.cuda.is_available() else 'cpu')
