"""A Slurm of one node, where there is one to start (Debian: apt install slurm-wlm munge)."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope='session')
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment that its commands and their users need."""
    if not all(map(shutil.which, ('slurmctld', 'slurmd', 'munged'))) or os.geteuid() != 0:
        pytest.skip('Slurm and munge are not installed, or this is not root')
    folder = tmp_path_factory.mktemp('slurm')
    node = subprocess.Popen(['bash', Path(__file__).parent / 'node.sh', folder], stdout=subprocess.PIPE, text=True)
    assert node.stdout is not None
    try:
        assert node.stdout.readline() == 'ready\n'
        yield {**os.environ, 'SLURM_CONF': str(folder / 'slurm.conf')}
    finally:
        node.terminate()
        node.wait()
