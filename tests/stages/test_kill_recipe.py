"""kill -9 at random moments of the finetune and sample stages: a rerun ends with the files of an uninterrupted run."""

import hashlib
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

sys.path.append(str(Path(__file__).parents[1] / 'models'))
from latent_recipe import make_stages, recipe, write_recipe

REPOSITORY = Path(__file__).parents[2]
ENVIRONMENT = {'PATH': '/usr/bin:/bin', 'PYTHONPATH': str(REPOSITORY), 'OMP_NUM_THREADS': '1', 'HF_HUB_OFFLINE': '1',
               'CUDA_VISIBLE_DEVICES': ''}


def start(root):
    command = [sys.executable, '-m', 'basicsr_distill', 'distill', '-opt', str(root / 'tiny.yml'), '--stage', 'finetune',
               'sample']
    return subprocess.Popen(command, cwd=root, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def prepare(root):
    root.mkdir()
    make_stages(root)
    options = recipe(root, total_iter=300)
    # Paths relative to the working folder, so that both runs have the same options.
    options['datasets']['train'].update(dataroot='patches', labels_file='clusters/labels.csv')
    options['logger']['save_checkpoint_freq'] = 40
    options['extract'] = {'dataroot': 'photos', 'save_dir': 'patches', 'patch_size': 32}
    options['cluster'] = {'save_dir': 'clusters', 'encoder': {'type': 'texture'}}
    options['sample'] = {'images_per_cluster': 30, 'num_steps': 20, 'batch_size': 2, 'save_dir': 'set', 'oversample': 2}
    write_recipe(root / 'tiny.yml', options)


def digests(root):
    files = [path for folder in ('set', 'experiments/tiny/latents') for path in sorted((root / folder).rglob('*'))]
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files if path.is_file()}


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_ten_kills_change_nothing(tmp_path):
    whole, killed = tmp_path / 'whole', tmp_path / 'killed'
    for root in (whole, killed):
        prepare(root)
    begin = time.monotonic()
    process = start(whole)
    assert process.wait() == 0, process.stderr.read().decode()[-3000:]
    duration = time.monotonic() - begin

    generator, kills = random.Random(0), 0
    while kills < 10:
        process = start(killed)
        try:
            # Later and later, so that every part of the run is hit.
            process.wait(timeout=duration * (0.3 + 0.07 * kills) * generator.uniform(0.8, 1.2))
            break
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            kills += 1
    process = start(killed)
    assert process.wait() == 0, process.stderr.read().decode()[-3000:]
    assert kills >= 2, "the machine was too quick or too slow for the kills to land"
    assert digests(killed) == digests(whole)
    first, second = (torch.load(root / 'experiments' / 'tiny' / 'models' / 'net_g_latest.pth', weights_only=True)
                     for root in (whole, killed))
    for key in ('params', 'params_ema'):
        assert all(torch.equal(value, second[key][name]) for name, value in first[key].items())
