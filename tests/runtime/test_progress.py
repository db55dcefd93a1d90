"""Bars on a terminal, lines elsewhere."""

import io
import logging
import sys
from datetime import timedelta

import pytest

from basicsr_distill.runtime import distributed
from basicsr_distill.runtime.progress import Tenths, progress


class Clock:
    """A second for each look."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1
        return self.now


def test_a_line_every_tenth_with_the_time_left(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        tenths = Tenths(200, 'sample: draw', 0, Clock())
        for _ in range(200):
            tenths.update()
    lines = [record.getMessage() for record in caplog.records]
    assert lines == [
        f'sample: draw: {share} % ({2 * share} of 200), {timedelta(seconds=200 - 2 * share)} left'
        for share in range(10, 100, 10)
    ]


def test_work_done_before_counts_for_the_share_but_not_for_the_pace(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        tenths = Tenths(100, 'x', 50, Clock())
        tenths.update(20)
        tenths.update(20)
    assert [record.getMessage() for record in caplog.records] == ['x: 90 % (90 of 100), 0:00:00 left']


def test_what_is_over_at_once_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO), progress(10, 'x', 'image') as bar:
        for _ in range(10):
            bar.update()
    assert not caplog.records


@pytest.mark.parametrize('rank', [0, 1])
def test_a_terminal_gets_a_bar_from_the_first_rank(rank: int, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = io.StringIO()
    terminal.isatty = lambda: True  # type: ignore[method-assign]
    monkeypatch.setattr(sys, 'stderr', terminal)
    monkeypatch.setattr(distributed, 'rank', lambda: rank)
    with progress(4, 'sample: draw', 'image') as bar:
        bar.update(4)
    assert ('sample: draw' in terminal.getvalue()) == (rank == 0)
