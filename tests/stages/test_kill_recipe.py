"""kill -9 at random moments of the finetune and sample stages: a rerun ends with the files of an uninterrupted run."""

import contextlib
import hashlib
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from latent_recipe import make_stages, recipe, write_recipe

REPOSITORY = Path(__file__).parents[2]
ENVIRONMENT = {'PATH': '/usr/bin:/bin', 'PYTHONPATH': str(REPOSITORY), 'OMP_NUM_THREADS': '1', 'HF_HUB_OFFLINE': '1',
               'CUDA_VISIBLE_DEVICES': ''}


ITERATIONS, LABELS, PER_LABEL = 300, 2, 30
IMAGES = LABELS * 2 * PER_LABEL  # twice as many as are kept


def start(root):
    command = [sys.executable, '-m', 'basicsr_distill', 'distill', '-opt', str(root / 'tiny.yml'), '--stage',
               'finetune', 'sample']
    return subprocess.Popen(command, cwd=root, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def prepare(root):
    root.mkdir()
    make_stages(root)
    options = recipe(root, total_iter=ITERATIONS)
    # Paths relative to the working folder, so that both runs have the same options.
    options['datasets']['train'].update(dataroot='patches', labels_file='clusters/labels.csv')
    options['logger']['save_checkpoint_freq'] = 40
    options['extract'] = {'dataroot': 'photos', 'save_dir': 'patches', 'patch_size': 32}
    options['cluster'] = {'save_dir': 'clusters', 'encoder': {'type': 'texture'}}
    options['sample'] = {'images_per_cluster': PER_LABEL, 'num_steps': 20, 'batch_size': 2, 'save_dir': 'set',
                         'oversample': 2}
    write_recipe(root / 'tiny.yml', options)


def digests(root):
    files = [path for folder in ('set', 'experiments/tiny/latents') for path in sorted((root / folder).rglob('*'))]
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files
            if path.is_file()}


def progress(root):
    """Share of the work that is on disk: half of it are iterations that a checkpoint holds, half are images drawn."""
    iterations = max((int(path.stem) for path in root.glob('experiments/tiny/training_states/*.state')), default=0)
    return 0.5 * iterations / ITERATIONS + 0.5 * sum(1 for _ in root.glob('set/**/*.png')) / IMAGES


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_ten_kills_change_nothing(tmp_path):
    whole, killed = tmp_path / 'whole', tmp_path / 'killed'
    for root in (whole, killed):
        prepare(root)
    process = start(whole)
    assert process.wait() == 0, process.stderr.read().decode()[-3000:]

    generator = random.Random(0)
    hit = []
    for moment in sorted(generator.uniform(0, 0.9) for _ in range(10)):
        process = start(killed)
        while progress(killed) < moment and process.poll() is None:
            time.sleep(0.01)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=generator.uniform(0, 0.3))
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, process.stderr.read().decode()[-3000:]
        hit.append(progress(killed))
    assert 0 < sum(share < 0.5 for share in hit) < 10, 'both stages are hit'
    process = start(killed)
    assert process.wait() == 0, process.stderr.read().decode()[-3000:]
    assert digests(killed) == digests(whole)
    first, second = (torch.load(root / 'experiments' / 'tiny' / 'models' / 'net_g_latest.pth', weights_only=True)
                     for root in (whole, killed))
    for key in ('params', 'params_ema'):
        assert all(torch.equal(value, second[key][name]) for name, value in first[key].items())
