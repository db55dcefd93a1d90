"""Differentiable siamese augmentation: two batches are compared after the very same change of view and colour.

Source: Zhao and Bilen (2021), "Dataset Condensation with Differentiable Siamese Augmentation"; the ranges are its own.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

_MAX_BRIGHTNESS = 0.5
_MAX_SATURATION = 2.0
_CONTRAST = (0.5, 1.5)
_MAX_SHIFT = 0.125
_MAX_SCALE = 1.2
_MAX_DEGREES = 15.0
CUTOUT_SHARE = 0.5


@dataclass(frozen=True)
class Augmentation:
    """One change, for all images alike; the defaults change nothing.

    >>> Augmentation(flip=True, degrees=15.0).brightness
    0.0
    """

    brightness: float = 0.0  # added
    saturation: float = 1.0  # factor of the distance to the grey value
    contrast: float = 1.0  # factor of the distance to the image's mean
    flip: bool = False  # left to right
    shift: tuple[float, float] = (0.0, 0.0)  # right and down, shares of the image's sides; what comes in is black
    scale: tuple[float, float] = (1.0, 1.0)  # of what is seen, across and down
    degrees: float = 0.0  # turn, counterclockwise
    # Centre of a black square of half the side, as shares of the image's sides (across, down); none when absent.
    cutout: tuple[float, float] | None = None


def draw_augmentation(generator: torch.Generator, cutout: bool = True) -> Augmentation:
    """One kind of change at random, from its range; the three of colour are one kind.

    A flip is one that happens half of the time.

    Source: Zhao and Bilen (2021), who draw one of colour, crop (here a shift), cutout, flip, scale and rotation.

    >>> draw_augmentation(torch.Generator().manual_seed(0)) == draw_augmentation(torch.Generator().manual_seed(0))
    True

    Args:
        generator: on the CPU, so that every device and rank draws the same.
        cutout: let a black square be one of the kinds.
    """
    kind = int(torch.randint(6 if cutout else 5, (), generator=generator))
    u = torch.rand(3, generator=generator, dtype=torch.float64).tolist()
    centred = [2 * value - 1 for value in u]
    return (
        Augmentation(
            brightness=centred[0] * _MAX_BRIGHTNESS,
            saturation=u[1] * _MAX_SATURATION,
            contrast=_CONTRAST[0] + u[2] * (_CONTRAST[1] - _CONTRAST[0]),
        ),
        Augmentation(flip=u[0] < 0.5),
        Augmentation(shift=(centred[0] * _MAX_SHIFT, centred[1] * _MAX_SHIFT)),
        Augmentation(scale=(_MAX_SCALE ** centred[0], _MAX_SCALE ** centred[1])),
        Augmentation(degrees=centred[0] * _MAX_DEGREES),
        Augmentation(cutout=(u[0], u[1])),
    )[kind]


def augment(images: Tensor, change: Augmentation) -> Tensor:
    """Change images; differentiable with respect to them.

    >>> images = torch.arange(3.0).expand(1, 3, 1, 3)
    >>> augment(images, Augmentation(flip=True))[0, 0].tolist()
    [[2.0, 1.0, 0.0]]

    Args:
        images: (N, 3, H, W), floating point, RGB, meant for [0, 1]; nothing is clipped.
        change: what is done to all of them.

    Returns:
        (N, 3, H, W), of the dtype of ``images``.
    """
    images = images + change.brightness
    grey = images.mean(1, keepdim=True)
    images = grey + change.saturation * (images - grey)
    mean = images.mean((1, 2, 3), keepdim=True)
    images = mean + change.contrast * (images - mean)
    if change.flip:
        images = images.flip(-1)
    images = _move(images, change)
    return images if change.cutout is None else images * _cutout_mask(images, change.cutout)


def _move(images: Tensor, change: Augmentation) -> Tensor:
    """Shift, scale and turn in one resampling, bilinear; none where nothing moves."""
    if change.shift == (0.0, 0.0) and change.scale == (1.0, 1.0) and change.degrees == 0.0:
        return images
    height, width = images.shape[-2:]
    cos, sin = math.cos(math.radians(change.degrees)), math.sin(math.radians(change.degrees))
    across, down = change.scale
    # From a place in the result to one in the source, in coordinates of [-1, 1] along each side.
    turn = torch.tensor(
        [[cos / across, -sin * height / width / across], [sin * width / height / down, cos / down]],
        dtype=images.dtype,
        device=images.device,
    )
    shift = torch.tensor([2 * change.shift[0], 2 * change.shift[1]], dtype=images.dtype, device=images.device)
    theta = torch.cat([turn, -(turn @ shift)[:, None]], 1).expand(len(images), 2, 3)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode='bilinear', padding_mode='zeros', align_corners=False)


def _cutout_mask(images: Tensor, centre: tuple[float, float]) -> Tensor:
    """0 inside the square, 1 outside, (H, W)."""
    sides = []
    for length, share in zip(images.shape[-2:], (centre[1], centre[0])):
        places = torch.arange(length, device=images.device)
        first = int(share * length) - int(CUTOUT_SHARE * length) // 2
        sides.append((places >= first) & (places < first + int(CUTOUT_SHARE * length)))
    return (~(sides[0][:, None] & sides[1][None, :])).to(images.dtype)
