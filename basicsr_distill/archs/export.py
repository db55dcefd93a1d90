"""Networks as ONNX with dynamic height and width.

Written by torch's tracing exporter. The newer one, built on ``torch.export``, fails on window transformers, whose
padding and masks follow from the size of the image. A trace follows one way through every branch, so the image traced
is of odd, prime sizes: all padding is needed then, and padding by nothing is what other sizes make of it.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from basicsr_distill.archs._windows import reflect_pad
from basicsr_distill.archs.hit_arch import SpatialChannelCorrelation

_OPSET = 17
_TRACED_PX = (37, 41)


class AnySize(nn.Module):
    """A network that needs multiples of some size, on images of any size: padded by reflection and cropped again.

    Args:
        network: maps (N, C, H, W) to (N, C', scale * H, scale * W).
        multiple_px: of H and W that it needs.
        scale: integer factor.
    """

    def __init__(self, network: nn.Module, multiple_px: int, scale: int) -> None:
        super().__init__()
        self.network = network
        self.multiple_px = multiple_px
        self.scale = scale

    def forward(self, lq: Tensor) -> Tensor:
        """Super-resolve (N, C, H, W), float32."""
        height, width = lq.shape[2], lq.shape[3]
        sr = self.network(reflect_pad(lq, self.multiple_px, dims=(2, 3)))
        return sr[..., : height * self.scale, : width * self.scale]


def needed_multiple(section: dict[str, Any]) -> int:
    """Of which BasicSR's own networks need the sides of an image to be a multiple, pixels.

    SwinIR's model pads outside of the network; RRDBNet of x2 and x1 moves pixels into channels.
    """
    if section['type'] == 'SwinIR':
        return int(section.get('window_size', 7))
    if section['type'] == 'RRDBNet':
        return {2: 2, 1: 4}.get(section.get('scale', 4), 1)
    return 1


def export_onnx(network: nn.Module, path: Path, in_channels: int = 3) -> None:
    """Write a network in ``eval`` mode as ONNX: ``lq`` (1, C, H, W) in, ``sr`` out, float32.

    Args:
        network: takes images of any size.
        path: of the file to write.
        in_channels: C.
    """
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(1, in_channels, *_TRACED_PX, generator=generator)
    axes = {2: 'height', 3: 'width'}
    with torch.no_grad(), warnings.catch_warnings(), _constant_position_biases(network):
        warnings.simplefilter('ignore')  # that sizes are taken for constants, which the prime ones above allow
        torch.onnx.export(
            network,
            (image,),
            str(path),
            dynamo=False,
            opset_version=_OPSET,
            input_names=['lq'],
            output_names=['sr'],
            dynamic_axes={'lq': axes, 'sr': {2: 'sr_height', 3: 'sr_width'}},
        )


@contextmanager
def _constant_position_biases(network: nn.Module) -> Iterator[None]:
    """Position biases follow from the weights alone, by operations that ONNX lacks."""
    modules = [module for module in network.modules() if isinstance(module, SpatialChannelCorrelation)]
    for module in modules:
        vars(module)['position_bias'] = partial(torch.clone, module.position_bias().detach())
    try:
        yield
    finally:
        for module in modules:
            del vars(module)['position_bias']
