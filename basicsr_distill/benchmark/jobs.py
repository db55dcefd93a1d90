"""Many processes, some at a time: on this machine, or by submitit on a cluster."""

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Protocol

from basicsr_distill.config.sections.benchmark import JobOptions
from basicsr_distill.errors import InputError
from basicsr_distill.runtime.parallel import default_workers

_LOGGER = logging.getLogger(__name__)
_SUBMITIT_MISSING = (
    'benchmark.jobs.executor: {executor} needs the package submitit; install it by '
    "`pip install 'basicsr-distill[slurm]'`."
)
# The purpose of the lock that a job holds on its folder.
JOB_LOCK = 'job'
_POLL_SECONDS = 1.0
_WORKER = (sys.executable, '-m', 'basicsr_distill.benchmark.worker')


@dataclass(frozen=True)
class Job:
    """A process of :mod:`basicsr_distill.benchmark.worker`.

    name: for messages.  home: folder of its option files and its log.  stages: of the recipe that lies there;
    none for a cell.
    """

    name: str
    home: Path
    stages: tuple[str, ...] = ()

    @property
    def arguments(self) -> tuple[str, ...]:
        """Of the worker."""
        return ('stages' if self.stages else 'cell', str(self.home), *self.stages)

    @property
    def log(self) -> Path:
        """What it prints."""
        return self.home / 'log.txt'


class Launcher(Protocol):
    """Runs one job and waits for it."""

    @property
    def processes(self) -> int | None:
        """Jobs at a time; None for all."""

    def __call__(self, job: Job) -> int:
        """The job's exit code."""

    def stop(self) -> None:
        """End the jobs that are running."""

    def close(self) -> None:
        """Nothing more is asked for."""


class LocalLauncher:
    """Processes of this machine, one a GPU or one a core; each gets a GPU of its own, or one thread.

    A slot is a server of :mod:`basicsr_distill.benchmark.worker` that forks a process for each job.
    """

    def __init__(self, options: JobOptions, num_gpus: int) -> None:
        self.processes: int = options.processes or num_gpus or default_workers()
        self._free: SimpleQueue[int] = SimpleQueue()
        for slot in range(self.processes):
            self._free.put(slot)
        self._num_gpus = num_gpus
        self._servers: dict[int, subprocess.Popen[bytes]] = {}
        self._lock = threading.Lock()
        self._stopped = False

    def __call__(self, job: Job) -> int:
        """Run a job and wait for it."""
        slot = self._free.get()
        try:
            with self._lock:
                if self._stopped:
                    return 1
                server = self._server(slot)
            line = json.dumps({'arguments': job.arguments, 'log': str(job.log)})
            assert server.stdin is not None and server.stdout is not None
            try:
                server.stdin.write(f'{line}\n'.encode())
                server.stdin.flush()
                answer = server.stdout.readline()
            except BrokenPipeError:
                answer = b''
            return int(answer) if answer else 1
        finally:
            self._free.put(slot)

    def stop(self) -> None:
        """Let running trainings make a checkpoint and end; waiting jobs do not start."""
        with self._lock:
            self._stopped = True
            for server in self._servers.values():
                os.killpg(server.pid, signal.SIGTERM)

    def close(self) -> None:
        """End the servers, which by now have nothing to do."""
        for server in self._servers.values():
            assert server.stdin is not None
            server.stdin.close()
            server.wait()

    def _server(self, slot: int) -> subprocess.Popen[bytes]:
        if slot not in self._servers or self._servers[slot].poll() is not None:
            self._servers[slot] = subprocess.Popen(
                [*_WORKER, 'serve'],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=self._environment(slot),
                start_new_session=True,
            )  # Ctrl-C is for the benchmark alone, which then stops the jobs
        return self._servers[slot]

    def _environment(self, slot: int) -> dict[str, str]:
        environment = {**os.environ}
        if self._num_gpus:
            devices = os.environ.get('CUDA_VISIBLE_DEVICES', '').split(',')
            own = slot % self._num_gpus
            environment['CUDA_VISIBLE_DEVICES'] = devices[own] if len(devices) == self._num_gpus else str(own)
        else:
            # Contended threads are several times slower than one, and results would depend on how many there are.
            environment['OMP_NUM_THREADS'] = '1'
        return environment


