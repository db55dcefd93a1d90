"""kill -9 at random moments of every command, and between any two writes: run again, it ends as if undisturbed."""

import random
import shutil
import signal
import time
from pathlib import Path

import pytest
from dying import die_at_replacement, digests, run, start
from small_project import COMMANDS, ready_for, run_all

pytestmark = pytest.mark.long  # only `bash scripts/test.sh --all` and CI run it

KILLS = [5, pytest.param(50, marks=pytest.mark.slow)]


def prepared(tmp_path: Path, name: str) -> tuple[Path, dict[str, str], float]:
    """A project ready for a command, what the command leaves in a copy of it, and how long it takes."""
    before = ready_for(tmp_path / 'before', name)
    whole = tmp_path / 'whole'
    shutil.copytree(before, whole)
    run_all(whole, ['schema'])  # which waits until the server is there
    started = time.monotonic()
    run_all(whole, COMMANDS[name][1])
    return before, digests(whole, *COMMANDS[name][2]), time.monotonic() - started


@pytest.mark.timeout(1800)
@pytest.mark.parametrize('kills', KILLS)
@pytest.mark.parametrize('name', COMMANDS)
def test_at_random_moments(name: str, kills: int, tmp_path: Path) -> None:
    _, command, files = COMMANDS[name]
    before, expected, duration_s = prepared(tmp_path, name)
    assert len(expected) > 1
    draw = random.Random(f'{name} {kills}')
    folder, died, ended = tmp_path / 'killed', 0, 0
    while died < kills and ended < 10 * kills:
        if not folder.exists():
            shutil.copytree(before, folder)
        process = start(folder, *command)
        process.join(draw.uniform(0.02, 1.1) * duration_s)
        if process.is_alive():
            process.kill()
            process.join()
            died += 1
        else:
            ended += 1
            assert process.exitcode == 0 and digests(folder, *files) == expected
            shutil.rmtree(folder)
    assert died == kills
    if not folder.exists():
        shutil.copytree(before, folder)
    code, output = run(folder, *command)
    assert code == 0, output
    assert digests(folder, *files) == expected


@pytest.mark.timeout(1800)
@pytest.mark.parametrize('step', [7, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize('name', COMMANDS)
def test_between_any_two_writes(name: str, step: int, tmp_path: Path) -> None:
    """Of a training: between any two files of a checkpoint, the networks, the state and what comes after the last."""
    _, command, files = COMMANDS[name]
    before, expected, _ = prepared(tmp_path, name)
    deaths = 0
    for number in range(0, 400, step):
        folder = tmp_path / 'killed'
        shutil.copytree(before, folder)
        code, output = run(folder, *command, prepare=die_at_replacement, given=(number,))
        if code == 0:
            break
        assert code == -signal.SIGKILL, output
        deaths += 1
        code, output = run(folder, *command)
        assert code == 0, output
        assert digests(folder, *files) == expected, f'killed at {number}'
        shutil.rmtree(folder)
    assert deaths >= 1 and (step > 1 or deaths > 3)
    assert not list((tmp_path / 'killed').rglob('*.part'))
