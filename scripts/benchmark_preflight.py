"""How long the check of a stock paired dataset takes before a run, against decoding.

    OMP_NUM_THREADS=1 python scripts/benchmark_preflight.py --pairs 100000

Pairs of small PNGs are made in a temporary folder. Decoding is measured on a part of them and scaled up.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
from measuring import peak_mib

from basicsr_distill.host import hooks

SCALE = 4
HR_PX = 64
DECODED = 2000


def make_pairs(root: Path, count: int) -> None:
    """HR and LR folders with files of the same names."""
    noise = np.random.default_rng(0).integers(0, 256, (HR_PX, HR_PX, 3), dtype=np.uint8)
    for folder, image in (('HR', noise), ('LR', noise[::SCALE, ::SCALE])):
        (root / folder).mkdir()
        encoded = cv2.imencode('.png', image)[1].tobytes()
        for number in range(count):
            (root / folder / f'{number:06d}.png').write_bytes(encoded)


def check(root: Path) -> None:
    """Build BasicSR's dataset and look at its files; prints the seconds of both and the peak memory in MB."""
    hooks.require_host()
    from basicsr_distill.config.experiment import to_experiment
    from basicsr_distill.config.recipe import Recipe
    from basicsr_distill.training import preflight
    from basicsr_distill.training.preflight.images import check_images

    section = {
        'name': 'pairs',
        'type': 'PairedImageDataset',
        'gt_size': 32,
        'dataroot_gt': str(root / 'HR'),
        'dataroot_lq': str(root / 'LR'),
        'filename_tmpl': '{}',
        'io_backend': {'type': 'disk'},
        'use_hflip': True,
        'use_rot': True,
        'batch_size_per_gpu': 16,
        'num_worker_per_gpu': 0,
    }
    train = {
        'total_iter': 1,
        'optim_g': {'type': 'Adam', 'lr': 1e-4},
        'scheduler': {'type': 'MultiStepLR', 'milestones': [1]},
        'pixel_opt': {'type': 'L1Loss'},
    }
    network = {'type': 'EDSR', 'num_in_ch': 3, 'num_out_ch': 3}
    recipe = Recipe.parse(
        Path('benchmark.yml'),
        {
            'name': 'pairs',
            'model_type': 'SRModel',
            'scale': SCALE,
            'datasets': {'train': section},
            'network_g': network,
            'train': train,
        },
    )
    experiment = to_experiment(recipe, is_train=True, root=root)
    before_mb = peak_mib()
    start = time.perf_counter()
    dataset = preflight.build_checked_dataset(experiment, 'train')
    listed = time.perf_counter()
    check_images(experiment, {'train': dataset})
    checked = time.perf_counter()
    print(
        f'{listed - start:.2f} s to pair the names, {checked - listed:.2f} s to look at the files, '
        f'{peak_mib() - before_mb:.0f} MB more than before'
    )


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--pairs', type=int, default=100_000)
    parser.add_argument('--check', type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.check:
        check(args.check)
        return
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        make_pairs(root, args.pairs)
        result = subprocess.run(
            [sys.executable, __file__, '--check', folder], text=True, capture_output=True, check=True
        )
        print(f'{args.pairs} pairs, before a run: {result.stdout.splitlines()[-1]}')
        count = min(DECODED, args.pairs)
        start = time.perf_counter()
        for number in range(count):
            for side in ('HR', 'LR'):
                cv2.imread(str(root / side / f'{number:06d}.png'))
        seconds = (time.perf_counter() - start) * args.pairs / count
        print(f'{args.pairs} pairs, decoded by OpenCV in one thread: {seconds:.1f} s')


if __name__ == '__main__':
    main()
