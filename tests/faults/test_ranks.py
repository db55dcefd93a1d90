"""Several ranks: what one of them cannot do ends all of them, soon, in one sentence and with one exit code."""

import random
import shutil
import signal
import time
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import pytest
import torch
from dying import digests, join_ranks, limit_files, start_ranks
from small_project import COMMANDS, ready_and_expected

from basicsr_distill.io.weights import load_weights
from basicsr_distill.runtime import distributed

pytestmark = pytest.mark.long  # only `bash scripts/test.sh --all` and CI run it

NAMES = ['extract', 'cluster', 'select', 'finetune', 'sample', 'train']
RANKS = [2, pytest.param(4, marks=pytest.mark.slow)]
LIMITS_BYTES = {'extract': 600, 'cluster': 3000, 'select': 600, 'finetune': 20_000, 'sample': 1500, 'train': 10_000}
LOST = 'basicsr: another rank has ended; its own output says why. Run the same command again to go on.'
WRONG = {
    'extract': 'extract:dataroot=nowhere',
    'cluster': 'cluster:num_clusters=1000',
    'select': 'select:num_images=1000',
    'finetune': 'datasets:train:labels_file=nowhere.csv',
    'sample': 'sample:seed=-1',
    'train': 'datasets:train:dataroot_gt=nowhere',
}


def sentences(outputs: list[str]) -> list[str]:
    """What the ranks said, each once."""
    assert not any('Traceback' in output for output in outputs), '\n'.join(outputs)
    return sorted({line for output in outputs for line in output.splitlines() if line.startswith('basicsr: ')})


@pytest.mark.parametrize('ranks', RANKS)
@pytest.mark.parametrize('name', NAMES)
def test_a_refusal(name: str, ranks: int, tmp_path: Path) -> None:
    folder = tmp_path / 'project'
    command, _ = ready_and_expected(folder, name)
    before = digests(folder, '**/*')
    codes, outputs = join_ranks(folder, start_ranks(folder, ranks, *command, '--force_yml', WRONG[name]))
    assert codes == [2] * ranks, '\n'.join(outputs)
    assert len(sentences(outputs)) == 1
    assert digests(folder, '**/*') == before


@pytest.mark.parametrize('ranks', RANKS)
@pytest.mark.parametrize('name', NAMES)
def test_a_full_disk_on_one_rank(name: str, ranks: int, tmp_path: Path) -> None:
    """On the one that writes; afterwards all of them go on together."""
    folder = tmp_path / 'project'
    command, _ = ready_and_expected(folder, name)
    started = time.monotonic()
    codes, outputs = join_ranks(
        folder, start_ranks(folder, ranks, *command, prepare={0: (limit_files, (LIMITS_BYTES[name],))})
    )
    assert time.monotonic() - started < 60 and codes[0] in (1, 2) and 0 not in codes and -signal.SIGKILL not in codes, (
        '\n'.join(outputs)
    )
    said = sentences(outputs)
    assert any('No space' in line or 'File too large' in line or 'free' in line for line in said), outputs
    codes, outputs = join_ranks(folder, start_ranks(folder, ranks, *command))
    assert codes == [0] * ranks, '\n'.join(outputs)


def start_and_meet(folder: Path, ranks: int, *command: str) -> list[ForkServerProcess]:
    """Start the ranks and wait until all have joined: one that dies before is waited for until a launcher ends them."""
    marks = [folder.with_name(f'{folder.name}.met{rank}') for rank in range(ranks)]
    for mark in marks:
        mark.unlink(missing_ok=True)
    prepare = {rank: (mark_meeting, (mark,)) for rank, mark in enumerate(marks)}
    processes = start_ranks(folder, ranks, *command, prepare=prepare)
    limit = time.monotonic() + 60
    while not all(mark.exists() for mark in marks):
        assert time.monotonic() < limit, 'the ranks do not meet'
        time.sleep(0.005)
    return processes


def mark_meeting(mark: Path) -> None:
    """Make a file once this rank has joined the others."""
    init = distributed.init

    def marked(*arguments: object) -> None:
        init(*arguments)  # type: ignore[arg-type]
        mark.touch()

    distributed.init = marked  # type: ignore[assignment]


@pytest.mark.parametrize('ranks', RANKS)
@pytest.mark.parametrize('name', NAMES)
def test_a_killed_rank(name: str, ranks: int, tmp_path: Path) -> None:
    """The others end too; the same command on the ranks then makes what they would have made undisturbed."""
    folder, whole = tmp_path / 'project', tmp_path / 'ranks'
    command, of_one_rank = ready_and_expected(folder, name)
    files = COMMANDS[name][2]
    shutil.copytree(folder, whole)
    processes = start_and_meet(whole, ranks, *command)
    met = time.monotonic()
    codes, outputs = join_ranks(whole, processes)
    assert codes == [0] * ranks, '\n'.join(outputs)
    duration_s = time.monotonic() - met
    expected = digests(whole, *files)
    if name in ('extract', 'cluster', 'select', 'sample'):  # of a training the global batch is another one
        assert expected == of_one_rank
    draw = random.Random(f'{name} {ranks}')
    for _ in range(2):
        processes = start_and_meet(folder, ranks, *command)
        time.sleep(draw.uniform(0.1, 0.8) * duration_s)
        processes[draw.randrange(ranks)].kill()
        codes, outputs = join_ranks(folder, processes, timeout_s=60)
        assert codes.count(-signal.SIGKILL) <= 1, 'a rank hangs:\n' + '\n'.join(outputs)
        if -signal.SIGKILL in codes and any(codes):
            assert {code for code in codes if code != -signal.SIGKILL} <= {0, 1}, '\n'.join(outputs)
            assert set(sentences(outputs)) <= {LOST}
    codes, outputs = join_ranks(folder, start_ranks(folder, ranks, *command))
    assert codes == [0] * ranks, '\n'.join(outputs)
    if ranks > 2 and name in ('finetune', 'train'):
        # DistributedDataParallel sorts its buckets anew after every start: more than two ranks then add in another
        # order, once.
        assert digests(folder, *files).keys() == expected.keys()
        newest = next(path for path in expected if path.endswith('latest.pth'))
        first, second = (load_weights(root / newest)['params'] for root in (folder, whole))
        for key, value in first.items():
            torch.testing.assert_close(second[key], value, rtol=1e-2, atol=1e-4)
    else:
        assert digests(folder, *files) == expected
