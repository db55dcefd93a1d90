"""Disks that are full or not to be written: one sentence, nothing published, and with room the work goes on."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from dying import digests, limit_files, run
from small_project import COMMANDS, ready_and_expected

pytestmark = pytest.mark.long  # only `bash scripts/test.sh --all` and CI run it

# The largest file that may be written: less than the first that counts.
LIMITS_BYTES = {
    'extract': 600,
    'curated': 1500,
    'cluster': 3000,
    'select': 600,
    'finetune': 20_000,
    'sample': 1500,
    'gsdd': 20_000,
    'train': 10_000,
    'test': 6500,
}
PUBLISHED = {
    'extract': 'out/patches/stage.json',
    'curated': 'out/curated/stage.json',
    'cluster': 'out/clusters/stage.json',
    'select': 'out/medoids/stage.json',
    'finetune': 'experiments/tiny/stage.json',
    'sample': 'out/set/stage.json',
    'gsdd': 'out/gsdd/stage.json',
    'train': 'experiments/sr/models/net_g_latest.pth',
    'test': 'results/sr/metrics.json',
}


def assert_one_sentence(code: int, output: str) -> None:
    """No traceback, and a last line that says which file, or how much is missing."""
    assert code in (1, 2) and 'Traceback' not in output, output
    said = [line for line in output.splitlines() if line.startswith('basicsr: ')]
    assert len(said) == 1, output
    assert 'No space' in said[0] or 'File too large' in said[0] or 'free' in said[0], said


@pytest.mark.parametrize('name', COMMANDS)
def test_files_that_cannot_grow(name: str, tmp_path: Path) -> None:
    folder = tmp_path / 'project'
    command, expected = ready_and_expected(folder, name)
    code, output = run(folder, *command, prepare=limit_files, given=(LIMITS_BYTES[name],))
    assert_one_sentence(code, output)
    assert not (folder / PUBLISHED[name]).exists() and not list(folder.rglob('*.part'))
    code, output = run(folder, *command)
    assert code == 0, output
    assert digests(folder, *COMMANDS[name][2]) == expected


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """An empty tmpfs of 32 MB."""
    disk = tmp_path / 'disk'
    disk.mkdir()
    mounted = subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=32m', 'tmpfs', disk], capture_output=True)
    if mounted.returncode:
        pytest.skip('mounting is not allowed here; test_files_that_cannot_grow stands in')
    yield disk
    subprocess.run(['umount', '--lazy', disk], check=True)


@pytest.mark.parametrize('name', COMMANDS)
def test_a_disk_that_is_full(name: str, small_disk: Path) -> None:
    folder = small_disk / 'project'
    command, expected = ready_and_expected(folder, name)
    shutil.rmtree(small_disk / 'whole')
    filler = small_disk / 'filler'
    with filler.open('wb') as file:
        file.write(bytes(max(0, shutil.disk_usage(small_disk).free - 8192)))
    code, output = run(folder, *command)
    assert_one_sentence(code, output)
    assert not (folder / PUBLISHED[name]).exists() and not list(folder.rglob('*.part'))
    filler.unlink()
    code, output = run(folder, *command)
    assert code == 0, output
    assert digests(folder, *COMMANDS[name][2]) == expected


@pytest.mark.skipif(os.geteuid() == 0, reason='root may write everywhere')
@pytest.mark.parametrize('name', COMMANDS)
def test_a_folder_that_may_not_be_written(name: str, tmp_path: Path) -> None:
    folder = tmp_path / 'project'
    command, _ = ready_and_expected(folder, name)
    for path in [folder, *[path for path in folder.rglob('*') if path.is_dir()]]:
        path.chmod(0o555)
    try:
        code, output = run(folder, *command)
    finally:
        for path in [folder, *[path for path in folder.rglob('*') if path.is_dir()]]:
            path.chmod(0o755)
    assert code == 2 and 'Traceback' not in output, output
