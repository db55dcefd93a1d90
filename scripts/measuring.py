"""Time and memory as every benchmark_*.py measures them: in turns of one run, so a slow machine is slow for all."""

import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Times:
    """Seconds of one work, a value a round."""

    wall_s: list[float]
    cpu_s: list[float]  # of all threads, which other load on the machine disturbs less

    def wall_over(self, other: 'Times') -> float:
        """Return the median of the rounds' ratios of wall time."""
        return statistics.median(a / b for a, b in zip(self.wall_s, other.wall_s))

    def cpu_over(self, other: 'Times') -> float:
        """Return the median of the rounds' ratios of processor time."""
        return statistics.median(a / b for a, b in zip(self.cpu_s, other.cpu_s))


def timed(work: Callable[[], object], device: torch.device | None = None) -> tuple[float, float]:
    """Return the seconds of wall time and of processor time of a work; a GPU is waited for."""

    def finish() -> None:
        if device is not None and device.type == 'cuda':
            torch.cuda.synchronize()

    finish()
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    finish()
    return time.perf_counter() - wall, time.process_time() - cpu


def measure(rounds: int, *works: Callable[[], object]) -> list[Times]:
    """Time several works, taken in turns after one warm-up each."""
    times = [Times([], []) for _ in works]
    for number in range(rounds + 1):
        for work, taken in zip(works, times):
            wall, cpu = timed(work)
            if number:
                taken.wall_s.append(wall)
                taken.cpu_s.append(cpu)
    return times


def peak_mib() -> float:
    """Return the largest resident set of this process so far; its growth is meant for a fresh process."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
