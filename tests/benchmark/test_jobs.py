"""Who runs the cells, and when they die, has no say in what comes out."""

import os
import random
import signal
import time
from pathlib import Path

import pytest
from benchmark_toy import make_toy, rows_without_times, start

pytestmark = pytest.mark.long  # only `bash scripts/test.sh --all` and CI run it

SEEDS_OF_KILLS = [0, *[pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2)]]


def test_two_processes_give_what_one_gives(tmp_path: Path, undisturbed: list[dict[str, str]]) -> None:
    run = start(make_toy(tmp_path, processes=2))
    output = run.communicate()[0]
    assert run.returncode == 0 and '6 of 6 cells' in output, output
    assert rows_without_times(tmp_path) == undisturbed


def test_submitit_gives_the_same(tmp_path: Path, undisturbed: list[dict[str, str]]) -> None:
    """Of two cells, since each of its processes imports everything anew."""
    run = start(
        make_toy(tmp_path, executor='submitit_local', processes=2),
        '--force_yml',
        'benchmark:seeds=[0]',
        'benchmark:budget:full_total_iter=~',
    )
    output = run.communicate()[0]
    assert run.returncode == 0 and '2 of 2 cells' in output, output
    assert rows_without_times(tmp_path) == [
        row for row in undisturbed if row['set_seed'] != '1' and row['train_seed'] == '0' and row['total_iter'] == '2'
    ]


@pytest.mark.parametrize('seed', SEEDS_OF_KILLS)
def test_killed_at_three_points_and_run_again(seed: int, tmp_path: Path, undisturbed: list[dict[str, str]]) -> None:
    """Before a set, within the cells, and wherever chance wants; what was running ends with the benchmark."""
    make_toy(tmp_path, processes=2)
    draw = random.Random(seed)
    root = tmp_path / 'experiments' / 'toy'
    waits_for = [
        lambda: (root / 'sets' / 'recipe_pool' / 'recipe.yml').is_file(),
        lambda: any(root.glob('cells/*/train/train.yml')),
        lambda: any(root.glob('cells/*/test/stage.json')),
    ]
    for reached in waits_for:
        run = start(tmp_path)
        while not reached() and run.poll() is None:
            time.sleep(0.05)
        time.sleep(draw.uniform(0, 3))
        run.send_signal(signal.SIGKILL)
        run.communicate()  # returns when every process that holds its output has ended
    assert not _processes_in(tmp_path)
    run = start(tmp_path)
    output = run.communicate()[0]
    assert run.returncode == 0, output
    assert rows_without_times(tmp_path) == undisturbed


def _processes_in(folder: Path) -> list[int]:
    """Processes whose working folder it is."""
    found = []
    for process in Path('/proc').glob('[0-9]*'):
        try:
            if Path(os.readlink(process / 'cwd')).is_relative_to(folder):
                found.append(int(process.name))
        except OSError:  # it has ended, or is another user's
            continue
    return found
