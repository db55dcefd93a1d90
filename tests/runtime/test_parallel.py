import threading
import time

import pytest
import torch

from basicsr_distill.runtime.parallel import default_workers, one_thread_per_operation, ordered_map


@pytest.mark.parametrize('workers', [1, 4])
def test_results_keep_the_order_of_the_items(workers: int) -> None:
    def slow_first(item: int) -> int:
        time.sleep(0.01 if item % 4 == 0 else 0)
        return item * item

    assert list(ordered_map(slow_first, range(40), workers)) == [item * item for item in range(40)]


def test_few_items_are_taken_ahead_of_the_consumer() -> None:
    taken = []
    results = ordered_map(lambda item: item, (taken.append(item) or item for item in range(1000)), 2)
    next(results)
    assert len(taken) <= 6
    results.close()


def test_a_failure_arrives_and_stops_the_rest() -> None:
    started = []

    def work(item: int) -> None:
        started.append(item)
        if item == 3:
            raise KeyError('three')

    with pytest.raises(KeyError, match='three'):
        list(ordered_map(work, range(1000), 2))
    assert len(started) < 20


def test_threads_work_at_once() -> None:
    meeting = threading.Barrier(3, timeout=10)
    assert len(list(ordered_map(lambda _: meeting.wait(), range(3), 3))) == 3


def test_one_thread_per_operation_is_undone() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    with one_thread_per_operation():
        assert torch.get_num_threads() == 1
        assert list(ordered_map(lambda _: torch.get_num_threads(), range(2), 2)) == [1, 1]
    assert torch.get_num_threads() == 2
    torch.set_num_threads(before)


def test_ranks_of_one_machine_share_its_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = default_workers()
    monkeypatch.setenv('LOCAL_WORLD_SIZE', '2')
    assert default_workers() == max(1, alone // 2)
