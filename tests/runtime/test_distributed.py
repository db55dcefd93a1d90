"""Process groups: none, one by environment, two by torchrun's variables, slurm's translation."""

import os
import socket
import stat
import subprocess
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from basicsr_distill.errors import InputError
from basicsr_distill.io.locks import lock_beside, locked
from basicsr_distill.runtime import distributed
from basicsr_distill.runtime.parallel import default_workers

REPOSITORY = Path(__file__).parents[2]
LAUNCHER_VARIABLES = (
    'RANK',
    'WORLD_SIZE',
    'LOCAL_RANK',
    'MASTER_ADDR',
    'MASTER_PORT',
    'SLURM_PROCID',
    'SLURM_NTASKS',
    'SLURM_LOCALID',
    'SLURM_NODELIST',
    'SLURM_NODEID',
    'SLURM_STEP_TASKS_PER_NODE',
    'SLURM_TASKS_PER_NODE',
    'SLURM_NTASKS_PER_NODE',
    'SLURM_CPUS_PER_TASK',
    'LOCAL_WORLD_SIZE',
)


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return str(probe.getsockname()[1])


@pytest.fixture
def environment(monkeypatch):
    """No launcher's variables; the start method of this process stays as it is."""
    for name in LAUNCHER_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(torch.multiprocessing, 'get_start_method', lambda allow_none: 'fork')
    yield monkeypatch
    distributed.cleanup()
    # os.environ may have been extended by the code under test, which monkeypatch cannot know of.
    for name in LAUNCHER_VARIABLES:
        os.environ.pop(name, None)


def test_without_a_group_there_is_one_process(environment):
    distributed.init('none')
    distributed.barrier()
    assert (distributed.rank(), distributed.world_size(), distributed.is_main()) == (0, 1, True)
    assert distributed.gather('x') == ['x']
    distributed.cleanup()
    assert not torch.distributed.is_initialized()


@pytest.mark.parametrize(
    ('launcher', 'sentence'),
    [
        ('mpi', 'choose none, pytorch or slurm'),
        ('pytorch', 'RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT not set; start the command with torchrun'),
        ('slurm', 'SLURM_PROCID, SLURM_NTASKS, SLURM_LOCALID, SLURM_NODELIST not set; start the command with srun'),
    ],
)
def test_wrong_launch_is_one_sentence(environment, launcher, sentence):
    with pytest.raises(InputError, match=sentence):
        distributed.init(launcher)


def test_slurm_variables_become_those_of_torch(environment, tmp_path):
    scontrol = tmp_path / 'scontrol'
    scontrol.write_text('#!/bin/sh\n[ "$*" = "show hostnames node[1-2]" ] && printf "127.0.0.1\\nnode2\\n"\n')
    scontrol.chmod(scontrol.stat().st_mode | stat.S_IXUSR)
    environment.setenv('PATH', f'{tmp_path}:/bin:/usr/bin')
    for name, value in {'PROCID': '0', 'NTASKS': '1', 'LOCALID': '0', 'NODELIST': 'node[1-2]'}.items():
        environment.setenv(f'SLURM_{name}', value)
    port = free_port()
    distributed.init('slurm', port=int(port))
    assert os.environ['MASTER_ADDR'] == '127.0.0.1' and os.environ['MASTER_PORT'] == port
    assert (distributed.rank(), distributed.world_size()) == (0, 1)


def test_missing_scontrol_asks_for_the_address(environment, tmp_path):
    environment.setenv('PATH', str(tmp_path))
    for name in ('PROCID', 'NTASKS', 'LOCALID', 'NODELIST'):
        environment.setenv(f'SLURM_{name}', '0')
    with pytest.raises(InputError, match='set MASTER_ADDR'):
        distributed.init('slurm')


