"""Time and memory of nearest neighbours, coverage and k-centre on features that are mapped from a file.

    python scripts/benchmark_coverage.py --points 2000000 --dimensions 512

Writes the features (4 GB as above) into a temporary folder, on disk, and removes them. Memory is what the process
itself holds beyond the libraries (RssAnon of Linux, sampled every 10 ms); pages of the mapped file belong to the
system.
"""

import argparse
import re
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
from measuring import timed
from numpy.typing import NDArray

from basicsr_distill.selection.core_sets import choose_k_center
from basicsr_distill.selection.distances import distance_to_others, nearest

_ROWS = 1 << 14


def anonymous_mib() -> float:
    """Memory of this process that no file backs, MiB."""
    found = re.search(r'RssAnon:\s+(\d+)', Path('/proc/self/status').read_text(encoding='ascii'))
    return int(found[1]) / 1024 if found else float('nan')


def measure(work: Callable[[], object]) -> tuple[float, float, float]:
    """Wall seconds, processor seconds, and growth of anonymous memory at its peak, MiB."""
    before, samples, done = anonymous_mib(), [0.0], threading.Event()

    def watch() -> None:
        while not done.wait(0.01):
            samples.append(anonymous_mib() - before)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        wall_s, cpu_s = timed(work)
    finally:
        done.set()
        watcher.join()
    return wall_s, cpu_s, max(samples)


def write_features(path: Path, points: int, dimensions: int) -> NDArray[np.float32]:
    """Normally distributed features at ``path``, mapped for reading."""
    features = np.lib.format.open_memmap(path, 'w+', np.float32, (points, dimensions))
    generator = np.random.default_rng(0)
    for first in range(0, points, _ROWS):
        part = features[first : first + _ROWS]
        part[:] = generator.standard_normal(part.shape, np.float32)
    features.flush()
    return np.load(path, mmap_mode='r', allow_pickle=False)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--points', type=int, default=2_000_000)
    parser.add_argument('--dimensions', type=int, default=512)
    parser.add_argument('--few', type=int, default=280, help='samples, candidates and probes')
    parser.add_argument('--picks', type=int, default=40, help='picks of k-centre')
    parser.add_argument('--folder', help='where the features are written for the time being')
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        features = write_features(Path(folder) / 'features.npy', args.points, args.dimensions)
        few = np.random.default_rng(1).standard_normal((args.few, args.dimensions), np.float32)
        nearest(few, features[:1000])  # what the libraries take once
        works: dict[str, Callable[[], object]] = {
            'nearest patch of every sample': lambda: nearest(few, features),
            'coverage: nearest sample of every patch': lambda: nearest(features, few),
            'distance of probes to the other patches': lambda: distance_to_others(features, np.arange(args.few)),
            f'k_center, {args.picks} picks': lambda: choose_k_center(few, args.picks, targets=features),
        }
        print(f'{"":<42}{"wall s":>9}{"cpu s":>9}{"peak MiB":>10}')
        for name, work in works.items():
            wall_s, cpu_s, peak_mib = measure(work)
            print(f'{name:<42}{wall_s:>9.1f}{cpu_s:>9.1f}{peak_mib:>10.0f}', flush=True)


if __name__ == '__main__':
    main()
