"""``--launcher slurm`` under a real srun, and a job that is preempted and queued again."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from dying import digests, run
from small_project import COMMANDS, make_project
from support import REPOSITORY

pytestmark = pytest.mark.slow
BASICSR = f'{sys.executable} -m basicsr_distill'


@pytest.fixture
def cluster(slurm: dict[str, str]) -> dict[str, str]:
    """Slurm's environment, in which jobs find this package."""
    return {**slurm, 'PYTHONPATH': f'{REPOSITORY}:{os.environ.get("PYTHONPATH", "")}', 'CUDA_VISIBLE_DEVICES': ''}


def srun(command: str, folder: Path, environment: dict[str, str]) -> tuple[int, str]:
    """A command as two tasks, with two cores or less."""
    done = subprocess.run(
        ['srun', '--ntasks', '2', '--overcommit', 'bash', '-c', command],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    return done.returncode, done.stdout + done.stderr


def project(folder: Path) -> Path:
    folder.mkdir()
    return make_project(folder)


@pytest.mark.parametrize(
    ('name', 'other'),
    [('extract', 'extract:patch_size=48'), ('cluster', 'cluster:seed=9'), ('sample', 'sample:seed=9')],
)
def test_stages_on_two_tasks(name: str, other: str, cluster: dict[str, str], tmp_path: Path) -> None:
    one, two = project(tmp_path / 'one'), project(tmp_path / 'two')
    before, command, files = COMMANDS[name]
    for folder in (one, two):
        for line in before:
            code, output = run(folder, *line)
            assert code == 0, output
    code, output = run(one, *command)
    assert code == 0, output
    code, output = srun(f'{BASICSR} {" ".join(command)} --launcher slurm', two, cluster)
    assert code == 0, output
    assert digests(two, *files) == digests(one, *files)
    code, output = srun(f'{BASICSR} {" ".join(command)} --launcher slurm --force_yml {other}', two, cluster)
    assert code == 2 and 'Traceback' not in output and 'basicsr: ' in output, output


def test_a_training_on_two_tasks(cluster: dict[str, str], tmp_path: Path) -> None:
    """Whose global batch is that of one process with twice the batch."""
    one, two = project(tmp_path / 'one'), project(tmp_path / 'two')
    options = yaml.safe_load((one / 'train.yml').read_text())
    options['datasets']['train']['batch_size_per_gpu'] *= 2
    (one / 'train.yml').write_text(yaml.safe_dump(options))
    code, output = run(one, *COMMANDS['train'][1])
    assert code == 0, output
    code, output = srun(f'{BASICSR} train -opt train.yml --launcher slurm', two, cluster)
    assert code == 0, output
    import torch

    first, second = (
        torch.load(folder / 'experiments/sr/models/net_g_latest.pth', weights_only=True)['params']
        for folder in (one, two)
    )
    for name, value in first.items():  # gradients are added in another order
        torch.testing.assert_close(second[name], value, rtol=1e-3, atol=1e-5)


def test_each_task_takes_the_one_gpu_that_it_sees(cluster: dict[str, str], tmp_path: Path) -> None:
    """As --gpus-per-task=1 shows it: number 0 in every task. There is no GPU here; torch is told that there is one."""
    script = tmp_path / 'gpu.py'
    script.write_text(
        'import os, torch\nfrom basicsr_distill.runtime import distributed\n'
        'torch.cuda.device_count = lambda: 1\n'
        'os.environ.update(RANK=os.environ["SLURM_PROCID"], LOCAL_RANK=os.environ["SLURM_LOCALID"])\n'
        'print("rank", os.environ["RANK"], "gpu", distributed._own_gpu("slurm"))\n'
    )
    code, output = srun(f'{sys.executable} {script}', tmp_path, cluster)
    assert code == 0, output
    assert sorted(output.split('\n')[:2]) == ['rank 0 gpu 0', 'rank 1 gpu 0']


def test_a_preempted_job_goes_on_where_it_was(cluster: dict[str, str], tmp_path: Path) -> None:
    """SIGTERM, the queue, and the same command with --auto_resume: the weights are those of an undisturbed run."""
    whole, preempted = project(tmp_path / 'whole'), project(tmp_path / 'preempted')
    for folder in (whole, preempted):
        options = yaml.safe_load((folder / 'train.yml').read_text())
        options['train']['total_iter'] = 1500
        options['logger'] = {'print_freq': 50, 'save_checkpoint_freq': 1000}
        (folder / 'train.yml').write_text(yaml.safe_dump(options))
    code, output = run(whole, *COMMANDS['train'][1])
    assert code == 0, output
    (preempted / 'job.sh').write_text(
        '#!/bin/bash\n#SBATCH --requeue --open-mode=append --output=job.txt\n'
        f'exec srun {BASICSR} train -opt train.yml --auto_resume\n'
    )
    job = subprocess.run(
        ['sbatch', '--parsable', 'job.sh'], cwd=preempted, env=cluster, capture_output=True, text=True, check=True
    ).stdout.strip()
    log = preempted / 'job.txt'
    _wait(lambda: log.is_file() and 'iter:     100' in log.read_text())
    subprocess.run(['scontrol', 'requeue', job], env=cluster, check=True)
    _wait(lambda: 'End of training at iteration 1500.' in log.read_text())
    said = log.read_text()
    assert 'Stopped by signal 15 after a checkpoint' in said and 'Resuming training from iteration' in said
    _wait(
        lambda: (
            'JobState=COMPLETED'
            in subprocess.run(
                ['scontrol', 'show', 'job', job], env=cluster, capture_output=True, text=True, check=True
            ).stdout
        )
    )
    last = ['experiments/sr/models/net_g_latest.pth', 'experiments/sr/training_states/1500.state']
    assert digests(preempted, *last) == digests(whole, *last)


def _wait(reached: object, timeout_s: float = 180) -> None:
    limit = time.monotonic() + timeout_s
    while not reached():  # type: ignore[operator]
        assert time.monotonic() < limit
        time.sleep(0.2)
