"""The command on a toy: cells are made and reported, a second run does nothing, a change reruns what it touches."""

import csv
from pathlib import Path

import pytest
import yaml
from skimage import data
from support import REPOSITORY, save_rgb

from basicsr_distill.cli import main

NETWORK = ['network_g:num_feat=8', 'network_g:num_block=1', 'datasets:train:batch_size_per_gpu=2',
           'datasets:train:gt_size=32']


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    save_rgb(tmp_path / 'photos' / 'astronaut.png', data.astronaut()[:256, :256])
    save_rgb(tmp_path / 'held' / 'chelsea.png', data.chelsea()[:64, :96])
    recipe = {'name': 'pool', 'scale': 4, 'select': {'method': 'random', 'num_images': 1, 'save_dir': 'set'},
              'extract': {'dataroot': 'photos', 'save_dir': 'patches', 'patch_size': 64, 'stride': 64,
                          'threshold': 'q100'}}
    (tmp_path / 'pool.yml').write_text(yaml.safe_dump(recipe))
    train = REPOSITORY / 'options' / 'train' / 'EDSR' / 'train_EDSR_x4_ablation.yml'
    benchmark = {'recipe': 'pool.yml', 'counts': [3], 'seeds': [0, 1],
                 'sets': {'random': {'select': {}}, 'full': {'full': True}},
                 'networks': {'edsr': {'opt': str(train), 'force_yml': NETWORK}},
                 'budget': {'total_iter': 2, 'full_total_iter': 3}, 'tests': {'held': 'held'}, 'metrics': ['psnr_y'],
                 'jobs': {'processes': 1}}
    (tmp_path / 'toy.yml').write_text(yaml.safe_dump({'name': 'toy', 'benchmark': benchmark}, sort_keys=False))
    return tmp_path


def test_a_toy_from_file_to_report(toy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(['benchmark', '-opt', 'toy.yml']) == 0
    root = toy / 'experiments' / 'toy'
    results = (root / 'results.csv').read_text()
    rows = list(csv.DictReader(results.splitlines()))
    assert [(row['set'], row['count'], row['set_seed'], row['train_seed'], row['total_iter']) for row in rows] == [
        ('random', '3', '0', '0', '2'), ('full', '16', '', '0', '2'), ('full', '16', '', '0', '3'),
        ('random', '3', '1', '1', '2'), ('full', '16', '', '1', '2'), ('full', '16', '', '1', '3')]
    assert all(10 < float(row['value']) < 50 for row in rows) and rows[0]['pixels'] == str(3 * 64 * 64)
    page = (root / 'report.html').read_text()
    assert 'is the best real row' in page and 'src="http' not in page and '<link rel="icon" href="data:,">' in page
    assert (root / 'tables' / 'headline__edsr.tex').is_file() and '![' in (root / 'report.md').read_text()

    finished = {path: path.stat().st_mtime_ns for path in root.glob('cells/*/done.json')}
    assert len(finished) == 6
    assert main(['benchmark', '-opt', 'toy.yml']) == 0
    assert (root / 'results.csv').read_text() == results
    assert {path: path.stat().st_mtime_ns for path in root.glob('cells/*/done.json')} == finished

    assert main(['benchmark', '-opt', 'toy.yml', '--force_yml', 'benchmark:budget:full_total_iter=4']) == 0
    assert {path: path.stat().st_mtime_ns for path in finished} == finished  # the others are as they were
    assert len(list(root.glob('cells/*4iter/done.json'))) == 2


@pytest.mark.parametrize(('change', 'message'), [
    ('benchmark:tests={held: nowhere}', 'benchmark.tests.held: nowhere holds no images'),
    ('benchmark:sets={mine: {path: nowhere}}', 'benchmark.sets.mine: path: nowhere does not exist'),
    ('benchmark:sets={mine: {path: photos}}', 'photos has 1 images, but counts names 3'),
    ('benchmark:sets={mine: {}}', 'give one of path, select and sample, or full: true'),
    ('benchmark:sets={mine: {select: {methd: random}}}', "unknown key 'methd'; did you mean 'method'"),
    ('benchmark:sead=1', "unknown key 'benchmark.sead'; did you mean"),
])
def test_what_is_wrong_is_refused_before_any_work(change: str, message: str, toy: Path,
                                                  capsys: pytest.CaptureFixture[str]) -> None:
    assert main(['benchmark', '-opt', 'toy.yml', '--force_yml', change]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count('\n') == 1
    assert not (toy / 'experiments').exists()
