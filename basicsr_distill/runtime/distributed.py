"""Process groups for CPU and GPU: start one, ask it, end it; without one, all answers are for a single process."""

import datetime
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from basicsr_distill.errors import InputError

# Rank 0 validates and writes alone while the others wait in their next collective: hours are no sign of a fault, and a
# rank that dies is noticed at once by its closed connection.
_TIMEOUT = datetime.timedelta(hours=6)


def init(launcher: str, port: int | None = None) -> None:
    """Join the process group that a launcher describes in the environment; ``none`` does nothing.

    CPU tensors travel over gloo and CUDA tensors over NCCL; each rank uses the GPU of its local rank.

    Args:
        launcher: ``none``, ``pytorch`` (torchrun) or ``slurm`` (srun).
        port: TCP port of rank 0 under slurm; the default is ``MASTER_PORT``, else 29500.

    Raises:
        InputError: the launcher is unknown, its environment is incomplete, or the machine has fewer GPUs than ranks.
    """
    if launcher == 'none' or dist.is_initialized():
        return
    if launcher == 'slurm':
        _export_slurm_environment(port)
    elif launcher != 'pytorch':
        raise InputError(f'--launcher {launcher}: choose none, pytorch or slurm.')
    missing = [name for name in ('RANK', 'WORLD_SIZE', 'MASTER_ADDR', 'MASTER_PORT') if name not in os.environ]
    if missing:
        raise InputError(f'--launcher {launcher}: {", ".join(missing)} not set; start the command with torchrun.')
    # A forked data worker would inherit the locks of gloo's and NCCL's threads and a dead CUDA context.
    if mp.get_start_method(allow_none=True) is None:
        mp.set_start_method('spawn')
    backend = 'gloo'
    if torch.cuda.is_available():
        num_gpus = torch.cuda.device_count()
        local_rank = int(os.environ.get('LOCAL_RANK', os.environ['RANK']))
        if local_rank >= num_gpus:
            raise InputError(f'--launcher {launcher}: local rank {local_rank} has no GPU of its own ({num_gpus} here); '
                             f'start at most {num_gpus} processes on this machine.')
        torch.cuda.set_device(local_rank)
        backend = 'cpu:gloo,cuda:nccl'
    dist.init_process_group(backend, timeout=_TIMEOUT)


def _export_slurm_environment(port: int | None) -> None:
    """Translate slurm's variables into those of torch.distributed."""
    environment = os.environ
    missing = [name for name in ('SLURM_PROCID', 'SLURM_NTASKS', 'SLURM_LOCALID', 'SLURM_NODELIST')
               if name not in environment]
    if missing:
        raise InputError(f'--launcher slurm: {", ".join(missing)} not set; start the command with srun.')
    environment['RANK'] = environment['SLURM_PROCID']
    environment['WORLD_SIZE'] = environment['SLURM_NTASKS']
    environment['LOCAL_RANK'] = environment['SLURM_LOCALID']
    if port is not None:
        environment['MASTER_PORT'] = str(port)
    environment.setdefault('MASTER_PORT', '29500')
    if 'MASTER_ADDR' not in environment:
        command = ['scontrol', 'show', 'hostnames', environment['SLURM_NODELIST']]
        try:
            hosts = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
        except (OSError, subprocess.CalledProcessError) as error:
            raise InputError(f'--launcher slurm: `{" ".join(command)}` failed ({error}); '
                             'set MASTER_ADDR to the first node.') from error
        environment['MASTER_ADDR'] = hosts[0]


def rank() -> int:
    """This process's number in the group, 0 without one."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Number of processes in the group, 1 without one."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_main() -> bool:
    """Whether this process writes the files that all share."""
    return rank() == 0


def barrier() -> None:
    """Wait until every rank is here."""
    if dist.is_initialized():
        dist.barrier()


def gather(item: Any) -> list[Any]:
    """One small object of every rank, in rank order, on every rank; all ranks must call it.

    Args:
        item: anything picklable; tensors should lie on the CPU.
    """
    if not dist.is_initialized():
        return [item]
    items: list[Any] = [None] * world_size()
    dist.all_gather_object(items, item)
    return items


@contextmanager
def broadcast_failure() -> Iterator[None]:
    """Work that every rank does its part of: afterwards all go on, or all raise what the first of them could not do.

    Without it the ranks that succeed would wait for one that is gone, until the process group breaks down.

    Raises:
        InputError, OSError: as some rank did; any other exception leaves its rank at once.
    """
    own: Exception | None = None
    shared: Exception | None = None  # of a class that every rank can unpickle
    try:
        yield
    except InputError as error:
        own, shared = error, InputError(str(error))
    except OSError as error:
        own, shared = error, OSError(error.errno, error.strerror or str(error), error.filename)
    failures = [failure for failure in gather(shared) if failure is not None]
    if failures:
        raise failures[0] from own


def cleanup() -> None:
    """Leave the process group, as every exit of a command must (NCCL's threads otherwise warn or hang)."""
    if dist.is_initialized():
        dist.destroy_process_group()