class SubmititLauncher:
    """Jobs of submitit: on a Slurm cluster, or in its own processes on this machine."""

    def __init__(self, options: JobOptions, folder: Path) -> None:
        try:
            import submitit
        except ImportError:
            raise InputError(_SUBMITIT_MISSING.format(executor=options.executor)) from None
        is_local = options.executor == 'submitit_local'
        self.processes = options.processes or (default_workers() if is_local else None)
        self._executor = submitit.AutoExecutor(folder=folder, cluster='local' if is_local else 'slurm')
        parameters: dict[str, Any] = {'timeout_min': options.timeout_min}
        if not is_local:
            given = {
                'slurm_partition': options.partition,
                'gpus_per_node': options.gpus_per_node,
                'cpus_per_task': options.cpus_per_task,
                'mem_gb': options.mem_gb,
            }
            parameters |= {key: value for key, value in given.items() if value is not None}
            parameters |= options.slurm_parameters
        self._executor.update_parameters(**parameters)
        self._running: dict[str, Any] = {}
        self._lock = threading.Lock()

    def __call__(self, job: Job) -> int:
        """Submit a job and wait for its end."""
        with self._lock:
            submitted = self._executor.submit(run_logged, [*_WORKER, *job.arguments], str(job.log), str(Path.cwd()))
            self._running[job.name] = submitted
        try:
            while not submitted.done():
                time.sleep(_POLL_SECONDS)
            error = submitted.exception()
            if error is not None:
                with job.log.open('a') as log:
                    log.write(f'{error}\n')
                return 1
            return int(submitted.result())
        finally:
            with self._lock:
                self._running.pop(job.name)

    def stop(self) -> None:
        """Cancel what is running."""
        with self._lock:
            for submitted in self._running.values():
                submitted.cancel()

    def close(self) -> None:
        """Its jobs are processes that end by themselves."""


def run_logged(command: list[str], log: str, folder: str) -> int:
    """Run a command in a folder with one thread where there is no GPU; on the machine of the job."""
    environment = {**os.environ}
    if not environment.get('CUDA_VISIBLE_DEVICES'):
        environment['OMP_NUM_THREADS'] = '1'
    with open(log, 'ab') as file:
        return subprocess.run(command, stdout=file, stderr=file, cwd=folder, env=environment).returncode


def make_launcher(options: JobOptions, folder: Path, num_gpus: int) -> Launcher:
    """Where the jobs of a benchmark run.

    Args:
        options: the section ``jobs``.
        folder: for submitit's files.
        num_gpus: of this machine.

    Raises:
        InputError: submitit is needed and missing.
    """
    return LocalLauncher(options, num_gpus) if options.executor == 'local' else SubmititLauncher(options, folder)


def run_jobs(jobs: Sequence[Job], launcher: Launcher, ended: Callable[[Job], str]) -> dict[str, int]:
    """Run jobs, as many at a time as the launcher takes, and say how far the work is after each.

    Args:
        jobs: with distinct names.
        launcher: of :func:`make_launcher`.
        ended: what to say of a job that succeeded.

    Returns:
        The exit codes of the jobs that failed, by name; the others run nevertheless.
    """
    failed: dict[str, int] = {}
    if not jobs:
        return failed
    started = time.monotonic()
    with ThreadPoolExecutor(launcher.processes or len(jobs)) as pool:
        running: dict[Future[int], Job] = {pool.submit(launcher, job): job for job in jobs}
        done = 0
        try:
            while running:
                finished, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in finished:
                    job, code = running.pop(future), future.result()
                    done += 1
                    if code:
                        failed[job.name] = code
                    left = timedelta(seconds=round((time.monotonic() - started) / done * len(running)))
                    at_work = min(launcher.processes or len(jobs), len(running))
                    _LOGGER.info(
                        '%d of %d: %s; %d running, %d failed, %s left',
                        done,
                        len(jobs),
                        f'{job.name} {f"failed, see {job.log}" if code else ended(job)}',
                        at_work,
                        len(failed),
                        left,
                    )
        except BaseException:
            for future in running:
                future.cancel()
            launcher.stop()
            raise
    return failed


def last_line(log: Path, before: int = 0) -> str:
    """The last line that a job printed; ``before`` is the size of its log in bytes when it began."""
    lines = log.read_bytes()[before:].decode(errors='replace').strip().splitlines() if log.is_file() else []
    return lines[-1] if lines else ''
