"""The toy benchmark, in the working folder or run from beginning to end."""

from pathlib import Path

import pytest
from benchmark_toy import make_toy, rows_without_times, start


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The toy in the working folder."""
    monkeypatch.chdir(tmp_path)
    return make_toy(tmp_path)


@pytest.fixture(scope='session')
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, str]]:
    """What the toy says when one process runs it from beginning to end."""
    folder = make_toy(tmp_path_factory.mktemp('undisturbed'))
    run = start(folder)
    output = run.communicate()[0]
    assert run.returncode == 0, output
    return rows_without_times(folder)
