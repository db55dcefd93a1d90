"""How hard each patch is for a small SR network that was trained on the pool for a minute."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from basicsr_distill.ops.bicubic import make_lr
from basicsr_distill.runtime.progress import progress

_BATCH = 16
_CROP_PX = 16  # of LR
_CHANNELS, _LAYERS = 32, 4


def measure_losses(
    count: int, image: Callable[[int], NDArray[np.uint8]], scale: int, iterations: int, seed: int
) -> NDArray[np.float64]:
    """Mean squared error of every patch after super-resolution by a network trained on all of them.

    Source: Moser et al. (2024, arXiv 2403.17083), with a small residual network in SRCNN's place.

    Args:
        count: N.
        image: patch by number, (H, W, 3), uint8, RGB; H and W are multiples of ``scale``.
        scale: between LR and HR.
        iterations: of Adam, batch 16, crops of 16 px of the LR image.
        seed: of weights, order and crops.

    Returns:
        (N,), float64, pixels in [0, 1].
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = _Network(scale)
        optimizer = torch.optim.Adam(network.parameters(), 1e-3)
        with progress(iterations, 'select: train a small network', 'iteration') as bar:
            for _ in range(iterations):
                lr, hr = zip(*(_crop(image(int(number)), scale) for number in torch.randint(count, (_BATCH,))))
                loss = functional.l1_loss(network(torch.stack(lr)), torch.stack(hr))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                bar.update()
    losses = np.empty(count)
    with torch.inference_mode(), progress(count, 'select: losses', 'patch') as bar:
        for number in range(count):  # one by one: the batch would decide the last bits
            rgb = image(number)
            output = network(_tensor(make_lr(rgb, scale))[None])[0]
            losses[number] = float((output - _tensor(rgb)).square().mean(dtype=torch.float64))
            bar.update()
    return losses


class _Network(nn.Module):
    """A residual on the bicubic enlargement."""

    def __init__(self, scale: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, _CHANNELS, 3, padding=1)]
        for _ in range(_LAYERS):
            layers += [nn.ReLU(), nn.Conv2d(_CHANNELS, _CHANNELS, 3, padding=1)]
        self.body = nn.Sequential(
            *layers, nn.ReLU(), nn.Conv2d(_CHANNELS, 3 * scale**2, 3, padding=1), nn.PixelShuffle(scale)
        )
        self.scale = scale

    def forward(self, lr: Tensor) -> Tensor:
        enlarged = functional.interpolate(lr, scale_factor=self.scale, mode='bicubic', align_corners=False)
        return enlarged + self.body(lr)


def _crop(rgb: NDArray[np.uint8], scale: int) -> tuple[Tensor, Tensor]:
    lr = make_lr(rgb, scale)
    size = min(_CROP_PX, *lr.shape[:2])
    top, left = (int(torch.randint(length - size + 1, ())) for length in lr.shape[:2])
    hr = rgb[top * scale : (top + size) * scale, left * scale : (left + size) * scale]
    return _tensor(lr[top : top + size, left : left + size]), _tensor(hr)


def _tensor(rgb: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(rgb.transpose(2, 0, 1))).float() / 255
