"""What is tested on is not trained on: identical files are refused, scenes are found, and the report says so."""

import logging
from pathlib import Path

import pytest
from skimage import data
from support import save_rgb

from basicsr_distill.benchmark import leaks
from basicsr_distill.benchmark.sets import plan_sets
from basicsr_distill.cli import main
from basicsr_distill.config.benchmark_file import BenchmarkFile

FEW = ['--force_yml', 'benchmark:seeds=[0]', 'benchmark:budget:full_total_iter=~']


def scenes(folder: Path, *changes: str) -> list[str]:
    file = BenchmarkFile.load(Path('toy.yml'), [*FEW[1:], *changes])
    (folder / 'kept').mkdir(exist_ok=True)
    return leaks.find_scenes(file, folder / 'kept', plan_sets(file, Path('experiments/toy')))


@pytest.mark.parametrize(
    'change', ['benchmark:tests={held: photos}', 'benchmark:sets={mine: {path: held, full: true}}']
)
def test_tests_that_are_trained_on_are_refused_before_any_work(
    change: str, toy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for dry_run in ([], ['--dry-run']):
        assert main(['benchmark', '-opt', 'toy.yml', *dry_run, *FEW, change]) == 2
        error = capsys.readouterr().err
        assert 'benchmark.tests.held: ' in error and ' is the same file as ' in error and error.count('\n') == 1
    assert not (toy / 'experiments').exists()


@pytest.mark.long
def test_the_report_says_that_nothing_was_found(toy: Path) -> None:
    assert main(['benchmark', '-opt', 'toy.yml', *FEW]) == 0
    line = 'random, full: 1 images of photos, held against held: none shows a scene of theirs.'
    for name in ('report.md', 'report.html'):
        assert line in (toy / 'experiments' / 'toy' / name).read_text()


def test_altered_copies_are_found_named_and_remembered(
    toy: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_rgb(toy / 'held' / 'chelsea.png', data.chelsea())
    save_rgb(toy / 'photos' / 'mirrored.png', data.chelsea()[20:260, 380:60:-1])
    save_rgb(toy / 'photos' / 'negative.png', 255 - data.chelsea()[:, ::-1])
    with caplog.at_level(logging.WARNING):
        (line,) = scenes(toy)
    assert line.startswith('random, full: 3 images of photos, held against held: 2 show one of their scenes: ')
    assert 'mirrored.png shows held/chelsea.png; negative.png shows held/chelsea.png; extract' in line
    assert line in caplog.text
    monkeypatch.setattr(leaks, 'SceneIndex', None)  # not asked again
    assert scenes(toy) == [line]


def test_a_photograph_that_the_extraction_will_set_aside_stops_nothing(toy: Path) -> None:
    (toy / 'photos' / 'torn.png').write_bytes(b'no image')
    assert scenes(toy) == ['random, full: 2 images of photos, held against held: none shows a scene of theirs.']


def test_what_the_extraction_leaves_out_is_no_leak(toy: Path) -> None:
    recipe = (toy / 'pool.yml').read_text()
    (toy / 'pool.yml').write_text(recipe.replace('extract:', 'extract:\n  leak_check: [./held]'))
    save_rgb(toy / 'photos' / 'chelsea.png', data.chelsea()[:64, :96])  # the very file of the test
    assert scenes(toy) == ['random, full: 2 images of photos, scenes of held were left out by extract.leak_check.']
    file = BenchmarkFile.load(Path('toy.yml'), FEW[1:])
    leaks.refuse_identical(file, plan_sets(file, Path('experiments/toy')))
