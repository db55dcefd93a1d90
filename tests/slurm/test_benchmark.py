"""The cells as jobs of a real Slurm of one node (Debian: apt install slurm-wlm munge)."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from benchmark_toy import make_toy, rows_without_times, start

HERE = Path(__file__).parent
pytestmark = [pytest.mark.slow,
              pytest.mark.skipif(not all(map(shutil.which, ('slurmctld', 'slurmd', 'munged'))) or os.geteuid() != 0,
                                 reason='Slurm and munge are not installed, or this is not root')]


@pytest.fixture(scope='module')
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Slurm of one node; the path of its configuration."""
    folder = tmp_path_factory.mktemp('slurm')
    node = subprocess.Popen(['bash', HERE / 'node.sh', folder], stdout=subprocess.PIPE, text=True)
    assert node.stdout is not None
    try:
        assert node.stdout.readline() == 'ready\n'
        yield str(folder / 'slurm.conf')
    finally:
        node.terminate()
        node.wait()


def test_the_grid_on_slurm(slurm: str, tmp_path: Path) -> None:
    """Two tasks at a time, since the node has two cores or more; the results are those of one process."""
    here, there = tmp_path / 'here', tmp_path / 'there'
    run = start(make_toy(here))
    assert run.wait() == 0
    run = start(make_toy(there, executor='slurm', partition='main', cpus_per_task=1, timeout_min=30), SLURM_CONF=slurm)
    output = run.communicate()[0]
    assert run.returncode == 0 and '6 of 6 cells' in output, output
    assert rows_without_times(there) == rows_without_times(here)
    jobs = subprocess.run(['scontrol', 'show', 'job', '--oneliner'], env={**os.environ, 'SLURM_CONF': slurm},
                          capture_output=True, text=True, check=True).stdout.splitlines()
    assert len(jobs) == 9 and all('JobState=COMPLETED' in job and 'Partition=main' in job for job in jobs)
