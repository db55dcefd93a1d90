#!/usr/bin/env python3
"""The demo in one picture and one table: demo/report.png, demo/report.md. All else is in the benchmark's report."""

import os
from collections import defaultdict
from pathlib import Path

os.environ.setdefault('MPLBACKEND', 'Agg')

import numpy as np
from matplotlib import pyplot as plt

from basicsr_distill.benchmark.results import upsampled
from basicsr_distill.io.files import write_atomic
from basicsr_distill.io.images import find_images, read_rgb
from basicsr_distill.io.manifest import PatchRow, SampleRow, read_table
from basicsr_distill.ops.bicubic import make_lr

DEMO = Path('demo')
MADE = Path('datasets', 'demo')  # by the stages of options/distill/demo.yml
BENCHMARK = Path('experiments', 'demo_benchmark')
SCALE = 4
SETS = ('random', 'medoids', 'distilled')
FEWEST = 5
PER_CLUSTER = 6
WINDOW_PX = (160, 200)


def grouped(rows: list[PatchRow] | list[SampleRow], labels: dict[str, int]) -> dict[int, list[str]]:
    groups = defaultdict(list)
    for row in rows:
        groups[labels[row.name]].append(row.name)
    return dict(sorted(groups.items()))


def show_groups(axes: np.ndarray, folder: Path, groups: dict[int, list[str]], title: str) -> None:
    for row, (label, names) in zip(axes, groups.items()):
        # Evenly spread over the cluster: neighbours in the table are neighbours in a photo.
        chosen = [names[i] for i in np.linspace(0, len(names) - 1, min(PER_CLUSTER, len(names))).astype(int)]
        for column, axis in enumerate(row):
            axis.axis('off')
            if column < len(chosen):
                axis.imshow(read_rgb(folder / chosen[column]))
        row[0].set_title(f'{title}, cluster {label} ({len(names)})', loc='left', fontsize=9)


def show_photo(axes: np.ndarray, photo: Path) -> None:
    hr = read_rgb(photo)
    hr = hr[: hr.shape[0] // SCALE * SCALE, : hr.shape[1] // SCALE * SCALE]
    window = tuple(
        slice(start := (length - side) // 2 // SCALE * SCALE, start + side) for length, side in zip(hr.shape, WINDOW_PX)
    )
    pictures = {
        'LR': np.kron(make_lr(hr, SCALE), np.ones((SCALE, SCALE, 1), dtype=np.uint8)),
        'bicubic': upsampled(hr, SCALE),
    }
    for name in SETS:
        cell = f'{name}__{FEWEST}_s0__EDSR_t0'
        results = BENCHMARK / 'cells' / cell / 'test' / 'results' / cell / 'visualization' / 'held_back'
        pictures[f'EDSR, {FEWEST} {name}'] = read_rgb(results / f'{photo.stem}_{cell}.png')
    for axis, (title, picture) in zip(axes, (pictures | {'HR': hr}).items()):
        axis.imshow(picture[window], interpolation='nearest')
        axis.set_title(f'{photo.stem}: {title}' if title == 'LR' else title, fontsize=11)
        axis.axis('off')


def draw(photos: list[Path]) -> None:
    lines = (MADE / 'clusters' / 'labels.csv').read_text().splitlines()[1:]
    labels = {name: int(label) for name, label in (line.rsplit(',', 1) for line in lines)}
    real = grouped(read_table(MADE / 'patches' / 'manifest.csv', PatchRow), labels)
    samples = read_table(MADE / 'distilled' / 'manifest.csv', SampleRow)
    distilled = grouped(samples, {row.name: row.label for row in samples})

    heights = [1.25 * len(real), 2.4 * len(photos)]
    figure = plt.figure(figsize=(16, sum(heights)), layout='constrained')
    groups, tests = figure.subfigures(2, 1, height_ratios=heights)
    left, right = groups.subfigures(1, 2)
    show_groups(left.subplots(len(real), PER_CLUSTER, squeeze=False), MADE / 'patches' / 'images', real, 'Real patches')
    show_groups(
        right.subplots(len(real), PER_CLUSTER, squeeze=False), MADE / 'distilled' / 'HR', distilled, 'Distilled images'
    )
    for axes, photo in zip(tests.subplots(len(photos), len(SETS) + 3, squeeze=False), photos):
        show_photo(axes, photo)
    temporary = DEMO / 'report.part.png'
    figure.savefig(temporary, dpi=80)
    temporary.replace(DEMO / 'report.png')


def main() -> None:
    draw([image.path for image in find_images([DEMO / 'photos' / 'test'])])
    tables = '\n'.join(
        (BENCHMARK / 'tables' / f'{name}.md').read_text() for name in ('headline__EDSR', 'psnr_y__EDSR__held_back')
    )
    write_atomic(DEMO / 'report.md', tables)
    print(
        f'\n{tables}\nDistilled set: {MADE / "distilled"}\nPicture:       {DEMO / "report.png"}\n'
        f'All of it:     {BENCHMARK / "report.html"}'
    )


if __name__ == '__main__':
    main()
