"""What curation costs, in ratios within one run, and what its measures tell apart.

    OMP_NUM_THREADS=1 python scripts/benchmark_curation.py --photos datasets/BSDS500 datasets/photos --workers 2
    python scripts/benchmark_curation.py --photos datasets/BSDS500 --rounds 0   # the figures of docs/EXPERIMENTS.md

Ends with one ``RESULT name=value`` a figure: medians over the rounds of ratios taken within a round; areas under the
ROC curve of spoiled photographs against the same as they are.
"""

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from measuring import measure
from numpy.typing import NDArray
from PIL import Image
from sklearn.metrics import roc_auc_score

from basicsr_distill.config.recipe import Recipe
from basicsr_distill.host import hooks
from basicsr_distill.io.images import find_images, read_rgb
from basicsr_distill.ops.periodicity import periodic_peak_db
from basicsr_distill.runtime.parallel import default_workers, ordered_map
from basicsr_distill.stages.extract import stage as extract
from basicsr_distill.stages.extract.filters import SOURCE_MEASURES

# Limits that no photograph breaks: every extraction measures and writes the same.
FILTERS = {'blockiness': {'max': 1e6}, 'noise': {'max': 1e6}}
WAYS: dict[str, dict[str, Any]] = {
    'plain': {},
    'filters': {'source_filters': FILTERS},
    'best_psnr': {'windows': 'best'},
    'best_laplacian': {'windows': {'type': 'best', 'by': 'laplacian'}},
    'poisson': {'windows': 'poisson'},
    'window_filters': {'window_filters': {name: {'max': 1e6} for name in ('flat', 'saturated', 'noise', 'halftone')}},
}
Pixels = NDArray[np.uint8]


def costs(roots: list[str], workers: int, rounds: int) -> dict[str, float]:
    """Wall and processor time of the stage, each way in turns after a warm-up, over those of the plain one."""

    def stage(keys: dict[str, Any]) -> None:
        with tempfile.TemporaryDirectory() as folder:
            section = {'dataroot': roots, 'save_dir': folder, 'num_workers': workers, **keys}
            extract.run(Recipe.parse(Path('benchmark.yml'), {'extract': section}))

    plain, *others = measure(rounds, *(partial(stage, keys) for keys in WAYS.values()))
    results = {'plain_s': statistics.median(plain.wall_s)}
    for name, times in zip(list(WAYS)[1:], others):
        results[f'{name}_over_plain'] = times.wall_over(plain)
        results[f'{name}_over_plain_cpu'] = times.cpu_over(plain)
    return results


def memory(roots: list[str], count: int) -> dict[str, float]:
    """Windows and peak memory of an extraction of about so many windows, in a process of its own."""
    area = sum(
        rgb.shape[0] * rgb.shape[1] for rgb in (read_rgb(image.path) for image in find_images(list(map(Path, roots))))
    )
    stride = max(4, int((area / count) ** 0.5) // 4 * 4)
    with tempfile.TemporaryDirectory() as folder:
        section = {
            'dataroot': roots,
            'save_dir': folder,
            'patch_size': 64,
            'stride': stride,
            'max_patches': 1000,
            'source_filters': FILTERS,
            **WAYS['window_filters'],
        }
        code = (
            f'from pathlib import Path\n'
            f'from basicsr_distill.config.recipe import Recipe\n'
            f'from basicsr_distill.stages.extract.stage import run\n'
            f'run(Recipe.parse(Path("benchmark.yml"), {{"extract": {section!r}}}))'
        )
        subprocess.run([sys.executable, '-c', code], check=True)
        from basicsr_distill.stages.record import read_stage

        windows = read_stage(Path(folder))['counts']['patches_scored']
    return {'windows': windows, 'peak_gb': resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20}


def jpeg(quality: int, factor: float = 1.0) -> Callable[[Pixels], Pixels]:
    """Compress, then shrink."""

    def spoil(rgb: Pixels) -> Pixels:
        data = cv2.imencode('.jpg', rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        return resized(factor)(np.ascontiguousarray(cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1]))

    return spoil


def resized(factor: float) -> Callable[[Pixels], Pixels]:
    """Resize by Pillow's antialiased bicubic."""

    def spoil(rgb: Pixels) -> Pixels:
        size = [round(side * factor) for side in rgb.shape[1::-1]]
        return np.array(Image.fromarray(rgb).resize(size, Image.Resampling.BICUBIC)) if factor != 1 else rgb

    return spoil


def noisy(sigma: float) -> Callable[[Pixels], Pixels]:
    """Add white noise, from a seed of the image's own."""

    def spoil(rgb: Pixels) -> Pixels:
        noise = np.random.default_rng(int(rgb.sum())).normal(0, sigma, rgb.shape)
        return np.asarray((rgb + noise).round().clip(0, 255), np.uint8)

    return spoil


def screened(rgb: Pixels) -> Pixels:
    """Print with a screen of 4 px at 45 degrees, and scan."""
    y, x = np.mgrid[: rgb.shape[0], : rgb.shape[1]]
    turned = ((x + y) * np.pi / 2 / 2**0.5, (y - x) * np.pi / 2 / 2**0.5)
    dots = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY) / 255 > (np.cos(turned[0]) + np.cos(turned[1])) / 4 + 0.5
    grey = cv2.GaussianBlur(dots.astype(np.float32) * 255, (0, 0), 0.8).astype(np.uint8)
    return np.repeat(grey[..., None], 3, 2)


def separations(images: list[Pixels], workers: int) -> dict[str, float]:
    """Area under the ROC curve of every measure, by what was done to the photographs."""
    measures = {**SOURCE_MEASURES, 'halftone': lambda rgb: periodic_peak_db(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY))}
    shrunk = {
        f'q{quality}_shrunk_{factor}': (jpeg(quality, factor), resized(factor))
        for quality in (30, 50, 70)
        for factor in (0.75, 0.85)
    }
    asked: dict[str, Mapping[str, tuple[Callable[[Pixels], Pixels], Callable[[Pixels], Pixels]]]] = {
        'blockiness': {f'q{quality}': (jpeg(quality), resized(1)) for quality in (30, 50, 70, 90)} | shrunk,
        'upscaled': {f'x{factor}': (resized(factor), resized(1)) for factor in (1.5, 2, 3)},
        'noise': {f'sigma{sigma}': (noisy(sigma), resized(1)) for sigma in (5, 10, 20)},
        'halftone': {'screen': (screened, resized(1))},
    }
    results = {}
    for name, pairs in asked.items():
        for what, (spoil, leave) in pairs.items():
            values = [
                list(ordered_map(lambda rgb, do=do, name=name: measures[name](do(rgb)), images, workers))
                for do in (spoil, leave)
            ]
            results[f'auc_{name}_{what}'] = float(
                roc_auc_score([1] * len(images) + [0] * len(images), values[0] + values[1])
            )
    return results


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--photos', nargs='+', required=True, help='folders of photographs')
    parser.add_argument('--workers', type=int, default=default_workers(), help='threads of the stage')
    parser.add_argument('--rounds', type=int, default=5, help='0: the areas under the curves alone')
    parser.add_argument('--windows', type=int, default=100_000, help='of the extraction whose memory is measured')
    args = parser.parse_args()
    hooks.require_host()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    if args.rounds:
        results = costs(args.photos, args.workers, args.rounds) | memory(args.photos, args.windows)
    else:
        images = find_images([Path(root) for root in args.photos])
        results = {'images': len(images)} | separations([read_rgb(image.path) for image in images], args.workers)
    for name, value in results.items():
        print(f'RESULT {name}={value:.4g}')


if __name__ == '__main__':
    main()
