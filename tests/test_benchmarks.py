"""Every script of docs/BENCHMARKS.md runs, at its smallest size, and prints its figures."""

import math
import os
import re
import subprocess
import sys
from pathlib import Path

import cv2
import pytest
from skimage import data
from support import REPOSITORY

SMALLEST = {
    'archs': ['--archs', 'HiT_SIR', '--batch', '1', '--size_px', '16', '--rounds', '1'],
    'coverage': ['--points', '2000', '--dimensions', '8', '--few', '5', '--picks', '3'],
    'curation': ['--photos', 'photos', '--workers', '1', '--rounds', '1', '--windows', '500'],
    'extract': ['--photos', 'photos', '--workers', '1', '--rounds', '1', '--patches', '2', '--exact_patches', '20'],
    'finetune': ['--size_px', '64', '--batch', '2', '--rounds', '1', '--precisions', 'fp32'],
    'overhead': ['--rounds', '1', '--iterations', '4'],
    'preflight': ['--pairs', '20'],
    'sampling': ['--size_px', '64', '--batch', '1', '--rounds', '1'],
    'selection': ['--patches', '500', '--dimensions', '8', '--counts', '5'],
}
# What each prints at that size: names of RESULT lines, or of the rows of its table.
FIGURES = {
    'archs': ['HiT_SIR_step_cpu_s', 'HiT_SIR_peak_mib', 'HiT_SIR_over_HiT_SIR'],
    'coverage': [
        'nearest patch of every sample',
        'coverage: nearest sample of every patch',
        'distance of probes to the other patches',
        'k_center, 3 picks',
    ],
    'curation': [
        'plain_s',
        'windows',
        'peak_gb',
        *(
            f'{work}_over_plain{clock}'
            for clock in ('', '_cpu')
            for work in ('filters', 'best_psnr', 'best_laplacian', 'poisson', 'window_filters')
        ),
    ],
    'extract': [
        'images',
        'workers',
        'patches',
        'decode_s',
        'extract_23db_s',
        'extract_median_s',
        'speedup_over_imresize',
        'extract_23db_over_decode',
        'extract_median_over_decode',
        'matlab_rgb_max_error_db',
        'matlab_y_max_error_db',
        'cv2_grey_max_error_db',
    ],
    'finetune': ['plain_step_s', 'fp32_step_s', 'fp32_peak_memory_mib', 'fp32_samples_per_s', 'fp32_speedup'],
    'overhead': [
        f'{kind}_{figure}'
        for kind, other in (('extract', 'careless'), ('finetune', 'careless'), ('train', 'basicsr'))
        for figure in ('s', f'{other}_s', 'ratio')
    ],
    'preflight': ['before a run', 'decoded by OpenCV in one thread'],
    'sampling': [
        'plain_s_per_image',
        'fp32_kl_s_per_image',
        'bf16_tiny_s_per_image',
        'fp32_kl_speedup',
        'bf16_tiny_speedup',
        'peak_memory_mib',
    ],
    'selection': [
        f'{method:<18}{5:>6}'
        for method in (
            'random',
            'threshold',
            'band',
            'uniform',
            'loss',
            'herding',
            'k_center',
            'k_center_outliers',
            'medoids',
        )
    ],
}
# Quotients: figure, numerator, denominator; of the figures as they are printed.
QUOTIENTS = {
    'extract': [
        ('extract_23db_over_decode', 'extract_23db_s', 'decode_s'),
        ('extract_median_over_decode', 'extract_median_s', 'decode_s'),
    ],
    'finetune': [('fp32_speedup', 'plain_step_s', 'fp32_step_s')],
    'overhead': [('extract_ratio', 'extract_careless_s', 'extract_s'), ('train_ratio', 'train_basicsr_s', 'train_s')],
    'sampling': [('fp32_kl_speedup', 'plain_s_per_image', 'fp32_kl_s_per_image')],
}
EXACT = {'archs': {'HiT_SIR_over_HiT_SIR': 1}, 'extract': {'images': 2, 'workers': 1, 'patches': 2}}


def figures(printed: str) -> dict[str, list[float]]:
    """The numbers of every figure, by its name."""
    found = {}
    for line in printed.splitlines():
        if result := re.fullmatch(r'RESULT (\w+)=(\S+)', line):
            found[result[1]] = [float(result[2])]
        elif pairs := re.fullmatch(r'20 pairs, ([^:]+): (.* s\b.*)', line):
            found[pairs[1]] = [float(number) for number in re.findall(r'([\d.]+) s\b', pairs[2])]
        elif row := re.fullmatch(r'(.*\S)\s+([\d.]+)\s+([\d.]+)\s+(\d+)', line):
            found[row[1]] = [float(row[number]) for number in (2, 3, 4)]
    return found


def test_all_are_here() -> None:
    assert SMALLEST.keys() == FIGURES.keys()
    assert {path.stem for path in (REPOSITORY / 'scripts').glob('benchmark_*.py')} == {
        f'benchmark_{name}' for name in SMALLEST
    }


@pytest.mark.slow
def test_the_acceptance_of_a_gpu_writes_its_table(tmp_path: Path) -> None:
    table = tmp_path / 'table.md'
    small = {
        'DEVICE': 'cpu',
        'SIZE': 'S',
        'SIZE_PX': '64',
        'BATCH': '1',
        'ROUNDS': '1',
        'OUTPUT': str(table),
        'VENV': sys.prefix,
        'PEAK_TFLOPS': '0.1',
    }
    run = subprocess.run(
        ['bash', REPOSITORY / 'scripts' / 'gpu_acceptance.sh'],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        env={**os.environ, **small},
    )
    assert run.returncode == 0, run.stderr
    rows = [line.split('|')[1].strip() for line in table.read_text().splitlines() if line.startswith('| ')]
    assert {'bf16_samples_per_s', 'bf16_peak_memory_mib', 'bf16_share_of_peak'} <= set(rows)


@pytest.mark.slow
@pytest.mark.parametrize('name', SMALLEST)
def test_runs_and_prints_figures(name: str, tmp_path: Path) -> None:
    (tmp_path / 'photos').mkdir()
    for photo in ('coffee', 'grass'):  # grass has patches under the published 23 dB
        cv2.imwrite(str(tmp_path / 'photos' / f'{photo}.png'), getattr(data, photo)())
    run = subprocess.run(
        [sys.executable, REPOSITORY / 'scripts' / f'benchmark_{name}.py', *SMALLEST[name]],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    found = figures(run.stdout)
    for figure in FIGURES[name]:
        assert found.get(figure) and all(math.isfinite(value) and value >= 0 for value in found[figure]), (
            figure,
            run.stdout,
        )
    for figure, above, below in QUOTIENTS.get(name, ()):
        assert found[figure] == pytest.approx([found[above][0] / found[below][0]], rel=0.05), figure
    for figure, value in EXACT.get(name, {}).items():
        assert found[figure] == [value], figure
    assert all(value[0] < 1e-4 for figure, value in found.items() if figure.endswith('_max_error_db'))
