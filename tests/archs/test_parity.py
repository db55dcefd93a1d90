"""Against the numbers recorded from the published implementations, where that folder stands beside the repository."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from archs.networks import HIT, PUBLISHED
from basicsr.archs import build_network

PARITY = Path(__file__).parents[2].parent / 'shared' / 'parity'
pytestmark = pytest.mark.skipif(not PARITY.is_dir(), reason='no recorded numbers beside the repository')

CLASSICAL = {'depths': [2, 2], 'num_heads': [6, 6]}
CONFIGS = {
    'srformer_light_x4': PUBLISHED['SRFormer-light'],
    'srformer_w24_x4': {**PUBLISHED['SRFormer-w24'], **CLASSICAL},
    'srformer_w22_x4': {**PUBLISHED['SRFormer-w22'], **CLASSICAL},
    **{f'{name.lower()}_x4': PUBLISHED[name] for name in HIT},
    **{f'{name.lower()}_x4_1group': {**PUBLISHED[name], 'depths': [6], 'num_heads': [6]} for name in HIT},
}


def test_recorded_outputs():
    run = subprocess.run(
        [sys.executable, PARITY / 'check.py', '--plugin', 'basicsr_distill', '--threads', '1'],
        capture_output=True,
        text=True,
        env={**os.environ, 'PYTHONPATH': str(Path(__file__).parents[2])},
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout.rstrip().endswith('PASS: 2 configs')


@pytest.mark.parametrize('name', CONFIGS)
def test_recorded_keys_shapes_and_dtypes(name):
    recorded = json.loads((PARITY / 'state_dict_keys.json').read_text())
    assert set(recorded) == set(CONFIGS)
    state_dict = build_network({**CONFIGS[name], 'upscale': 4}).state_dict()
    have = {key: [list(value.shape), str(value.dtype).removeprefix('torch.')] for key, value in state_dict.items()}
    assert have == recorded[name]
