"""The command on a toy: cells are made and reported, a second run does nothing, a change reruns what it touches."""

import csv
from pathlib import Path

import pytest
from skimage import data
from support import save_rgb

from basicsr_distill import __version__
from basicsr_distill.benchmark.jobs import JOB_LOCK, Job, LocalLauncher
from basicsr_distill.benchmark.run import benchmark
from basicsr_distill.cli import main
from basicsr_distill.config.benchmark_file import BenchmarkFile
from basicsr_distill.config.yaml_files import load_option_file
from basicsr_distill.io.images import find_images, read_rgb
from basicsr_distill.io.locks import lock_beside, locked


def test_a_toy_from_file_to_report(toy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(['benchmark', '-opt', 'toy.yml']) == 0
    root = toy / 'experiments' / 'toy'
    results = (root / 'results.csv').read_text()
    rows = list(csv.DictReader(results.splitlines()))
    assert [(row['set'], row['count'], row['set_seed'], row['train_seed'], row['total_iter']) for row in rows] == [
        ('random', '3', '0', '0', '2'),
        ('full', '16', '', '0', '2'),
        ('full', '16', '', '0', '3'),
        ('random', '3', '1', '1', '2'),
        ('full', '16', '', '1', '2'),
        ('full', '16', '', '1', '3'),
    ]
    assert all(10 < float(row['value']) < 50 for row in rows) and rows[0]['pixels'] == str(3 * 64 * 64)
    page = (root / 'report.html').read_text()
    assert 'is the best real row' in page and 'src="http' not in page and '<link rel="icon" href="data:,">' in page
    assert 'What the trained networks make of it' in page and page.count('<figcaption>') > 5
    assert (root / 'tables' / 'headline__edsr.tex').is_file() and '![' in (root / 'report.md').read_text()

    finished = {path: path.stat().st_mtime_ns for path in root.glob('cells/*/test/stage.json')}
    assert len(finished) == 6
    record = root / 'cells' / 'random__3_s0__edsr_t0' / 'test' / 'stage.json'
    as_it_was = record.read_text()
    record.write_text(as_it_was.replace(f'"basicsr-distill": "{__version__}"', '"basicsr-distill": "0.0.9"'))
    assert main(['benchmark', '-opt', 'toy.yml']) == 0
    versions = [row['version'] for row in csv.DictReader((root / 'results.csv').open())]
    assert versions == ['0.0.9', *[__version__] * 5]  # that of the cell, not today's
    record.write_text(as_it_was)
    finished[record] = record.stat().st_mtime_ns
    assert main(['benchmark', '-opt', 'toy.yml']) == 0
    assert (root / 'results.csv').read_text() == results
    assert {path: path.stat().st_mtime_ns for path in root.glob('cells/*/test/stage.json')} == finished

    assert main(['benchmark', '-opt', 'toy.yml', '--force_yml', 'benchmark:budget:full_total_iter=4']) == 0
    assert {path: path.stat().st_mtime_ns for path in finished} == finished  # the others are as they were
    assert len(list(root.glob('cells/*4iter/test/stage.json'))) == 2


@pytest.mark.long
@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ('benchmark:tests={held: nowhere}', 'benchmark.tests.held: nowhere holds no images'),
        ('benchmark:tests={held: downloaded}', 'benchmark.tests.held: '),
        ('benchmark:tests={held: downloaded}', 'LRbicx4 holds the pictures of GTmod12 at a smaller size; point it at'),
        ('benchmark:force_yml=[extract:dataroot=nowhere]', 'benchmark.sets.random: nowhere: not a folder'),
        ('benchmark:sets={mine: {path: nowhere}}', 'benchmark.sets.mine: path: nowhere does not exist'),
        ('benchmark:sets={mine: {path: photos}}', 'photos has 1 images, but counts names 3'),
        ('benchmark:sets={mine: {}}', 'give one of path, select and sample, or full: true'),
        ('benchmark:sets={mine: {select: {methd: random}}}', "unknown key 'methd'; did you mean 'method'"),
        ('benchmark:sead=1', "unknown key 'benchmark.sead'; did you mean"),
    ],
)
def test_what_is_wrong_is_refused_before_any_work(
    change: str, message: str, toy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_rgb(toy / 'downloaded' / 'GTmod12' / 'chelsea.png', data.chelsea()[:96, :96])
    save_rgb(toy / 'downloaded' / 'LRbicx4' / 'chelsea.png', data.chelsea()[:96:4, :96:4])
    assert main(['benchmark', '-opt', 'toy.yml', '--force_yml', change]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count('\n') == 1
    assert not (toy / 'experiments').exists()


@pytest.mark.long
def test_a_failed_cell_is_reported_and_the_rest_goes_on(toy: Path, caplog: pytest.LogCaptureFixture) -> None:
    name = 'random__3_s0__edsr_t0'
    in_the_way = toy / 'experiments' / 'toy' / 'cells' / name / 'train' / 'experiments'
    in_the_way.parent.mkdir(parents=True)
    in_the_way.write_text('a file where BasicSR wants a folder')
    few = ['--force_yml', 'benchmark:budget:full_total_iter=~']
    assert main(['benchmark', '-opt', 'toy.yml', *few]) == 1
    root = toy / 'experiments' / 'toy'
    assert [row['set'] for row in csv.DictReader((root / 'results.csv').open())] == ['full', 'random', 'full']
    assert f'cell {name} (exit code' in (root / 'report.md').read_text().partition('## What failed')[2]
    assert '3 of 4 cells' in caplog.text and f'failed: cell {name}' in caplog.text

    in_the_way.unlink()
    before = {path: path.stat().st_mtime_ns for path in root.glob('cells/*/test/stage.json')}
    assert main(['benchmark', '-opt', 'toy.yml', *few]) == 0
    assert len(list(root.glob('cells/*/test/stage.json'))) == 4
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert 'What failed' not in (root / 'report.md').read_text()


@pytest.mark.long
def test_a_set_that_cannot_be_made_costs_its_cells_alone(toy: Path, caplog: pytest.LogCaptureFixture) -> None:
    few = ['--force_yml', 'benchmark:budget:full_total_iter=~', 'benchmark:counts=[3, 99]', 'benchmark:seeds=[0]']
    assert main(['benchmark', '-opt', 'toy.yml', *few]) == 1
    rows = list(csv.DictReader((toy / 'experiments' / 'toy' / 'results.csv').open()))
    assert [(row['set'], row['count']) for row in rows] == [('random', '3'), ('full', '16')]
    assert 'failed: set random__99_s0' in caplog.text and '99' in (toy / 'experiments/toy/report.html').read_text()


@pytest.mark.long
def test_another_test_image_reruns_every_cell_and_says_so(toy: Path, caplog: pytest.LogCaptureFixture) -> None:
    few = ['--force_yml', 'benchmark:budget:full_total_iter=~', 'benchmark:seeds=[0]']
    assert main(['benchmark', '-opt', 'toy.yml', *few]) == 0
    results = toy / 'experiments' / 'toy' / 'results.csv'
    before = [row['value'] for row in csv.DictReader(results.open())]
    sets = {path: path.stat().st_mtime_ns for path in results.parent.glob('sets/*/set/stage.json')}
    save_rgb(toy / 'held' / 'chelsea.png', data.chelsea()[100:164, 100:196])
    caplog.clear()
    assert main(['benchmark', '-opt', 'toy.yml', *few]) == 0
    assert 'random__3_s0__edsr_t0: made again (inputs.tests.held' in caplog.text
    assert {path: path.stat().st_mtime_ns for path in sets} == sets
    after = [row['value'] for row in csv.DictReader(results.open())]
    assert len(after) == 2 and all(one != other for one, other in zip(before, after))


@pytest.mark.long
def test_a_changed_cell_that_still_runs_somewhere_is_not_removed(toy: Path, caplog: pytest.LogCaptureFixture) -> None:
    few = ['--force_yml', 'benchmark:seeds=[0]', 'benchmark:budget:full_total_iter=~']
    assert main(['benchmark', '-opt', 'toy.yml', *few]) == 0
    cell = toy / 'experiments' / 'toy' / 'cells' / 'random__3_s0__edsr_t0'
    with locked(lock_beside(cell, JOB_LOCK), cell):
        assert main(['benchmark', '-opt', 'toy.yml', *few, 'benchmark:budget:total_iter=1']) == 1
    assert f'failed: cell {cell.name}: ' in caplog.text and f'{cell.name}: in use by process' in caplog.text
    assert (cell / 'test' / 'stage.json').is_file()
    assert {row['set'] for row in csv.DictReader((toy / 'experiments/toy/results.csv').open())} == {'full'}


@pytest.mark.long
def test_a_dry_run_times_the_crop_that_is_trained_on(toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test's photograph has 64 x 96 pixels, the patches 128."""
    seen = []

    class Looking(LocalLauncher):
        def __call__(self, job: Job) -> int:
            options = load_option_file(job.home / 'train' / 'train.yml')['datasets']['train']
            images = [read_rgb(image.path) for image in find_images([Path(options['dataroot_gt'])])]
            seen.append((options['gt_size'], {image.shape for image in images}))
            return 1

    monkeypatch.setattr('basicsr_distill.benchmark.trial.LocalLauncher', Looking)
    recipe = (toy / 'pool.yml').read_text()
    (toy / 'pool.yml').write_text(recipe.replace('patch_size: 64', 'patch_size: 128'))
    file = BenchmarkFile.load(Path('toy.yml'), ['benchmark:networks:edsr:force_yml=[datasets:train:gt_size=96]'])
    assert benchmark(file, dry_run=True) == 0
    assert seen == [(96, {(128, 128, 3)})]
