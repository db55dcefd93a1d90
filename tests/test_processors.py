"""The last bits of a sum differ with the processor; nothing that is promised does."""

import os
import subprocess
import sys

import pytest
from support import PROCESSORS, REPOSITORY

ROOMS = ('ops', 'selection', 'diffusion', 'features', 'losses', 'stages/extract', 'test_doctests.py')


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize('instructions', ['AVX2', 'SSE4_2'])  # what a processor that has AVX-512 uses by itself
def test_the_maths_passes_its_tests_on_processors_that_can_do_less(instructions: str) -> None:
    done = subprocess.run(
        [
            sys.executable,
            '-m',
            'pytest',
            '-q',
            '-m',
            'not slow',
            '-p',
            'no:cacheprovider',
            *(f'tests/{room}' for room in ROOMS),
        ],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        env={**os.environ, **PROCESSORS[instructions], 'PYTHONPATH': str(REPOSITORY)},
    )
    assert done.returncode == 0, done.stdout[-3000:]
