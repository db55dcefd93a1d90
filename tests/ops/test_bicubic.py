import math

import numpy as np
import pytest
import torch
from skimage import data

from basicsr_distill.ops.bicubic import bicubic_downsample, bicubic_upsample, high_pass, make_lr


@pytest.fixture(scope='module')
def photo() -> torch.Tensor:
    return torch.from_numpy(data.astronaut()).permute(2, 0, 1).float() / 255


@pytest.mark.parametrize('size', [(64, 64), (65, 71), (33, 40), (200, 301)])
@pytest.mark.parametrize('scale', [2, 3, 4])
def test_downsampling_equals_basicsr(photo: torch.Tensor, size: tuple[int, int], scale: int) -> None:
    from basicsr.utils.matlab_functions import imresize

    image = photo[:, : size[0], : size[1]]
    torch.testing.assert_close(bicubic_downsample(image, scale), imresize(image, 1 / scale), rtol=0, atol=4e-7)


# At x3 the host computes coordinates in float32 and is itself up to 4e-5 off.
@pytest.mark.parametrize(('scale', 'tolerance'), [(2, 4e-7), (3, 5e-5), (4, 4e-7)])
def test_upsampling_equals_basicsr(photo: torch.Tensor, scale: int, tolerance: float) -> None:
    from basicsr.utils.matlab_functions import imresize

    image = photo[:, 100:151, 200:233]
    torch.testing.assert_close(bicubic_upsample(image, scale), imresize(image, float(scale)), rtol=0, atol=tolerance)


def plain_resize(row: list[float], scale: int, up: bool) -> list[float]:
    """One axis by the definition: kernel of Keys, mirrored borders, weights normalised, one sample at a time."""

    def kernel(x: float) -> float:
        x = abs(x)
        if x <= 1:
            return 1.5 * x**3 - 2.5 * x**2 + 1
        return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x < 2 else 0.0

    def mirrored(i: int) -> float:
        while not 0 <= i < len(row):
            i = -1 - i if i < 0 else 2 * len(row) - 1 - i
        return row[i]

    count = len(row) * scale if up else math.ceil(len(row) / scale)
    stretch = 1 if up else scale
    result = []
    for j in range(count):
        centre = (j + 0.5) / scale - 0.5 if up else (j + 0.5) * scale - 0.5
        near = range(math.floor(centre) - 2 * stretch - 1, math.floor(centre) + 2 * stretch + 3)
        weights = [kernel((centre - i) / stretch) for i in near]
        result.append(sum(w * mirrored(i) for w, i in zip(weights, near)) / sum(weights))
    return result


@pytest.mark.parametrize('length', [1, 2, 5, 13, 700])
@pytest.mark.parametrize('scale', [1, 2, 3, 4, 8])
@pytest.mark.parametrize('up', [False, True])
def test_one_axis_equals_the_definition_at_any_length(length: int, scale: int, up: bool) -> None:
    row = torch.rand(length, dtype=torch.float64, generator=torch.Generator().manual_seed(length))
    resize = bicubic_upsample if up else bicubic_downsample
    expected = torch.tensor(plain_resize(row.tolist(), scale, up), dtype=torch.float64)
    torch.testing.assert_close(resize(row.expand(1, -1), scale)[0], expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(resize(row.expand(1, -1).mT, scale)[:, 0], expected, rtol=0, atol=1e-12)


def test_gradients_and_any_leading_dimensions() -> None:
    x = torch.rand(2, 1, 3, 9, 7, dtype=torch.float64, requires_grad=True)
    assert bicubic_downsample(x, 4).shape == (2, 1, 3, 3, 2)
    assert torch.autograd.gradcheck(lambda t: bicubic_upsample(bicubic_downsample(t, 4), 2), x[0, 0, 0])


def test_weights_made_under_inference_mode_serve_training() -> None:
    with torch.inference_mode():
        bicubic_downsample(torch.rand(1, 37, 37), 4)
    x = torch.rand(1, 37, 37, requires_grad=True)
    bicubic_downsample(x, 4).sum().backward()
    assert x.grad is not None


def test_half_precision_is_computed_in_float32(photo: torch.Tensor) -> None:
    x = photo[:, :64, :64].bfloat16()
    with torch.autocast('cpu', dtype=torch.bfloat16):
        result = bicubic_downsample(x, 4)
    assert result.dtype == torch.bfloat16
    assert torch.equal(result, bicubic_downsample(x.float(), 4).bfloat16())


def test_make_lr_rounds_and_clips_what_basicsr_computes() -> None:
    from basicsr.utils.matlab_functions import imresize

    hr = data.coffee()[:101, :102]
    exact = imresize(hr / np.float32(255), 1 / 4) * 255
    lr = make_lr(hr, 4)
    assert lr.shape == (26, 26, 3)
    assert lr.dtype == np.uint8
    assert lr.flags.c_contiguous
    # Half a level, and what float32 leaves of it where a value lies between two levels.
    assert np.abs(lr - np.clip(exact, 0, 255)).max() <= 0.5001
    stripes = np.zeros((32, 32, 3), np.uint8)
    stripes[:, 16:] = 255
    edge = make_lr(stripes, 4)[0, :, 0].astype(int)
    assert edge[0] == 0
    assert edge[-1] == 255
    assert (np.diff(edge) >= 0).all(), 'the overshoot beside an edge must be clipped, not wrap around'


def test_refuses_sizes_it_cannot_resize() -> None:
    with pytest.raises(ValueError, match='cannot be resized'):
        bicubic_downsample(torch.zeros(3, 0, 4), 4)
    with pytest.raises(ValueError, match='cannot be resized'):
        bicubic_upsample(torch.zeros(3, 4, 4), 0)


@pytest.mark.parametrize('size', [(32, 32), (30, 17)])
def test_high_pass_keeps_what_resizing_loses(photo: torch.Tensor, size: tuple[int, int]) -> None:
    from basicsr.utils.matlab_functions import imresize

    x = photo[:, : size[0], : size[1]]
    low = imresize(imresize(x, 1 / 4), 4.0)[:, : size[0], : size[1]]
    torch.testing.assert_close(high_pass(x), x - low, rtol=0, atol=1e-6)
