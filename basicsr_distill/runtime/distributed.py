"""Process groups for CPU and GPU: start one, ask it, end it; without one, all answers are for a single process."""

import datetime
import gc
import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakSet

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from basicsr_distill.errors import InputError

# Rank 0 validates and writes alone while the others wait in their next collective: hours are no sign of a fault, and a
# rank that dies is noticed at once by its closed connection.
_TIMEOUT = datetime.timedelta(hours=6)
_wrapped: WeakSet[DistributedDataParallel] = WeakSet()


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
        torch.cuda.set_device(_own_gpu(launcher))
        backend = 'cpu:gloo,cuda:nccl'
    dist.init_process_group(backend, timeout=_TIMEOUT)
    if torch.cuda.is_available():
        _refuse_shared_gpu(launcher)


def _own_gpu(launcher: str) -> int:
    """Index of this rank's GPU among those it sees."""
    num_gpus = torch.cuda.device_count()
    local_rank = int(os.environ.get('LOCAL_RANK', os.environ['RANK']))
    if launcher == 'slurm' and num_gpus == 1:
        return 0  # --gpus-per-task=1 shows every task its own GPU alone, as number 0
    if local_rank >= num_gpus:
        raise InputError(
            f'--launcher {launcher}: local rank {local_rank} has no GPU of its own ({num_gpus} here); '
            f'start at most {num_gpus} processes on this machine.'
        )
    return local_rank


def _refuse_shared_gpu(launcher: str) -> None:
    """NCCL ends in a traceback where two ranks share a GPU, as tasks do that all see the one GPU of their job."""
    gpus = gather(str(torch.cuda.get_device_properties(torch.cuda.current_device()).uuid))
    if len(set(gpus)) < len(gpus):
        cleanup()
        raise InputError(
            f'--launcher {launcher}: {len(gpus)} processes share {len(set(gpus))} GPUs; give each its own '
            '(slurm: --gpus-per-task=1) or start fewer.'
        )


def _export_slurm_environment(port: int | None) -> None:
    """Translate slurm's variables into those of torch.distributed."""
    environment = os.environ
    missing = [
        name for name in ('SLURM_PROCID', 'SLURM_NTASKS', 'SLURM_LOCALID', 'SLURM_NODELIST') if name not in environment
    ]
    if missing:
        raise InputError(f'--launcher slurm: {", ".join(missing)} not set; start the command with srun.')
    environment['RANK'] = environment['SLURM_PROCID']
    environment['WORLD_SIZE'] = environment['SLURM_NTASKS']
    environment['LOCAL_RANK'] = environment['SLURM_LOCALID']
    if (tasks := _slurm_tasks_here()) is not None:
        environment['LOCAL_WORLD_SIZE'] = str(tasks)
    if port is not None:
        environment['MASTER_PORT'] = str(port)
    environment.setdefault('MASTER_PORT', '29500')
    if 'MASTER_ADDR' not in environment:
        command = ['scontrol', 'show', 'hostnames', environment['SLURM_NODELIST']]
        try:
            hosts = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
        except (OSError, subprocess.CalledProcessError) as error:
            raise InputError(
                f'--launcher slurm: `{" ".join(command)}` failed ({error}); set MASTER_ADDR to the first node.'
            ) from error
        environment['MASTER_ADDR'] = hosts[0]


def _slurm_tasks_here() -> int | None:
    """Number of tasks on this machine; None where slurm does not say."""
    environment = os.environ
    # Of the step before that of the job; '2(x3),1' are three machines with two tasks and one with one.
    listed = environment.get('SLURM_STEP_TASKS_PER_NODE') or environment.get('SLURM_TASKS_PER_NODE') or ''
    counts: list[int] = []
    for count, repeats in re.findall(r'(\d+)(?:\(x(\d+)\))?', listed):
        counts += [int(count)] * int(repeats or 1)
    node = int(environment.get('SLURM_NODEID', '0'))
    if node < len(counts):
        return counts[node]
    per_node = environment.get('SLURM_NTASKS_PER_NODE', '')
    return int(per_node) if per_node.isdigit() else None


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


def is_lost_rank(error: RuntimeError) -> bool:
    """Whether an error says that another rank has gone: gloo and NCCL say it in their messages alone."""
    if dist.is_initialized():
        return isinstance(error, dist.DistError) or 'gloo' in str(error)
    # While the ranks meet, other errors are possible, an address in use among them.
    return isinstance(error, dist.DistNetworkError) and 'Connection reset' in str(error)


def wrap(net: nn.Module, find_unused_parameters: bool) -> DistributedDataParallel:
    """A network whose gradients are averaged over the ranks; :func:`cleanup` takes the group from it again."""
    devices = [torch.cuda.current_device()] if next(net.parameters()).is_cuda else None
    wrapped = DistributedDataParallel(net, device_ids=devices, find_unused_parameters=find_unused_parameters)
    _wrapped.add(wrapped)
    return wrapped


def cleanup() -> None:
    """Leave the process group, as every exit of a command must.

    The group's threads end with the last reference to it, and each wrapped network holds one. Threads that outlive
    Python's interpreter abort the process at its exit now and then, after all was done.
    """
    if not dist.is_initialized():
        return
    for net in list(_wrapped):
        # The network may live on, in a caller's variable or in the traceback of an exception that is on its way.
        for holder in ('reducer', 'logger', 'process_group'):
            setattr(net, holder, None)
    _wrapped.clear()
    dist.destroy_process_group()
    gc.collect()
