"""The cells of a benchmark as jobs of a real Slurm of one node."""

import subprocess
from pathlib import Path

import pytest
from benchmark_toy import make_toy, rows_without_times, start

pytestmark = pytest.mark.slow


def test_the_grid_on_slurm(slurm: dict[str, str], tmp_path: Path) -> None:
    """Two tasks at a time, since the node has two cores or more; the results are those of one process."""
    here, there = tmp_path / 'here', tmp_path / 'there'
    run = start(make_toy(here))
    assert run.wait() == 0
    run = start(
        make_toy(there, executor='slurm', partition='main', cpus_per_task=1, timeout_min=30),
        SLURM_CONF=slurm['SLURM_CONF'],
    )
    output = run.communicate()[0]
    assert run.returncode == 0 and '6 of 6 cells' in output, output
    assert rows_without_times(there) == rows_without_times(here)
    jobs = subprocess.run(
        ['scontrol', 'show', 'job', '--oneliner'], env=slurm, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert len(jobs) == 9 and all('JobState=COMPLETED' in job and 'Partition=main' in job for job in jobs)
