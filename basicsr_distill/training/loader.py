"""The training loader: which sample comes when, and how it is augmented, depend on ``manual_seed`` and position alone.

BasicSR's own loader restarts the workers' generators every epoch (the same crops again and again), orders samples by
epoch but not by seed, starts an epoch over on resume, and ends early on small sets because it rounds epochs up and
batches down. Here training is one endless stream of positions 0, 1, 2, ...; position p is sample ``p % n`` of a
permutation drawn from (seed, p // n), augmented with generators seeded from (seed, p). So the stream is the same for
any number of workers and ranks, and it can be entered at any point.
"""

import os
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset, Sampler

# Separates the stream that orders samples from the one that augments them.
_ORDER_STREAM = 0
_AUGMENT_STREAM = 1


class PositionSampler(Sampler[int]):
    """Positions of one rank's samples from ``first_iteration`` on.

    The batch of an iteration is cut into one piece for each rank, so that more ranks see the same global batches.
    """

    def __init__(self, batch_size: int, first_iteration: int, last_iteration: int, rank: int, world_size: int) -> None:
        self.batch_size = batch_size
        self.iterations = range(first_iteration, last_iteration)
        self.rank = rank
        self.world_size = world_size

    def __iter__(self) -> Iterator[int]:
        for iteration in self.iterations:
            start = (iteration * self.world_size + self.rank) * self.batch_size
            yield from range(start, start + self.batch_size)

    def __len__(self) -> int:
        return len(self.iterations) * self.batch_size


class SeededDataset(Dataset[Any]):
    """A dataset addressed by position in the endless stream instead of by index."""

    def __init__(self, dataset: Any, seed: int) -> None:
        self.dataset = dataset
        self.seed = seed
        self._epoch = -1
        self._order: NDArray[np.int64] = np.empty(0, np.int64)

    def index_at(self, position: int) -> int:
        """Index of the sample at ``position``."""
        epoch, offset = divmod(position, len(self.dataset))
        if epoch != self._epoch:
            generator = np.random.Generator(np.random.PCG64([self.seed, _ORDER_STREAM, epoch]))
            self._epoch, self._order = epoch, generator.permutation(len(self.dataset))
        return int(self._order[offset])

    def __getitem__(self, position: int) -> Any:
        return self.__getitems__([position])[0]

    def __getitems__(self, positions: Sequence[int]) -> list[Any]:
        """A batch, as torch's loader asks for it: the generators are put back once, which takes longer than seeding."""
        with generators_put_back():
            return [self._seeded_item(position) for position in positions]

    def _seeded_item(self, position: int) -> Any:
        seed_generators(self.seed, position)
        return self.dataset[self.index_at(position)]


def seed_generators(seed: int, position: int) -> None:
    """Seed the generators of Python, numpy and torch (CPU) from (seed, position)."""
    words = np.random.SeedSequence([seed, _AUGMENT_STREAM, position]).generate_state(3)
    random.seed(int(words[0]))
    np.random.seed(words[1])
    torch.default_generator.manual_seed(int(words[2]))


@contextmanager
def generators_put_back() -> Iterator[None]:
    """Leave them as they were: without workers the dataset shares them with the network's dropout and noise."""
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.set_rng_state(before[2])


def build_train_loader(
    dataset: Any,
    options: dict[str, Any],
    seed: int,
    iterations: tuple[int, int],
    num_gpu: int,
    rank: int,
    world_size: int,
) -> DataLoader[Any]:
    """Build the loader of the batches of iterations ``[first, last)``.

    Args:
        dataset: the training set.
        options: its section of the option file.
        seed: of order and augmentation.
        iterations: first and last.
        num_gpu: of DataParallel, which shares one loader; the batch and the workers are multiplied by it as in BasicSR.
        rank: of this process.
        world_size: number of processes.
    """
    shares = max(1, num_gpu) if world_size == 1 else 1
    batch_size = options['batch_size_per_gpu'] * shares
    num_workers = options['num_worker_per_gpu'] * shares
    return DataLoader(
        SeededDataset(dataset, seed),
        batch_size=batch_size,
        sampler=PositionSampler(batch_size, *iterations, rank=rank, world_size=world_size),
        num_workers=num_workers,
        pin_memory=options['pin_memory'] and torch.cuda.is_available(),
        # What `prefetch_mode: cpu` asks of BasicSR's queue, a worker's own queue does.
        worker_init_fn=_leave_signals_to_the_loop if num_workers else None,
        prefetch_factor=max(2, options['num_prefetch_queue']) if num_workers else None,
        # Every start of an iterator draws from it; from the global one a resumed run would draw once more.
        generator=torch.Generator(),
    )


def _leave_signals_to_the_loop(worker: int) -> None:
    """A job scheduler or a terminal signals the whole process group; workers leave it, since they must live on until
    the loop has written its checkpoint. They end with the loop's process in any case, which torch's workers watch.
    """
    if hasattr(os, 'setpgrp'):  # Windows knows no process groups of this kind
        os.setpgrp()
