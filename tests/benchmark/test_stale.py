"""Whatever is changed between two runs, results.csv holds what the last one measured or would measure, and no more."""

import csv
import json
import signal
import time
from pathlib import Path

import pytest
import yaml
from benchmark_toy import make_toy, start
from skimage import data
from support import REPOSITORY, save_rgb

from basicsr_distill.cli import main

pytestmark = pytest.mark.long  # only `bash scripts/test.sh --all` and CI run it

FEW = ['--force_yml', 'benchmark:seeds=[0]', 'benchmark:budget:full_total_iter=~']


def rows(folder: Path) -> list[dict[str, str]]:
    path = folder / 'experiments' / 'toy' / 'results.csv'
    return list(csv.DictReader(path.open())) if path.is_file() else []


def named(folder: Path) -> list[tuple[str, str]]:
    return [(row['set'], row['set_seed']) for row in rows(folder)]


def change_recipe(folder: Path, **extract: object) -> None:
    recipe = yaml.safe_load((folder / 'pool.yml').read_text())
    recipe['extract'].update(extract)
    (folder / 'pool.yml').write_text(yaml.safe_dump(recipe))


def test_killed_edited_replaced_and_made_impossible(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    make_toy(tmp_path)
    monkeypatch.chdir(tmp_path)
    three = ['--force_yml', 'benchmark:seeds=[0,1,2]', 'benchmark:budget:full_total_iter=~']
    run = start(tmp_path, *three)
    while not list(tmp_path.glob('experiments/toy/cells/*/test/stage.json')) and run.poll() is None:
        time.sleep(0.05)
    run.send_signal(signal.SIGKILL)
    run.communicate()
    assert not rows(tmp_path)

    change_recipe(tmp_path, threshold='q50')  # the patches are there, of another threshold
    assert main(['benchmark', '-opt', 'toy.yml', *three]) == 1
    assert not rows(tmp_path) and "options.threshold: was 'q100', now 'q50'" in caplog.text
    report = (tmp_path / 'experiments/toy/report.md').read_text()
    assert 'random, full: recipe pool (exit code 2)' in report and 'threshold' in report

    change_recipe(tmp_path, threshold='q100')
    assert main(['benchmark', '-opt', 'toy.yml', *three]) == 0
    measured = rows(tmp_path)
    assert len(measured) == 6

    photo = tmp_path / 'photos' / 'astronaut.png'
    before = photo.read_bytes()
    save_rgb(photo, data.astronaut()[256:, 256:])
    assert main(['benchmark', '-opt', 'toy.yml', *three]) == 1
    assert not rows(tmp_path) and 'inputs.dataroot' in (tmp_path / 'experiments/toy/report.md').read_text()

    photo.write_bytes(before)
    impossible = 'benchmark:sets:random:select={method: medoids, band: [0.5, 0.51]}'
    assert main(['benchmark', '-opt', 'toy.yml', *three, impossible]) == 1
    assert named(tmp_path) == [('full', '')] * 3
    report = (tmp_path / 'experiments/toy/report.md').read_text()
    assert 'set random__3_s0 (exit code 2)' in report and 'select.num_images' in report
    assert rows(tmp_path) == [row for row in measured if row['set'] == 'full']


def test_a_metric_and_a_test_added_later_keep_the_trainings(toy: Path) -> None:
    assert main(['benchmark', '-opt', 'toy.yml', *FEW]) == 0
    trained = {path: path.stat().st_mtime_ns for path in toy.glob('experiments/toy/cells/*/train/stage.json')}
    first = rows(toy)
    save_rgb(toy / 'more' / 'coffee.png', data.coffee()[:64, :64])
    more = ['benchmark:metrics=[psnr_y, ssim_y]', 'benchmark:tests={held: held, more: more}']
    assert main(['benchmark', '-opt', 'toy.yml', *FEW, *more]) == 0
    assert len(trained) == 2 and trained == {path: path.stat().st_mtime_ns for path in trained}
    assert len(rows(toy)) == 8
    again = [row for row in rows(toy) if (row['test'], row['metric']) == ('held', 'psnr_y')]
    assert [row['value'] for row in again] == [row['value'] for row in first]


def test_a_changed_image_of_a_folder_is_trained_on_again(toy: Path) -> None:
    for number in range(3):
        save_rgb(toy / 'mine' / f'{number}.png', data.coffee()[64 * number : 64 * number + 64, :64])
    mine = [*FEW, 'benchmark:sets={mine: {path: mine}}']
    assert main(['benchmark', '-opt', 'toy.yml', *mine]) == 0
    before = rows(toy)
    assert [(row['set'], row['set_seed'], row['pool']) for row in before] == [('mine', '', 'mine')]
    save_rgb(toy / 'mine' / '1.png', data.astronaut()[:64, :64])
    assert main(['benchmark', '-opt', 'toy.yml', *mine]) == 0
    after = rows(toy)
    assert before[0]['weights_sha256'] != after[0]['weights_sha256'] and before[0]['value'] != after[0]['value']


def test_smaller_sets_of_a_plain_folder_are_drawn_evenly_by_seed(toy: Path) -> None:
    for number in range(12):
        save_rgb(toy / 'mine' / f'{number:02d}.png', data.astronaut()[30 * number : 30 * number + 64, : 64 + number])
    mine = ['--force_yml', 'benchmark:budget:full_total_iter=~', 'benchmark:sets={mine: {path: mine}}']
    assert main(['benchmark', '-opt', 'toy.yml', *mine]) == 0
    assert [(row['set_seed'], row['images']) for row in rows(toy)] == [('0', '3'), ('1', '3')]
    lists = [(toy / f'experiments/toy/sets/mine__3_s{seed}/meta_info.txt').read_text().split() for seed in (0, 1)]
    assert lists[0] != lists[1]
    for seed, names in enumerate(lists):  # one of every third of the folder, and these are the pixels of the table
        assert [int(name[:2]) // 4 for name in names] == [0, 1, 2]
        assert int(rows(toy)[seed]['pixels']) == sum(64 * (64 + int(name[:2])) for name in names)
    assert len({row['weights_sha256'] for row in rows(toy)}) == 2


def test_a_set_that_is_trained_itself_is_made_again_with_other_options(
    toy: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """GSDD: its training lies in experiments/, beside the benchmark."""
    small = [
        'extract:dataroot=photos',
        'extract:patch_size=64',
        'extract:threshold=q100',
        'network_g:size_px=16',
        'network_g:num_labels=2',
        'cluster:num_clusters=2',
        'datasets:train:batch_size_per_gpu=2',
    ]
    for total_iter in (2, 3):
        recipe = {
            'recipe': str(REPOSITORY / 'options/distill/gsdd_demo.yml'),
            'sample': {},
            'force_yml': [*small, f'train:total_iter={total_iter}'],
        }
        change = f'benchmark:sets={{gsdd: {json.dumps(recipe)}}}'
        assert main(['benchmark', '-opt', 'toy.yml', *FEW, change]) == 0
        record = json.loads((toy / 'experiments/toy__gsdd__3_s0/stage.json').read_text())
        assert record['options']['train']['total_iter'] == total_iter and len(rows(toy)) == 1
    assert 'gsdd__3_s0: made again (options.train.total_iter: was 2, now 3)' in caplog.text
    assert 'gsdd__3_s0__edsr_t0: made again (inputs.set' in caplog.text


def test_of_two_pools_of_one_recipe_only_the_broken_one_costs_its_rows(toy: Path) -> None:
    sets = {
        name: {'select': {}, 'recipe': 'pool.yml', 'force_yml': [f'extract:{change}']}
        for name, change in {'good': 'save_dir=other', 'bad': 'threshold=1'}.items()
    }
    assert main(['benchmark', '-opt', 'toy.yml', *FEW, f'benchmark:sets={json.dumps(sets)}']) == 1
    assert named(toy) == [('good', '0')]
    failed = (toy / 'experiments/toy/report.md').read_text().partition('## What failed')[2]
    assert 'bad: recipe pool__2 (exit code 2): ' in failed and 'extract.threshold' in failed
    assert 'good' not in failed[:200]
