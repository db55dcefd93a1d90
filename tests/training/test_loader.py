"""The endless, seeded stream of training samples."""

import random
from typing import Any

import numpy as np
import pytest
import torch
from support import keys_of
from torch.utils.data import Dataset

from basicsr_distill.config.sections.datasets import LoaderOptions
from basicsr_distill.training.loader import PositionSampler, SeededDataset, build_train_loader


class _Draws(Dataset[Any]):
    """Items show which sample came and what each generator would draw for it."""

    def __len__(self) -> int:
        return 7

    def __getitem__(self, index: int) -> Any:
        return {'index': index, 'draws': torch.tensor([random.random(), np.random.rand(), torch.rand(()).item()])}


def _stream(
    batches: tuple[int, int] = (0, 12),
    workers: int = 0,
    rank: int = 0,
    world_size: int = 1,
    batch: int = 4,
    seed: int = 3,
) -> list[tuple[list[int], list[list[float]]]]:
    section = keys_of(LoaderOptions, batch_size_per_gpu=batch, num_worker_per_gpu=workers)
    loader = build_train_loader(_Draws(), section, seed, batches, num_gpu=0, rank=rank, world_size=world_size)
    return [(batch['index'].tolist(), batch['draws'].tolist()) for batch in loader]


def test_small_sets_fill_every_batch_and_every_pass_is_complete() -> None:
    indices = [index for batch, _ in _stream() for index in batch]
    assert len(indices) == 48
    for start in range(0, 42, 7):
        assert sorted(indices[start : start + 7]) == list(range(7))


def test_augmentation_differs_between_passes() -> None:
    draws = [tuple(row) for _, rows in _stream() for row in rows]
    assert all(len({row[generator] for row in draws}) == len(draws) for generator in range(3))


def test_order_and_augmentation_follow_the_seed_alone() -> None:
    torch.manual_seed(1)
    first = _stream()
    torch.manual_seed(2)
    random.seed(5)
    assert _stream() == first == _stream(workers=2)
    assert [batch for batch, _ in _stream(seed=4)] != [batch for batch, _ in first]


def test_the_stream_can_be_entered_anywhere() -> None:
    assert _stream(batches=(5, 12)) == _stream()[5:]


def test_ranks_share_the_global_batch() -> None:
    whole = _stream()
    parts = [_stream(rank=rank, world_size=2, batch=2) for rank in range(2)]
    for (indices, draws), *pieces in zip(whole, *parts):
        assert indices == pieces[0][0] + pieces[1][0]
        assert draws == pieces[0][1] + pieces[1][1]


def test_reading_leaves_the_training_generators_alone() -> None:
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)
    expected = torch.rand(3).tolist(), random.random(), np.random.rand()
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)
    SeededDataset(_Draws(), 1)[100]
    assert (torch.rand(3).tolist(), random.random(), np.random.rand()) == expected


@pytest.mark.parametrize('ranks', [1, 3])
def test_sampler_length(ranks: int) -> None:
    sampler = PositionSampler(5, 2, 9, rank=0, world_size=ranks)
    assert len(sampler) == len(list(sampler)) == 35
