"""Two processes over gloo train what one process trains."""

from pathlib import Path

import pytest
import torch
from latent_recipe import make_stages, recipe, write_recipe
from support import torchrun

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
        torchrun('-m', 'basicsr_distill', 'train', '-opt', path, '--launcher', 'pytorch', ranks=ranks, cwd=root)
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
