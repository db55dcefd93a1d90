"""The sets of a row that names a folder: published, plain, of a stage, or of several sizes."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from basicsr.metrics import calculate_psnr
from skimage import data
from support import REPOSITORY, save_rgb

from basicsr_distill.benchmark import results, run
from basicsr_distill.benchmark.cells import begin_part, is_measured, plan_part, weights_changed, weights_path
from basicsr_distill.benchmark.sets import PlannedSet, images_of, plan_sets
from basicsr_distill.config.benchmark_file import BenchmarkFile
from basicsr_distill.config.yaml_files import load_option_file
from basicsr_distill.errors import InputError
from basicsr_distill.io.files import sha256_file
from basicsr_distill.io.images import read_rgb
from basicsr_distill.io.locks import lock_beside, locked
from basicsr_distill.io.manifest import SampleRow, write_table
from basicsr_distill.ops.bicubic import make_lr
from basicsr_distill.stages.record import StagePlan, stage_folder


def sets_of(path: str) -> list[PlannedSet]:
    file = BenchmarkFile.load(Path('toy.yml'), ['benchmark:seeds=[0]', f'benchmark:sets={{mine: {{path: {path}}}}}'])
    return plan_sets(file, Path('experiments/toy'))


@pytest.fixture
def published(toy: Path) -> Path:
    """Six images of two clusters, the second cluster first by name."""
    rows = []
    for number in range(6):
        hr = data.astronaut()[64 * number : 64 * number + 64, :64]
        label = (number + 1) // 2 % 2
        rows.append(SampleRow(f'{number}.png', label, number // 2, 0, 'ab', 1.0, '', 'matlab_rgb', 23.5))
        save_rgb(toy / 'set' / 'HR' / f'{number}.png', hr)
        save_rgb(toy / 'set' / 'LR_bicubic' / 'X4' / f'{number}.png', make_lr(hr, 4))
    write_table(toy / 'set' / 'manifest.csv', rows, SampleRow)
    return toy / 'set'


def test_the_hr_folder_of_a_published_set_is_the_set(published: Path) -> None:
    whole, inner = sets_of('set'), sets_of('set/HR')
    assert [own.listed for own in inner] == [None] and inner[0].folder == Path('set')
    assert images_of(inner[0], 4) == images_of(whole[0], 4) and len(images_of(inner[0], 4)) == 3


def test_other_first_images_of_a_published_set_are_another_set(published: Path) -> None:
    (planned,) = sets_of('set')
    before = run._fingerprint_and_size(planned, 4)
    table = published / 'manifest.csv'
    head, *lines = table.read_text().splitlines()
    table.write_text('\n'.join([head, *(line.replace(',0,', ',9,', 1) for line in lines[::-1])]) + '\n')
    assert run._fingerprint_and_size(planned, 4) != before


def test_a_folder_of_hr_and_lr_images_is_no_row(toy: Path) -> None:
    for number in range(4):
        hr = data.astronaut()[64 * number : 64 * number + 64, :64]
        save_rgb(toy / 'both' / 'GT' / f'{number}.png', hr)
        save_rgb(toy / 'both' / 'LRx4' / f'{number}x4.png', make_lr(hr, 4))
    with pytest.raises(InputError, match=r'benchmark\.sets\.mine: .*LRx4 holds the pictures of GT at a smaller size'):
        sets_of('both')


def test_the_folder_of_a_stage_is_its_images(toy: Path) -> None:
    for number in range(5):
        save_rgb(toy / 'made' / 'images' / f'{number}.png', data.astronaut()[:64, :64])
    for name in ('stage.json', 'manifest.csv'):
        (toy / 'made' / name).write_text('{}')
    (planned,) = sets_of('made')
    assert planned.folder == Path('made/images') and planned.listed and len(planned.listed) == 3


def test_names_that_no_list_can_hold_are_refused(toy: Path) -> None:
    for name in ('a', 'b', 'c', 'd', 'line\nbreak'):
        save_rgb(toy / 'odd' / f'{name}.png', data.astronaut()[:64, :64])
    with pytest.raises(InputError, match='cannot stand in a list'):
        sets_of('odd')


def finished(home: Path, part: str, name: str = 'cell', **facts: object) -> StagePlan:
    plan = plan_part(home, part, {'name': name}, {'set': 'a'})
    begin_part(plan)
    with stage_folder(plan) as stage:
        stage.finish({}, **facts)
    return plan


def test_a_cell_whose_weights_are_gone_is_trained_again_only_if_they_are_needed(toy: Path) -> None:
    home = toy / 'cell'
    training, weights = plan_part(home, 'train', {'name': 'cell'}, {'set': 'a'}), home / 'train' / weights_path('cell')
    begin_part(training)
    weights.parent.mkdir(parents=True)
    weights.write_bytes(b'weights')
    digest = sha256_file(weights)
    with stage_folder(training) as stage:
        stage.finish({}, weights_sha256=digest)
    test = finished(home, 'test', weights_sha256=digest, values={})
    assert is_measured(training, test) and not weights_changed(training)
    weights.unlink()
    assert run._prepare(home, training, test)  # measured: nobody needs the weights
    more = plan_part(home, 'test', {'name': 'cell'}, {'set': 'a', 'tests.more': 'b'})
    assert not run._prepare(home, training, more) and not (home / 'train' / 'stage.json').exists()


def test_the_record_of_a_cell_is_that_of_earlier_versions_from_any_working_folder(
    toy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its paths lead from its folder, as they did when cells ran there; its option file's are absolute."""
    (toy / 'sets' / 'HR').mkdir(parents=True)
    (toy / 'sets' / 'list.txt').touch()

    def plan() -> StagePlan:
        dataset = {
            'type': 'X',
            'dataroot_gt': os.path.relpath(toy / 'sets' / 'HR'),
            'meta_info_file': str(toy / 'sets' / 'list.txt'),
            'io_backend': {'type': 'a/b'},
        }
        options = {'name': 'cell', 'datasets': {'train': dataset}, 'path': {'pretrain_network_g': None}}
        return plan_part(Path(os.path.relpath(toy / 'cells' / 'cell')), 'train', options, {'set': 'a'})

    here = plan()
    assert here.header['options']['datasets']['train'] == {
        'type': 'X',
        'dataroot_gt': '../../../sets/HR',
        'meta_info_file': '../../../sets/list.txt',
        'io_backend': {'type': 'a/b'},
    }
    begin_part(here)
    written = load_option_file(toy / 'cells' / 'cell' / 'train' / 'train.yml')['datasets']['train']
    assert written['dataroot_gt'] == str((toy / 'sets' / 'HR').resolve()) and written['io_backend'] == {'type': 'a/b'}
    monkeypatch.chdir(toy / 'sets')
    assert plan().header == here.header and not plan().changes


