"""Commands in processes of their own, which can be killed: forked from a server that has imported everything."""

import hashlib
import multiprocessing
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import cv2
import torch

import basicsr_distill.benchmark.run
import basicsr_distill.stages.extract.stage
import basicsr_distill.stages.pipeline
import basicsr_distill.stages.sample.stage
import basicsr_distill.stages.select.stage
import basicsr_distill.training.test
import basicsr_distill.training.train  # noqa: F401
from basicsr_distill.cli import main

# The server finds what it is to import by this variable alone before Python 3.13.
os.environ['PYTHONPATH'] = os.pathsep.join([str(Path(__file__).parent), os.environ.get('PYTHONPATH', '')])
_CONTEXT = multiprocessing.get_context('forkserver')
_CONTEXT.set_forkserver_preload(['dying'])
OUTPUT = 'output.txt'


def start(
    folder: Path, *arguments: str, prepare: Callable[..., None] | None = None, given: tuple[object, ...] = ()
) -> ForkServerProcess:
    """A ``basicsr`` command in a folder; what it prints goes to ``output.txt`` beside the folder.

    Args:
        folder: its working folder.
        arguments: of the command.
        prepare: called with ``given`` in the process, before the command.
        given: arguments of ``prepare``.
    """
    process = _CONTEXT.Process(target=_run, args=(folder, arguments, prepare, given))
    process.start()
    return process


def start_ranks(
    folder: Path,
    ranks: int,
    *arguments: str,
    prepare: dict[int, tuple[Callable[..., None], tuple[object, ...]]] | None = None,
) -> list[ForkServerProcess]:
    """Start the command on several ranks, joined by gloo; each writes to an output of its own.

    Args:
        folder: where it runs.
        ranks: how many.
        *arguments: of ``basicsr``.
        prepare: by rank, what :func:`start` takes.
    """
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    processes = []
    for rank in range(ranks):
        environment = {
            'RANK': str(rank),
            'LOCAL_RANK': str(rank),
            'WORLD_SIZE': str(ranks),
            'LOCAL_WORLD_SIZE': str(ranks),
            'MASTER_ADDR': '127.0.0.1',
            'MASTER_PORT': str(port),
        }
        process = _CONTEXT.Process(
            target=_run,
            args=(folder, (*arguments, '--launcher', 'pytorch'), *(prepare or {}).get(rank, (None, ())), environment),
        )
        process.start()
        processes.append(process)
    return processes


def join_ranks(folder: Path, processes: list[ForkServerProcess], timeout_s: float = 120) -> tuple[list[int], list[str]]:
    """Exit codes and outputs of ranks; one that hangs is killed, and has -9."""
    limit = time.monotonic() + timeout_s
    for process in processes:
        process.join(max(0.0, limit - time.monotonic()))
        if process.is_alive():
            process.kill()
            process.join()
    return (
        [process.exitcode or 0 for process in processes],
        [output_of(folder, rank).read_text(errors='replace') for rank in range(len(processes))],
    )


def run(
    folder: Path, *arguments: str, prepare: Callable[..., None] | None = None, given: tuple[object, ...] = ()
) -> tuple[int, str]:
    """A command from beginning to end: its exit code, and what it printed."""
    process = start(folder, *arguments, prepare=prepare, given=given)
    process.join(300)
    if process.is_alive():
        process.kill()
    assert process.exitcode is not None
    return process.exitcode, output_of(folder).read_text(errors='replace')


def output_of(folder: Path, rank: int | str = '') -> Path:
    """Where a command's output goes."""
    return folder.with_name(f'{folder.name}.{OUTPUT}{rank}')


def _run(
    folder: Path,
    arguments: tuple[str, ...],
    prepare: Callable[..., None] | None,
    given: tuple[object, ...],
    environment: Mapping[str, str] = {},
) -> None:
    os.environ.update(environment)
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    os.chdir(folder)
    with open(output_of(folder, environment.get('RANK', '')), 'wb') as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    if prepare is not None:
        prepare(*given)
    sys.exit(main(list(arguments)))


def die_at_replacement(number: int) -> None:
    """Be killed just before (even numbers) or after (odd ones) the file ``number // 2`` gets its name."""
    replace, seen = os.replace, 0

    def counting(source: object, target: object) -> None:
        nonlocal seen
        if seen == number // 2 and number % 2 == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        replace(source, target)  # type: ignore[arg-type]
        if seen == number // 2:
            os.kill(os.getpid(), signal.SIGKILL)
        seen += 1

    os.replace = counting  # type: ignore[assignment]


def limit_files(num_bytes: int) -> None:
    """Let no file grow beyond so many bytes, as on a disk that is full."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, num_bytes))


def digests(folder: Path, *patterns: str) -> dict[str, str]:
    """SHA-256 of the files that match, by relative path; of checkpoints, of what they hold.

    Their bytes also tell which of their values were one object, as those that were read again are not.
    """
    found = {}
    for path in (path for pattern in patterns for path in sorted(folder.glob(pattern)) if path.is_file()):
        digest = hashlib.sha256()
        if path.suffix in ('.pth', '.state'):
            _add(digest, torch.load(path, weights_only=True))
        else:
            digest.update(path.read_bytes())
        found[str(path.relative_to(folder))] = digest.hexdigest()
    return found


def _add(digest: Any, value: Any) -> None:
    if isinstance(value, torch.Tensor):
        digest.update(f'{value.dtype}{tuple(value.shape)}'.encode() + value.contiguous().numpy().tobytes())
    elif isinstance(value, dict):
        digest.update(b'{')
        for key, entry in value.items():
            digest.update(repr(key).encode())
            _add(digest, entry)
    elif isinstance(value, (list, tuple)):
        digest.update(b'[')
        for entry in value:
            _add(digest, entry)
    else:
        digest.update(repr(value).encode())
