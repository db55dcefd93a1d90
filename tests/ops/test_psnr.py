import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data
from skimage.metrics import peak_signal_noise_ratio
from support import PROCESSORS, REPOSITORY

from basicsr_distill.ops.bicubic import bicubic_downsample, bicubic_upsample
from basicsr_distill.ops.psnr import psnr_after_bicubic


def crops() -> list[np.ndarray]:
    return [
        photo[top : top + 128, left : left + 96]
        for photo in (data.astronaut(), data.chelsea(), data.rocket())
        for top in (0, 131)
        for left in (3, 200, 310)
    ]


def as_batch(images: list[np.ndarray]) -> torch.Tensor:
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255


def psnr_by_basicsr(rgb: np.ndarray, luma: bool) -> float:
    from basicsr.utils.color_util import rgb2ycbcr
    from basicsr.utils.matlab_functions import imresize

    x = rgb.astype(np.float32) / 255
    x = rgb2ycbcr(x, y_only=True) if luma else x
    return peak_signal_noise_ratio(x.astype(np.float64), imresize(imresize(x, 1 / 4), 4.0), data_range=1)


def psnr_by_cv2(rgb: np.ndarray) -> float:
    grey = np.asarray(Image.fromarray(rgb).convert('L'), np.float32) / 255
    low = cv2.resize(grey, (grey.shape[1] // 4, grey.shape[0] // 4), interpolation=cv2.INTER_CUBIC)
    back = cv2.resize(low, grey.shape[::-1], interpolation=cv2.INTER_CUBIC)
    return peak_signal_noise_ratio(grey.astype(np.float64), back, data_range=1)


@pytest.mark.parametrize('metric', ['matlab_rgb', 'matlab_y', 'cv2_grey'])
def test_scores_equal_the_plain_path(metric: str) -> None:
    oracle = {
        'matlab_rgb': lambda rgb: psnr_by_basicsr(rgb, luma=False),
        'matlab_y': lambda rgb: psnr_by_basicsr(rgb, luma=True),
        'cv2_grey': psnr_by_cv2,
    }[metric]
    scores = psnr_after_bicubic(as_batch(crops()), scale=4, metric=metric)
    assert scores.dtype == torch.float32
    np.testing.assert_allclose(scores.numpy(), [oracle(rgb) for rgb in crops()], rtol=0, atol=1e-4)


@pytest.mark.parametrize('metric', ['matlab_rgb', 'matlab_y', 'cv2_grey'])
def test_flat_patches_are_infinite_at_every_level(metric: str) -> None:
    flat = torch.arange(256).view(-1, 1, 1, 1).expand(-1, 3, 16, 16) / 255
    assert torch.isinf(psnr_after_bicubic(flat, 4, metric)).all()


@pytest.mark.parametrize('metric', ['matlab_rgb', 'matlab_y', 'cv2_grey'])
def test_a_patch_one_level_from_flat_is_finite(metric: str) -> None:
    patch = torch.full((1, 3, 256, 256), 128 / 255)
    patch[..., 100:102, 100:102] += 4 / 255
    assert torch.isfinite(psnr_after_bicubic(patch, 4, metric)).all()


@pytest.mark.parametrize('metric', ['matlab_rgb', 'cv2_grey'])
@pytest.mark.parametrize('scale', [2, 3, 4])
@pytest.mark.parametrize('size', [(1, 1), (2, 5), (8, 6), (24, 40)])
def test_any_scale_and_any_size_equal_two_resizings(metric: str, scale: int, size: tuple[int, int]) -> None:
    height, width = size[0] * scale, size[1] * scale
    rgb = data.astronaut()[90 : 90 + height, 200 : 200 + width]
    if metric == 'matlab_rgb':
        x = torch.from_numpy(rgb / 255).permute(2, 0, 1)
        back = bicubic_upsample(bicubic_downsample(x, scale), scale)
    else:
        x = torch.from_numpy(np.asarray(Image.fromarray(rgb).convert('L'), np.float64) / 255)
        low = cv2.resize(x.numpy(), size[::-1], interpolation=cv2.INTER_CUBIC)
        back = torch.from_numpy(cv2.resize(low, (width, height), interpolation=cv2.INTER_CUBIC))
    expected = -10 * torch.log10((x - back).square().mean())
    score = psnr_after_bicubic(as_batch([rgb]), scale, metric)
    torch.testing.assert_close(score, expected.float()[None], rtol=0, atol=2e-4)


def test_patches_may_be_uint8() -> None:
    batch = as_batch(crops())
    for metric in ('matlab_rgb', 'matlab_y', 'cv2_grey'):
        torch.testing.assert_close(
            psnr_after_bicubic((batch * 255).round().to(torch.uint8), metric=metric),
            psnr_after_bicubic(batch, metric=metric),
            rtol=0,
            atol=1e-4,
        )


def overlapping(size: int, stride: int, count: int) -> torch.Tensor:
    """Windows of a photograph, (``count``, 3, size, size), uint8."""
    photo = torch.from_numpy(cv2.resize(data.astronaut(), (1100, 1100))).permute(2, 0, 1)
    windows = photo.unfold(1, size, stride).unfold(2, size, stride)
    return windows.permute(1, 2, 0, 3, 4).reshape(-1, 3, size, size)[:count].clone()


@pytest.mark.parametrize('size', [64, 128, 256, pytest.param(512, marks=pytest.mark.slow)])
@pytest.mark.parametrize('metric', ['matlab_rgb', 'matlab_y', 'cv2_grey'])
def test_a_score_is_the_same_to_the_last_bit_in_any_batch(metric: str, size: int) -> None:
    windows = overlapping(size, stride=73, count=20)
    expected = torch.cat([psnr_after_bicubic(window, metric=metric) for window in windows.split(1)])
    for count in (2, 3, 5, 7, 10, 20):
        scores = torch.cat([psnr_after_bicubic(part, metric=metric) for part in windows.split(count)])
        assert scores.numpy().tobytes() == expected.numpy().tobytes(), count
    shuffled = torch.randperm(20, generator=torch.Generator().manual_seed(0))
    assert torch.equal(psnr_after_bicubic(windows[shuffled], metric=metric), expected[shuffled])
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        assert torch.equal(psnr_after_bicubic(windows, metric=metric), expected)
        assert torch.get_num_threads() == 4
    finally:
        torch.set_num_threads(before)


_SCORES = """
import hashlib, torch
from test_psnr import overlapping
from basicsr_distill.ops.psnr import psnr_after_bicubic
for size in (64, 128, 256, 512):
    for stride in (size // 3, 73):
        windows = overlapping(size, stride, 64)
        for metric in ('matlab_rgb', 'matlab_y', 'cv2_grey'):
            digests = set()
            for count in range(1, 65):
                scores = torch.cat([psnr_after_bicubic(part, metric=metric) for part in windows.split(count)])
                digests.add(hashlib.sha256(scores.numpy().tobytes()).hexdigest())
            assert len(digests) == 1, (size, stride, metric)
            print(size, stride, metric, *digests)
"""


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize('instructions', PROCESSORS)
def test_scores_are_the_same_in_batches_of_1_to_64_on_one_thread_and_two(instructions: str) -> None:
    path = os.pathsep.join(str(folder) for folder in (Path(__file__).parent, REPOSITORY / 'tests', REPOSITORY))
    limits = {**os.environ, **PROCESSORS[instructions], 'PYTHONPATH': path}
    printed = [
        subprocess.run(
            [sys.executable, '-c', _SCORES],
            check=True,
            capture_output=True,
            text=True,
            env={**limits, 'OMP_NUM_THREADS': threads},
        ).stdout
        for threads in ('1', '2')
    ]
    assert printed[0] == printed[1]
    assert len(printed[0].splitlines()) == 24
