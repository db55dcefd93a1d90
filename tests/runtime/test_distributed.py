"""Process groups: none, one by environment, two by torchrun's variables, slurm's translation."""

import os
import socket
import stat
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch

from basicsr_distill.errors import InputError
from basicsr_distill.runtime import distributed

REPOSITORY = Path(__file__).parents[2]
LAUNCHER_VARIABLES = ('RANK', 'WORLD_SIZE', 'LOCAL_RANK', 'MASTER_ADDR', 'MASTER_PORT', 'SLURM_PROCID', 'SLURM_NTASKS',
                      'SLURM_LOCALID', 'SLURM_NODELIST')


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


@pytest.mark.parametrize(('launcher', 'sentence'), [
    ('mpi', 'choose none, pytorch or slurm'),
    ('pytorch', 'RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT not set; start the command with torchrun'),
    ('slurm', 'SLURM_PROCID, SLURM_NTASKS, SLURM_LOCALID, SLURM_NODELIST not set; start the command with srun'),
])
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


def run_two_processes(script):
    """Standard output of both ranks."""
    port = free_port()
    processes = [
        subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True, env={
            **os.environ, 'PYTHONPATH': str(REPOSITORY), 'CUDA_VISIBLE_DEVICES': '', 'RANK': str(rank),
            'WORLD_SIZE': '2', 'LOCAL_RANK': str(rank), 'MASTER_ADDR': '127.0.0.1', 'MASTER_PORT': port})
        for rank in range(2)
    ]
    return [process.communicate(timeout=120)[0].strip() for process in processes]


def test_what_one_rank_cannot_do_all_ranks_raise(tmp_path):
    script = tmp_path / 'script.py'
    script.write_text(textwrap.dedent("""
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
    """))
    expected = 'InputError x.png: not an image\nOSError [Errno 28] No space left on device\ndone'
    assert run_two_processes(script) == [expected, expected]


def test_two_processes_meet(tmp_path):
    script = tmp_path / 'script.py'
    script.write_text(textwrap.dedent("""
        import torch
        from basicsr_distill.runtime import distributed as d
        d.init('pytorch')
        d.init('pytorch')  # a second call is harmless
        d.barrier()
        start_method = torch.multiprocessing.get_start_method()
        print(d.rank(), d.world_size(), d.is_main(), d.gather({'from': d.rank()}), start_method)
        d.cleanup()
        assert d.world_size() == 1
    """))
    outputs = run_two_processes(script)
    both = "[{'from': 0}, {'from': 1}] spawn"
    assert outputs == [f'0 2 True {both}', f'1 2 False {both}']
