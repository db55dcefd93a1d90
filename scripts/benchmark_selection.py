"""Time and memory of every way to choose real patches, on features like those of an image encoder.

    python scripts/benchmark_selection.py --patches 100000 --dimensions 512

Each choice runs in a fresh process of one thread. Peak memory is what the process takes beyond the features and the
libraries. Processor time is reported beside wall time: other load hardly changes it.
"""

import argparse
import multiprocessing
from collections.abc import Callable
from functools import partial

import numpy as np
from measuring import peak_mib, timed
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from basicsr_distill.selection.core_sets import choose_by_herding, choose_k_center
from basicsr_distill.selection.medoids import choose_medoids
from basicsr_distill.selection.random_choice import (
    choose_in_band,
    choose_per_cluster,
    choose_random,
    choose_under_threshold,
)
from basicsr_distill.selection.ranked import choose_hardest

NUM_SCENES = 50
NUM_FACTORS = 32
METHODS: dict[str, Callable[[NDArray[np.float32], int], NDArray[np.int64]]] = {
    'random': lambda features, count: choose_random(len(features), count, 0),
    'threshold': lambda features, count: choose_under_threshold(_scores(features), 'median', count, 0),
    'band': lambda features, count: choose_in_band(_scores(features), 0.05, 0.5, count, 0),
    'uniform': lambda features, count: choose_per_cluster(np.arange(len(features)) % 15, count, 0),
    'loss': lambda features, count: choose_hardest(_scores(features), count),
    'herding': choose_by_herding,
    'k_center': choose_k_center,
    'k_center_outliers': partial(choose_k_center, outliers=0.2),
    'medoids': lambda features, count: choose_medoids(features, count, 0),
}


def _scores(features: NDArray[np.float32]) -> NDArray[np.float32]:
    return features[:, 0]


def make_features(patches: int, dimensions: int) -> NDArray[np.float32]:
    """Scenes with common factors of falling variance and a little noise, (patches, dimensions), float32."""
    generator = np.random.default_rng(0)
    spread = np.arange(1, NUM_FACTORS + 1)[:, None] ** -0.5
    factors = spread * generator.normal(size=(NUM_FACTORS, dimensions))
    features = np.empty((patches, dimensions), np.float32)
    scenes = generator.normal(size=(NUM_SCENES, NUM_FACTORS))
    for first in range(0, patches, 4096):
        rows = features[first : first + 4096]
        mix = scenes[generator.integers(NUM_SCENES, size=len(rows))] + generator.normal(size=(len(rows), NUM_FACTORS))
        rows[:] = mix @ factors + 0.3 * generator.normal(size=rows.shape)
    return features


def measure(method: str, count: int, patches: int, dimensions: int) -> tuple[float, float, float]:
    """Seconds of wall time, seconds of processor time and MiB of one choice; meant for a fresh process."""
    with threadpool_limits(1):
        features = make_features(patches, dimensions)
        METHODS[method](features[:500], 7)  # what the libraries take once
        before_mib = peak_mib()
        wall_s, cpu_s = timed(lambda: METHODS[method](features, count))
    return wall_s, cpu_s, peak_mib() - before_mib


def main() -> None:
    """Measure and print a table and the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--methods', nargs='+', choices=METHODS, default=list(METHODS))
    parser.add_argument('--patches', type=int, default=100_000)
    parser.add_argument('--dimensions', type=int, default=512)
    parser.add_argument('--counts', type=int, nargs='+', default=[7, 70, 280])
    args = parser.parse_args()
    print(f'{"method":<18}{"count":>6}{"wall s":>9}{"cpu s":>9}{"peak MiB":>10}')
    for method in args.methods:
        for count in args.counts:
            with multiprocessing.get_context('spawn').Pool(1) as pool:
                wall_s, cpu_s, peak_mib = pool.apply(measure, (method, count, args.patches, args.dimensions))
            print(f'{method:<18}{count:>6}{wall_s:>9.2f}{cpu_s:>9.2f}{peak_mib:>10.0f}', flush=True)


if __name__ == '__main__':
    main()