def test_nothing_of_a_cell_that_was_removed_is_left_for_the_next(toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed within the removal: the folder has another name by then."""
    home = toy / 'cells' / 'cell'
    finished(home, 'train', weights_sha256='x')

    def dies(path: Path, ignore_errors: bool = False) -> None:
        if not ignore_errors or path.exists():
            raise KeyboardInterrupt

    monkeypatch.setattr(shutil, 'rmtree', dies)
    with pytest.raises(KeyboardInterrupt):
        run._remove(home, home, 'other options')
    assert not home.exists()


def test_a_cell_that_a_job_is_at_is_left_to_it(toy: Path) -> None:
    """A benchmark that was killed and started again, while a job of a cluster goes on."""
    home = toy / 'cell'
    parts = [plan_part(home, part, {'name': 'cell'}, {'set': 'a'}) for part in ('train', 'test')]
    for part in parts:
        begin_part(part)
    with locked(lock_beside(home, run.JOB_LOCK), home):
        assert not run._prepare(home, *parts)


def test_a_row_of_fewer_images_than_its_table_says_costs_its_cells_alone(published: Path) -> None:
    for number in range(6, 12):
        save_rgb(published / 'HR' / f'{number}.png', data.astronaut()[:64, :64])
    file = BenchmarkFile.load(Path('toy.yml'), ['benchmark:counts=[7]', 'benchmark:sets={mine: {path: set}}'])
    with pytest.raises(InputError, match=r'set has 6 images, but counts names 7'):
        plan_sets(file, Path('experiments/toy'))


def test_a_job_of_a_machine_with_many_gpus_has_one(toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The benchmark sees all of them; the batch that it plans is that of the job."""
    monkeypatch.setattr('basicsr_distill.benchmark.sets.resolve_num_gpu', lambda wanted: 8)
    recipe = {'recipe': str(REPOSITORY / 'options/distill/gsdd_demo.yml'), 'sample': {}}
    sets = ['benchmark:seeds=[0]', f'benchmark:sets={json.dumps({"gsdd": recipe})}']
    (planned,) = plan_sets(BenchmarkFile.load(Path('toy.yml'), sets), Path('experiments/toy'))
    assert planned.options['num_gpu'] == 1
    (elsewhere,) = plan_sets(
        BenchmarkFile.load(Path('toy.yml'), [*sets, 'benchmark:jobs={executor: slurm}']), Path('experiments/toy')
    )
    assert elsewhere.options['num_gpu'] == 'auto'


def test_interpolation_is_measured_on_what_networks_are_tested_on(published: Path) -> None:
    whole = results._bicubic_on('set', 'set', 4, ['psnr_y'])['psnr_y']
    images = [read_rgb(path) for path in sorted((published / 'HR').iterdir())]
    border = np.s_[4:-4, 4:-4]
    by_hand = [
        calculate_psnr(results.upsampled(hr, 4)[border][..., ::-1], hr[border][..., ::-1], 0, test_y_channel=True)
        for hr in images
    ]
    assert whole == pytest.approx(np.mean(by_hand))
