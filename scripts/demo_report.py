#!/usr/bin/env python3
"""The demo in one picture and one table: demo/report.png, demo/report.md."""

import json
import os
from collections import defaultdict
from pathlib import Path

os.environ.setdefault('MPLBACKEND', 'Agg')

import numpy as np
import torch
from matplotlib import pyplot as plt

from basicsr_distill.io.files import write_atomic
from basicsr_distill.io.images import find_images, read_rgb
from basicsr_distill.io.manifest import PatchRow, SampleRow, read_table
from basicsr_distill.ops.bicubic import bicubic_upsample, make_lr

DEMO = Path('demo')
SCALE = 4
COLUMNS = ('psnr_rgb', 'ssim_rgb', 'psnr_y', 'ssim_y')
RUNS = {'EDSR on the distilled set': 'EDSR_x4_demo_distilled', 'EDSR on random crops': 'EDSR_x4_demo_random'}
PER_CLUSTER = 6


def bicubic(hr: np.ndarray) -> np.ndarray:
    """What bicubic interpolation makes of an image's LR version; uint8 in and out."""
    lr = torch.from_numpy(make_lr(hr, SCALE)).permute(2, 0, 1).float()
    return bicubic_upsample(lr, SCALE).round().clamp(0, 255).byte().permute(1, 2, 0).numpy()


def measure(sr: np.ndarray, hr: np.ndarray) -> dict[str, float]:
    from basicsr.metrics import calculate_psnr, calculate_ssim  # importable once the plugin is

    sr, hr = sr[..., ::-1], hr[..., ::-1]
    return {f'{name}_{space}': metric(sr, hr, crop_border=SCALE, test_y_channel=space == 'y')
            for name, metric in {'psnr': calculate_psnr, 'ssim': calculate_ssim}.items() for space in ('rgb', 'y')}


def table(rows: dict[str, dict[str, float]]) -> str:
    header = f'{"two held-back photos, x4":<28}' + ''.join(f'{name.upper():>10}' for name in COLUMNS)
    lines = [f'{name:<28}' + ''.join(f'{row[column]:>10.{2 if "psnr" in column else 4}f}' for column in COLUMNS)
             for name, row in rows.items()]
    return '\n'.join([header, *lines])


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


def draw(rows: dict[str, dict[str, float]], photos: list[Path]) -> None:
    lines = (DEMO / 'clusters' / 'labels.csv').read_text().splitlines()[1:]
    labels = {name: int(label) for name, label in (line.rsplit(',', 1) for line in lines)}
    real = grouped(read_table(DEMO / 'patches' / 'manifest.csv', PatchRow), labels)
    samples = read_table(DEMO / 'distilled' / 'manifest.csv', SampleRow)
    distilled = grouped(samples, {row.name: row.label for row in samples})

    figure = plt.figure(figsize=(16, 1.25 * len(real) + 3.5 * len(photos) + 1), layout='constrained')
    groups, tests = figure.subfigures(2, 1, height_ratios=[1.25 * len(real), 3.5 * len(photos)])
    left, right = groups.subfigures(1, 2)
    show_groups(left.subplots(len(real), PER_CLUSTER, squeeze=False), DEMO / 'patches' / 'images', real, 'Real patches')
    show_groups(right.subplots(len(real), PER_CLUSTER, squeeze=False), DEMO / 'distilled' / 'HR', distilled,
                'Distilled images')
    for axes, photo in zip(tests.subplots(len(photos), 4, squeeze=False), photos):
        hr = read_rgb(photo)
        hr = hr[:hr.shape[0] // SCALE * SCALE, :hr.shape[1] // SCALE * SCALE]
        top, left_edge = (hr.shape[0] // 2 - 64) // SCALE * SCALE, (hr.shape[1] // 2 - 80) // SCALE * SCALE
        window = np.s_[top:top + 128, left_edge:left_edge + 160]
        run = 'EDSR_x4_demo_distilled'
        sr = read_rgb(Path('results', run, 'visualization', 'demo_photos', f'{photo.stem}_{run}.png'))
        low = np.kron(make_lr(hr, SCALE), np.ones((SCALE, SCALE, 1), dtype=np.uint8))
        pictures = {'LR': low, 'bicubic': bicubic(hr), 'EDSR on the distilled set': sr, 'HR': hr}
        for axis, (title, picture) in zip(axes, pictures.items()):
            axis.imshow(picture[window], interpolation='nearest')
            axis.set_title(f'{photo.stem}: {title}', fontsize=11)
            axis.axis('off')
    figure.supxlabel(table(rows), family='monospace', fontsize=11)
    temporary = DEMO / 'report.part.png'
    figure.savefig(temporary, dpi=80)
    temporary.replace(DEMO / 'report.png')


def main() -> None:
    photos = [image.path for image in find_images([DEMO / 'photos' / 'test'])]
    measured = [measure(bicubic(hr), hr) for hr in (
        photo[:photo.shape[0] // SCALE * SCALE, :photo.shape[1] // SCALE * SCALE] for photo in map(read_rgb, photos))]
    rows = {'bicubic': {column: float(np.mean([row[column] for row in measured])) for column in COLUMNS}}
    for title, run in RUNS.items():
        rows[title] = json.loads(Path('results', run, 'metrics.json').read_text())['demo_photos']
    draw(rows, photos)
    write_atomic(DEMO / 'report.md', f'```\n{table(rows)}\n```\n')
    print(f'\n{table(rows)}\n\nDistilled set: {DEMO / "distilled"}\nPicture:       {DEMO / "report.png"}')


if __name__ == '__main__':
    main()
