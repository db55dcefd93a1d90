"""Speed and exactness of the extract and cluster stages, every comparison made in turns within one run.

    python scripts/benchmark_extract.py --photos datasets/BSDS500/images datasets/photos --workers 2

Ends with one ``RESULT name=value`` a figure: medians over the rounds, of ratios taken within a round.
"""

import argparse
import statistics
import tempfile
from pathlib import Path
from typing import get_args

import cv2
import numpy as np
import torch
from measuring import measure
from numpy.typing import NDArray
from PIL import Image
from torch.nn.functional import interpolate

from basicsr_distill.config.recipe import Recipe
from basicsr_distill.config.sections.base import PsnrMetric
from basicsr_distill.host import hooks
from basicsr_distill.io.images import FoundImage, find_images, read_rgb
from basicsr_distill.ops.psnr import psnr_after_bicubic
from basicsr_distill.runtime.parallel import default_workers, ordered_map
from basicsr_distill.stages.extract import stage as extract
from basicsr_distill.stages.extract.scoring import score_windows

PATCH_SIZE = 256
SCALE = 4


def crops(images: list[FoundImage], count: int) -> list[NDArray[np.uint8]]:
    """One patch a photo, from its middle."""
    found = []
    for image in images:
        rgb = read_rgb(image.path)
        top, left = ((side - PATCH_SIZE) // 2 for side in rgb.shape[:2])
        if min(top, left) >= 0:
            found.append(rgb[top : top + PATCH_SIZE, left : left + PATCH_SIZE])
        if len(found) == count:
            break
    return found


def plain_scores(rgb: NDArray[np.uint8]) -> dict[PsnrMetric, float]:
    """The three scores of one patch, through BasicSR's and OpenCV's own functions."""
    from basicsr.utils.color_util import rgb2ycbcr
    from basicsr.utils.matlab_functions import imresize

    def psnr_db(x: NDArray[np.float32], y: NDArray[np.float32]) -> float:
        return float(-10 * np.log10(np.mean((x.astype(np.float64) - y) ** 2)))

    x = rgb.astype(np.float32) / 255
    luma = rgb2ycbcr(x, y_only=True)
    grey = np.asarray(Image.fromarray(rgb).convert('L'), np.float32) / 255
    small = cv2.resize(grey, (PATCH_SIZE // SCALE, PATCH_SIZE // SCALE), interpolation=cv2.INTER_CUBIC)
    return {
        'matlab_rgb': psnr_db(x, imresize(imresize(x, 1 / SCALE), float(SCALE))),
        'matlab_y': psnr_db(luma, imresize(imresize(luma, 1 / SCALE), float(SCALE))),
        'cv2_grey': psnr_db(grey, cv2.resize(small, (PATCH_SIZE, PATCH_SIZE), interpolation=cv2.INTER_CUBIC)),
    }


def exactness(patches: list[NDArray[np.uint8]]) -> dict[str, float]:
    """Largest difference from the plain scores, their medians, and the overlap of the halves they select."""
    plain = [plain_scores(rgb) for rgb in patches]
    batch = torch.from_numpy(np.stack(patches)).permute(0, 3, 1, 2)
    results: dict[str, float] = {'patches': len(patches)}
    halves = {}
    for metric in get_args(PsnrMetric):
        scores = psnr_after_bicubic(batch, SCALE, metric).numpy()
        median = float(np.median(scores))
        results[f'{metric}_max_error_db'] = float(np.abs(scores - [scored[metric] for scored in plain]).max())
        results[f'{metric}_median_db'] = median
        results[f'{metric}_share_below_23_db'] = float(np.mean(scores < 23))
        halves[metric] = set(np.flatnonzero(scores < median).tolist())
    for metric in ('matlab_y', 'cv2_grey'):
        both, either = halves['matlab_rgb'] & halves[metric], halves['matlab_rgb'] | halves[metric]
        results[f'{metric}_overlap_of_lower_half'] = len(both) / max(1, len(either))
    return results


def scoring(patches: list[NDArray[np.uint8]], rounds: int) -> dict[str, float]:
    """Ours, BasicSR's imresize patch by patch, and torch's antialiased bicubic, on RGB patches."""
    from basicsr.utils.matlab_functions import imresize

    whole = [np.zeros((1, 2), np.int32)] * len(patches)

    def ours() -> None:
        score_windows(patches, whole, PATCH_SIZE, SCALE, 'matlab_rgb')

    def ours_luma() -> None:
        score_windows(patches, whole, PATCH_SIZE, SCALE, 'matlab_y')

    def basicsr() -> None:
        for rgb in patches:
            x = rgb.astype(np.float32) / 255
            -10 * np.log10(np.mean((x - imresize(imresize(x, 1 / SCALE), float(SCALE))) ** 2))

    def torch_antialias() -> None:
        batch = torch.from_numpy(np.stack(patches)).permute(0, 3, 1, 2).float().div_(255)
        down = interpolate(batch, scale_factor=1 / SCALE, mode='bicubic', antialias=True)
        up = interpolate(down, scale_factor=SCALE, mode='bicubic')
        -10 * torch.log10((batch - up).square().mean((1, 2, 3)))

    mine, host, torch_, luma = measure(rounds, ours, basicsr, torch_antialias, ours_luma)
    each_ms = 1e3 / len(patches)
    return {
        'score_rgb_cpu_ms': each_ms * statistics.median(mine.cpu_s),
        'score_y_cpu_ms': each_ms * statistics.median(luma.cpu_s),
        'imresize_cpu_ms': each_ms * statistics.median(host.cpu_s),
        'torch_antialias_cpu_ms': each_ms * statistics.median(torch_.cpu_s),
        'speedup_over_imresize': host.wall_over(mine),
        'speedup_over_torch_antialias': torch_.wall_over(mine),
    }


def whole_stage(images: list[FoundImage], roots: list[str], workers: int, rounds: int) -> dict[str, float]:
    """The extract stage against decoding the same images alone, with as many threads."""

    def decode() -> None:
        for _ in ordered_map(lambda image: read_rgb(image.path).shape, images, workers):
            pass

    def stage(threshold: float | str) -> None:
        with tempfile.TemporaryDirectory() as folder:
            section = {
                'dataroot': roots,
                'save_dir': folder,
                'patch_size': PATCH_SIZE,
                'threshold': threshold,
                'num_workers': workers,
            }
            extract.run(Recipe.parse(Path('benchmark.yml'), {'extract': section}))

    decoding, paper, median = measure(rounds, decode, lambda: stage(23.0), lambda: stage('median'))
    return {
        'images': len(images),
        'workers': workers,
        'decode_s': statistics.median(decoding.wall_s),
        'extract_23db_s': statistics.median(paper.wall_s),
        'extract_median_s': statistics.median(median.wall_s),
        'decode_cpu_s': statistics.median(decoding.cpu_s),
        'extract_23db_cpu_s': statistics.median(paper.cpu_s),
        'extract_median_cpu_s': statistics.median(median.cpu_s),
        'extract_23db_over_decode': paper.wall_over(decoding),
        'extract_median_over_decode': median.wall_over(decoding),
        'extract_23db_over_decode_cpu': paper.cpu_over(decoding),
        'extract_median_over_decode_cpu': median.cpu_over(decoding),
    }


def clip(patches: list[NDArray[np.uint8]], rounds: int) -> dict[str, float]:
    """ViT-B/32 with random weights: batches against one image at a time."""
    import open_clip

    model, _, preprocess = open_clip.create_model_and_transforms('ViT-B-32')
    model.eval()
    pictures = torch.stack([preprocess(Image.fromarray(rgb)) for rgb in patches])

    def batched() -> None:
        model.encode_image(pictures)

    def one_by_one() -> None:
        for picture in pictures:
            model.encode_image(picture[None])

    with torch.inference_mode():
        many, single = measure(rounds, batched, one_by_one)
    return {
        'clip_batch_cpu_ms': 1e3 * statistics.median(many.cpu_s) / len(patches),
        'clip_one_by_one_cpu_ms': 1e3 * statistics.median(single.cpu_s) / len(patches),
        'clip_batch_speedup': single.wall_over(many),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--photos', nargs='+', required=True, help='folders of photographs')
    parser.add_argument('--workers', type=int, default=default_workers(), help='threads of the stage')
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--patches', type=int, default=32, help='patches of the scoring and CLIP comparisons')
    parser.add_argument('--exact_patches', type=int, default=250, help='patches whose scores are compared')
    args = parser.parse_args()
    hooks.require_host()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    images = find_images([Path(root) for root in args.photos])
    patches = crops(images, args.patches)
    results = {
        **exactness(crops(images, args.exact_patches)),
        **scoring(patches, args.rounds),
        **whole_stage(images, args.photos, args.workers, args.rounds),
        **clip(patches, args.rounds),
    }
    for name, value in results.items():
        print(f'RESULT {name}={value:.4g}')


if __name__ == '__main__':
    main()
