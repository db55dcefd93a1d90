"""Every script of docs/BENCHMARKS.md runs, at its smallest size, and prints figures."""

import os
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


def test_all_are_here() -> None:
    assert {path.stem for path in (REPOSITORY / 'scripts').glob('benchmark_*.py')} == {f'benchmark_{name}'
                                                                                       for name in SMALLEST}


@pytest.mark.slow
def test_the_acceptance_of_a_gpu_writes_its_table(tmp_path: Path) -> None:
    table = tmp_path / 'table.md'
    small = {'DEVICE': 'cpu', 'SIZE': 'S', 'SIZE_PX': '64', 'BATCH': '1', 'ROUNDS': '1', 'OUTPUT': str(table),
             'VENV': sys.prefix, 'PEAK_TFLOPS': '0.1'}
    run = subprocess.run(['bash', REPOSITORY / 'scripts' / 'gpu_acceptance.sh'], cwd=REPOSITORY, capture_output=True,
                         text=True, env={**os.environ, **small})
    assert run.returncode == 0, run.stderr
    rows = [line.split('|')[1].strip() for line in table.read_text().splitlines() if line.startswith('| ')]
    assert {'bf16_samples_per_s', 'bf16_peak_memory_mib', 'bf16_share_of_peak'} <= set(rows)


@pytest.mark.slow
@pytest.mark.parametrize('name', SMALLEST)
def test_runs_and_prints_figures(name: str, tmp_path: Path) -> None:
    (tmp_path / 'photos').mkdir()
    for photo in ('coffee', 'grass'):  # grass has patches under the published 23 dB
        cv2.imwrite(str(tmp_path / 'photos' / f'{photo}.png'), getattr(data, photo)())
    run = subprocess.run([sys.executable, REPOSITORY / 'scripts' / f'benchmark_{name}.py', *SMALLEST[name]],
                         cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert any(character.isdigit() for character in run.stdout)
