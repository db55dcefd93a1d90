"""Augmentation against plain loops, and its gradient."""

import math
from collections import Counter

import pytest
import torch

from basicsr_distill.ops.siamese_augmentation import Augmentation, augment, draw_augmentation

EVERYTHING = Augmentation(
    brightness=0.1,
    saturation=0.4,
    contrast=1.3,
    flip=True,
    shift=(0.1, 0.05),
    scale=(1.1, 0.9),
    degrees=10.0,
    cutout=(0.3, 0.6),
)


@pytest.fixture
def images():
    return torch.rand(2, 3, 8, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_the_default_changes_no_bit(images):
    assert torch.equal(augment(images, Augmentation(contrast=1.0)), augment(images, Augmentation()))
    torch.testing.assert_close(augment(images, Augmentation()), images)


def test_colours(images):
    changed = augment(images, Augmentation(brightness=0.1, saturation=0.4, contrast=1.3))
    for n in range(2):
        values = (images[n] + 0.1).tolist()
        greys = [[sum(values[c][y][x] for c in range(3)) / 3 for x in range(12)] for y in range(8)]
        dull = [
            [[greys[y][x] + 0.4 * (values[c][y][x] - greys[y][x]) for x in range(12)] for y in range(8)]
            for c in range(3)
        ]
        mean = sum(v for plane in dull for row in plane for v in row) / (3 * 8 * 12)
        expected = [[[mean + 1.3 * (v - mean) for v in row] for row in plane] for plane in dull]
        torch.testing.assert_close(changed[n], torch.tensor(expected, dtype=torch.float64))


def test_shift_moves_whole_pixels_in_from_black(images):
    changed = augment(images, Augmentation(shift=(3 / 12, -2 / 8)))
    expected = torch.zeros_like(images)
    for y in range(8):
        for x in range(12):
            if y + 2 < 8 and x - 3 >= 0:
                expected[:, :, y, x] = images[:, :, y + 2, x - 3]
    torch.testing.assert_close(changed, expected)


def bilinear(plane, y, x):
    """The value at a place, black outside."""
    total = 0.0
    for row in (math.floor(y), math.floor(y) + 1):
        for column in (math.floor(x), math.floor(x) + 1):
            if 0 <= row < len(plane) and 0 <= column < len(plane[0]):
                total += (1 - abs(y - row)) * (1 - abs(x - column)) * plane[row][column]
    return total


def test_turn_and_scale_about_the_centre(images):
    change = Augmentation(degrees=20, scale=(1.2, 0.9), shift=(0.05, 0.1))
    changed = augment(images, change)
    cos, sin = math.cos(math.radians(20)), math.sin(math.radians(20))
    plane = images[1, 2].tolist()
    for y in range(8):
        for x in range(12):
            # Pixels from the shifted centre, turned back, then shrunk back.
            down, across = y + 0.5 - 4 - 0.1 * 8, x + 0.5 - 6 - 0.05 * 12
            source_x = (cos * across - sin * down) / 1.2 + 6 - 0.5
            source_y = (sin * across + cos * down) / 0.9 + 4 - 0.5
            assert changed[1, 2, y, x].item() == pytest.approx(bilinear(plane, source_y, source_x), abs=1e-9)


def test_a_quarter_turn_is_rot90():
    square = torch.rand(1, 3, 6, 6, dtype=torch.float64)
    torch.testing.assert_close(augment(square, Augmentation(degrees=90)), square.rot90(1, (2, 3)))


def test_cutout_is_a_black_square_of_half_the_side(images):
    changed = augment(images + 1, Augmentation(cutout=(0.5, 0.0)))
    black = (changed == 0).all(1)[0]
    assert black.sum() == 2 * 6 and black[:2, 3:9].all()  # centred on the upper edge, half of it outside


def test_both_batches_change_alike(images):
    both = augment(torch.cat([images, images.flip(0)]), EVERYTHING)
    torch.testing.assert_close(both[:2], augment(images, EVERYTHING))
    torch.testing.assert_close(both[2:], augment(images, EVERYTHING).flip(0))


KINDS = {
    'colour': ('brightness', 'saturation', 'contrast'),
    'flip': ('flip',),
    'shift': ('shift',),
    'scale': ('scale',),
    'rotate': ('degrees',),
    'cutout': ('cutout',),
}


def kinds_of(change):
    """Which kinds of change an augmentation holds; none is a flip that did not happen."""
    return {
        kind
        for kind, names in KINDS.items()
        if any(getattr(change, name) != getattr(Augmentation(), name) for name in names)
    } or {'no flip'}


@pytest.mark.parametrize('cutout', [True, False])
def test_one_kind_of_change_is_drawn_each_as_often(cutout):
    generator = torch.Generator().manual_seed(0)
    drawn = [kinds_of(draw_augmentation(generator, cutout)) for _ in range(6000)]
    assert all(len(kinds) == 1 for kinds in drawn)
    counts = Counter(kind for kinds in drawn for kind in kinds)
    each = 6000 / (6 if cutout else 5)
    assert set(counts) == {*KINDS, 'no flip'} - (set() if cutout else {'cutout'})
    for kind, count in counts.items():
        share = each / 2 if kind in ('flip', 'no flip') else each
        assert abs(count - share) < 5 * share**0.5, kind


def test_drawn_changes_keep_to_their_ranges():
    generator = torch.Generator().manual_seed(0)
    drawn = [draw_augmentation(generator) for _ in range(3000)]
    for kind, name, low, high in (
        ('colour', 'brightness', -0.5, 0.5),
        ('colour', 'saturation', 0, 2),
        ('colour', 'contrast', 0.5, 1.5),
        ('rotate', 'degrees', -15, 15),
    ):
        values = [getattr(change, name) for change in drawn if kinds_of(change) == {kind}]
        assert low <= min(values) < low + 0.1 * (high - low) and high - 0.1 * (high - low) < max(values) <= high
    for name, low, high in (('shift', -0.125, 0.125), ('scale', 1 / 1.2, 1.2)):
        for side in (0, 1):
            values = [getattr(change, name)[side] for change in drawn]
            assert low <= min(values) < 0.9 * low + 0.1 * high and 0.1 * low + 0.9 * high < max(values) <= high


def test_gradients_reach_the_images(images):
    assert torch.autograd.gradcheck(lambda x: augment(x, EVERYTHING), images[:1, :, :5, :5].clone().requires_grad_())
