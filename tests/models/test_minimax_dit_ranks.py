"""Two processes over gloo train what one process trains."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from latent_recipe import make_stages, recipe, write_recipe

pytestmark = pytest.mark.long  # only `bash scripts/test.sh --all` and CI run it

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope='module')
def checkpoints(tmp_path_factory):
    """Final checkpoints and training states of one and of two processes with the same global batch."""
    root = tmp_path_factory.mktemp('ranks')
    make_stages(root)
    results = []
    for ranks in (1, 2):
        options = recipe(root, f'ranks{ranks}')
        options['datasets']['train']['batch_size_per_gpu'] = 4 // ranks
        path = write_recipe(root / f'ranks{ranks}.yml', options)
        command = [
            sys.executable,
            '-m',
            'torch.distributed.run',
            '--nproc_per_node',
            str(ranks),
            '--standalone',
            '-m',
            'basicsr_distill',
            'train',
            '-opt',
            str(path),
            '--launcher',
            'pytorch',
        ]
        run = subprocess.run(
            command,
            cwd=root,
            capture_output=True,
            text=True,
            timeout=240,
            env={
                'PATH': '/usr/bin:/bin',
                'PYTHONPATH': str(REPOSITORY),
                'OMP_NUM_THREADS': '1',
                'HF_HUB_OFFLINE': '1',
                'CUDA_VISIBLE_DEVICES': '',
            },
        )
        assert run.returncode == 0, run.stderr[-3000:]
        folder = root / 'experiments' / options['name']
        results.append(
            (
                torch.load(folder / 'models' / 'net_g_latest.pth', weights_only=True),
                torch.load(folder / 'training_states' / '8.state', weights_only=True),
            )
        )
    return results


def test_weights_are_equal(checkpoints):
    (one, _), (two, _) = checkpoints
    for key in ('params', 'params_ema'):
        for name, value in one[key].items():
            torch.testing.assert_close(two[key][name], value, rtol=0, atol=1e-5, msg=f'{key} {name}')


def test_memories_are_equal(checkpoints):
    (_, one), (_, two) = checkpoints
    for name, value in one['model_state']['losses'].items():
        torch.testing.assert_close(two['model_state']['losses'][name], value, rtol=0, atol=1e-5, msg=name)