@pytest.mark.parametrize(
    ('variables', 'tasks'),
    [
        ({'TASKS_PER_NODE': '4'}, 4),
        ({'TASKS_PER_NODE': '2(x3),1', 'NODEID': '2'}, 2),
        ({'TASKS_PER_NODE': '2(x3),1', 'NODEID': '3'}, 1),
        ({'TASKS_PER_NODE': '8(x2)', 'STEP_TASKS_PER_NODE': '2,3', 'NODEID': '1'}, 3),  # a step smaller than its job
        ({'NTASKS_PER_NODE': '4'}, 4),
        ({}, None),
    ],
)
def test_slurm_tasks_of_one_machine_are_counted(environment, variables, tasks):
    environment.setenv('MASTER_ADDR', '127.0.0.1')
    for name, value in {'PROCID': '0', 'NTASKS': '1', 'LOCALID': '0', 'NODELIST': 'node1', **variables}.items():
        environment.setenv(f'SLURM_{name}', value)
    distributed.init('slurm', port=int(free_port()))
    assert os.environ.get('LOCAL_WORLD_SIZE') == (None if tasks is None else str(tasks))
    assert default_workers() == max(1, len(os.sched_getaffinity(0)) // (tasks or 1))


def test_the_cores_of_a_slurm_task_are_its_own(environment):
    """But torchrun's ranks within one task share them."""
    environment.setattr(os, 'sched_getaffinity', lambda _: set(range(12)))
    for name, value in {
        'SLURM_NTASKS': '4',
        'WORLD_SIZE': '4',
        'SLURM_CPUS_PER_TASK': '3',
        'LOCAL_WORLD_SIZE': '4',
    }.items():
        environment.setenv(name, value)
    assert default_workers() == 3
    environment.setattr(os, 'sched_getaffinity', lambda _: set(range(3)))  # bound to them
    assert default_workers() == 3
    environment.setattr(os, 'sched_getaffinity', lambda _: set(range(12)))
    environment.setenv('SLURM_NTASKS', '1')
    environment.setenv('SLURM_CPUS_PER_TASK', '12')
    assert default_workers() == 3
    environment.setenv('LOCAL_WORLD_SIZE', '12')
    assert default_workers() == 1


@pytest.mark.parametrize(
    ('launcher', 'visible', 'gpu'),
    [
        ('slurm', 1, 0),  # --gpus-per-task=1
        ('slurm', 4, 1),
        ('pytorch', 4, 1),
        ('pytorch', 1, None),
    ],
)
def test_each_rank_takes_the_gpu_it_sees(environment, launcher, visible, gpu):
    chosen = []
    environment.setattr(torch.cuda, 'is_available', lambda: True)
    environment.setattr(torch.cuda, 'device_count', lambda: visible)
    environment.setattr(torch.cuda, 'set_device', chosen.append)
    environment.setattr(torch.distributed, 'init_process_group', lambda *_, **__: None)
    environment.setattr(torch.cuda, 'current_device', lambda: chosen[0])
    environment.setattr(torch.cuda, 'get_device_properties', lambda index: SimpleNamespace(uuid=f'GPU-{index}'))
    for name, value in {
        'SLURM_PROCID': '1',
        'SLURM_NTASKS': '2',
        'SLURM_LOCALID': '1',
        'SLURM_NODELIST': 'x',
        'RANK': '1',
        'WORLD_SIZE': '2',
        'LOCAL_RANK': '1',
        'MASTER_ADDR': 'x',
        'MASTER_PORT': '1',
    }.items():
        environment.setenv(name, value)
    if gpu is None:
        with pytest.raises(InputError, match='local rank 1 has no GPU of its own'):
            distributed.init(launcher)
    else:
        distributed.init(launcher)
    assert chosen == ([] if gpu is None else [gpu])
    environment.setattr(distributed, 'gather', lambda item: [item, item])
    with pytest.raises(InputError, match='2 processes share 1 GPUs'):
        chosen or chosen.append(0)
        distributed._refuse_shared_gpu(launcher)


def run_two_processes(script):
    """Standard output of both ranks."""
    port = free_port()
    processes = [
        subprocess.Popen(
            [sys.executable, str(script)],
            stdout=subprocess.PIPE,
            text=True,
            env={
                **os.environ,
                'PYTHONPATH': str(REPOSITORY),
                'CUDA_VISIBLE_DEVICES': '',
                'RANK': str(rank),
                'WORLD_SIZE': '2',
                'LOCAL_RANK': str(rank),
                'MASTER_ADDR': '127.0.0.1',
                'MASTER_PORT': port,
            },
        )
        for rank in range(2)
    ]
    return [process.communicate(timeout=120)[0].strip() for process in processes]


@pytest.mark.long
def test_what_one_rank_cannot_do_all_ranks_raise(tmp_path):
    script = tmp_path / 'script.py'
    script.write_text(
        textwrap.dedent("""
        import errno
        from basicsr_distill.runtime import distributed as d
        from basicsr_distill.errors import InputError
        d.init('pytorch')
        class OwnError(InputError):
            def __init__(self, name, reason, detail):  # cannot be unpickled
                super().__init__(f'{name}: {detail}')
        def attempt(work):
            try:
                with d.broadcast_failure():
                    work()
                print('done')
            except Exception as error:
                print(type(error).__name__, error)
        def refuse():
            if d.rank() == 1:
                raise OwnError('x.png', 'broken', 'not an image')
        def full():
            if d.rank() == 1:
                raise OSError(errno.ENOSPC, 'No space left on device')
        for work in (refuse, full, lambda: None):
            attempt(work)
        d.cleanup()
    """)
    )
    expected = 'InputError x.png: not an image\nOSError [Errno 28] No space left on device\ndone'
    assert run_two_processes(script) == [expected, expected]


@pytest.mark.long
def test_two_processes_meet(tmp_path):
    script = tmp_path / 'script.py'
    script.write_text(
        textwrap.dedent("""
        import torch
        from basicsr_distill.runtime import distributed as d
        d.init('pytorch')
        d.init('pytorch')  # a second call is harmless
        d.barrier()
        start_method = torch.multiprocessing.get_start_method()
        print(d.rank(), d.world_size(), d.is_main(), d.gather({'from': d.rank()}), start_method)
        d.cleanup()
        assert d.world_size() == 1
    """)
    )
    outputs = run_two_processes(script)
    both = "[{'from': 0}, {'from': 1}] spawn"
    assert outputs == [f'0 2 True {both}', f'1 2 False {both}']


@pytest.mark.long
def test_a_lock_and_the_state_to_resume_from_are_one_rank_s_word(tmp_path):
    script = tmp_path / 'script.py'
    script.write_text(
        textwrap.dedent("""
        import sys
        from pathlib import Path
        from basicsr_distill.errors import InputError
        from basicsr_distill.runtime import distributed as d
        from basicsr_distill.training import resume
        from basicsr_distill.training.run import locked_experiment
        d.init('pytorch')
        try:
            with locked_experiment(Path(sys.argv[0]).parent / 'tiny'):
                print('entered')
        except InputError as error:
            print(str(error).split('/')[-1])
        opt = {'auto_resume': True, 'path': {'training_states': '.', 'models': '.'}}
        # The other rank's disk shows a newer state than the first's.
        resume.newest_valid_state = lambda *_: Path('10.state') if d.is_main() else Path('20.state')
        resume.load_weights = lambda path: {'iter': path, 'optimizers': [], 'schedulers': []}
        resume.check_resume = lambda opt, iteration: None
        print(resume.resume_state(Path('x.yml'), opt)['iter'])
        d.cleanup()
    """)
    )
    with locked(lock_beside(tmp_path / 'tiny'), tmp_path / 'tiny'):
        outputs = run_two_processes(script)
    refusal, state = outputs[0].splitlines()
    assert refusal.startswith(f'tiny: in use by process {os.getpid()} on ') and state == '10.state'
    assert outputs[1] == outputs[0]
