"""Against numbers recorded from the published implementations; all of them where ../shared/parity stands."""

import gzip
import json
import os
import subprocess
import sys
import zlib

import numpy as np
import pytest
import torch
from archs.networks import HIT, PUBLISHED
from basicsr.archs import build_network
from support import REPOSITORY

PARITY = REPOSITORY.parent / 'shared' / 'parity'
FIXTURES = REPOSITORY / 'tests' / 'fixtures' / 'parity'

CLASSICAL = {'depths': [2, 2], 'num_heads': [6, 6]}
CONFIGS = {
    'srformer_light_x4': PUBLISHED['SRFormer-light'],
    'srformer_w24_x4': {**PUBLISHED['SRFormer-w24'], **CLASSICAL},
    'srformer_w22_x4': {**PUBLISHED['SRFormer-w22'], **CLASSICAL},
    **{f'{name.lower()}_x4': PUBLISHED[name] for name in HIT},
    **{f'{name.lower()}_x4_1group': {**PUBLISHED[name], 'depths': [6], 'num_heads': [6]} for name in HIT},
}


def set_recorded_parameters(network: torch.nn.Module) -> None:
    """Give each parameter the values under which the outputs were recorded: drawn from a seed that is its key's CRC."""
    for key, parameter in network.named_parameters():
        drawn = np.random.RandomState(zlib.crc32(key.encode())).standard_normal(tuple(parameter.shape))
        if parameter.dim() == 1:
            drawn = 0.1 * drawn + key.endswith('weight')
        elif 'relative_position_bias_table' not in key:
            drawn /= np.sqrt(np.prod(parameter.shape[1:]))
            if key.startswith(('upsample.', 'conv_last.')):
                drawn *= 0.5
        parameter.data = torch.from_numpy(drawn.astype(np.float32))


@pytest.mark.parametrize('name', ['srformer_light_x4', 'hit_sir_x4'])
def test_recorded_outputs(name: str) -> None:
    recorded = np.load(FIXTURES / 'outputs.npz')
    network = build_network({**CONFIGS[name], 'upscale': 4}).eval()
    set_recorded_parameters(network)
    with torch.no_grad():
        output = network(torch.from_numpy(recorded[f'{name}/input'])).double().numpy().ravel()
    assert output[recorded[f'{name}/positions']] == pytest.approx(recorded[f'{name}/outputs'], abs=1e-4)
    assert [output.mean(), output.std()] == pytest.approx(recorded[f'{name}/mean_std'], abs=1e-4)


@pytest.mark.parametrize('name', CONFIGS)
def test_recorded_keys_shapes_and_dtypes(name: str) -> None:
    recorded = json.loads(gzip.decompress((FIXTURES / 'state_dict_keys.json.gz').read_bytes()))
    assert set(recorded) == set(CONFIGS)
    state_dict = build_network({**CONFIGS[name], 'upscale': 4}).state_dict()
    have = {key: [list(value.shape), str(value.dtype).removeprefix('torch.')] for key, value in state_dict.items()}
    assert have == recorded[name]


@pytest.mark.skipif(not PARITY.is_dir(), reason='no ../shared/parity: the numbers of tests/fixtures were compared')
def test_every_recorded_output_and_buffer() -> None:
    run = subprocess.run(
        [sys.executable, PARITY / 'check.py', '--plugin', 'basicsr_distill', '--threads', '1'],
        capture_output=True,
        text=True,
        env={**os.environ, 'PYTHONPATH': str(REPOSITORY)},
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout.rstrip().endswith('PASS: 2 configs')
