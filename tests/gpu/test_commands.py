"""Every command on a real GPU; `bash scripts/gpu_acceptance.sh` runs these."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from dying import run
from small_project import COMMANDS, make_project

from basicsr_distill.io.weights import load_weights

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason='no GPU here')]


def project(folder: Path, num_gpu: int) -> Path:
    """A small project whose trainings use so many GPUs."""
    folder.mkdir()
    make_project(folder)
    for path in folder.glob('*.yml'):
        options: dict[str, Any] = yaml.safe_load(path.read_text())
        if 'num_gpu' in options:
            path.write_text(yaml.safe_dump({**options, 'num_gpu': num_gpu}))
    return folder


@pytest.mark.parametrize('name', COMMANDS)
def test_every_command(name: str, tmp_path: Path) -> None:
    folder = project(tmp_path / 'gpu', 1)
    before, command, files = COMMANDS[name]
    for line in (*before, command):
        code, output = run(folder, *line)
        assert code == 0, output
    assert all(list(folder.glob(pattern)) for pattern in files)


def test_a_training_follows_that_of_the_cpu(tmp_path: Path) -> None:
    weights = []
    for num_gpu in (0, 1):
        folder = project(tmp_path / str(num_gpu), num_gpu)
        code, output = run(folder, *COMMANDS['train'][1])
        assert code == 0, output
        weights.append(load_weights(folder / 'experiments/sr/models/net_g_latest.pth')['params'])
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, rtol=5e-2, atol=1e-3)


@pytest.mark.parametrize('precision', ['bf16', 'fp16'])
def test_lower_precision(precision: str, tmp_path: Path) -> None:
    folder = project(tmp_path / 'gpu', 1)
    before, command, _ = COMMANDS['finetune']
    for line in (*before, [*command, '--force_yml', f'train:precision={precision}']):
        code, output = run(folder, *line)
        assert code == 0, output
