import hashlib
import json
from pathlib import Path

import pytest

from basicsr_distill.errors import InputError
from basicsr_distill.stages import record as module
from basicsr_distill.stages.record import (
    StagePlan,
    fingerprint_stage,
    photo_folders,
    read_stage,
    refuse_overlap,
    stage_folder,
)

OPTIONS = {'threshold': 23.0, 'nested': {'k': [1, 2]}}
INPUTS = {'photos': 'abc'}


def finish(folder: Path, **changes: object) -> None:
    with stage_folder(StagePlan(folder, 'extract', {**OPTIONS, **changes}, INPUTS)) as run:
        assert not run.finished
        (folder / 'table.csv').write_text('x\n')
        run.finish({'kept': 3}, ['table.csv'], threshold_db=23.0)


def test_a_finished_stage_tells_what_it_did_and_is_skipped(tmp_path: Path) -> None:
    folder = tmp_path / 'deep' / 'out'
    finish(folder)
    record = json.loads((folder / 'stage.json').read_text())
    assert {key: record[key] for key in ('stage', 'options', 'inputs', 'counts', 'threshold_db')} == {
        'stage': 'extract',
        'options': OPTIONS,
        'inputs': INPUTS,
        'counts': {'kept': 3},
        'threshold_db': 23.0,
    }
    assert record['outputs'] == {'table.csv': hashlib.sha256(b'x\n').hexdigest()}
    assert 'torch' in record['versions']
    assert sorted(path.name for path in folder.iterdir()) == ['stage.json', 'table.csv']
    with stage_folder(StagePlan(folder, 'extract', OPTIONS, INPUTS)) as run:
        assert run.finished
        assert run.record == record
    assert read_stage(folder) == record
    assert read_stage(tmp_path) == {}


def test_equal_work_leaves_equal_records(tmp_path: Path) -> None:
    finish(tmp_path / 'one')
    finish(tmp_path / 'two')
    assert (tmp_path / 'one' / 'stage.json').read_bytes() == (tmp_path / 'two' / 'stage.json').read_bytes()


def test_where_a_folder_was_made_is_recorded_and_not_compared(tmp_path: Path) -> None:
    finish(tmp_path)
    path = tmp_path / 'stage.json'
    record = json.loads(path.read_text())
    assert record['processor']
    elsewhere = {**record, 'processor': 'another', 'versions': {'torch': '1.0'}}
    of_an_older_release = {key: value for key, value in record.items() if key != 'processor'}
    for other in (elsewhere, of_an_older_release):
        path.write_text(json.dumps(other))
        with stage_folder(StagePlan(tmp_path, 'extract', OPTIONS, INPUTS)) as run:
            assert run.finished
        assert read_stage(tmp_path) == other


def test_a_system_without_a_processor_name_gives_its_architecture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, 'Path', lambda _: tmp_path / 'absent')
    monkeypatch.setattr(module.platform, 'processor', lambda: '')
    assert module._processor() == module.platform.machine()


def test_an_interrupted_stage_resumes_or_is_refused_with_the_difference(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), stage_folder(StagePlan(tmp_path, 'extract', OPTIONS, INPUTS)) as run:
        assert not run.resumed
        (tmp_path / 'patch.png').write_text('x')
        (tmp_path / 'half.png.part').write_text('x')
        raise RuntimeError
    with (
        pytest.raises(InputError, match=r'options\.nested\.k: was \[1, 2\], now \[1, 3\]'),
        stage_folder(StagePlan(tmp_path, 'extract', {**OPTIONS, 'nested': {'k': [1, 3]}}, INPUTS)),
    ):
        pass
    with (
        pytest.raises(InputError, match=r"inputs\.photos: was 'abc', now 'abd'"),
        stage_folder(StagePlan(tmp_path, 'extract', OPTIONS, {'photos': 'abd'})),
    ):
        pass
    with (
        pytest.raises(InputError, match=r"stage: was 'extract', now 'cluster'"),
        stage_folder(StagePlan(tmp_path, 'cluster', OPTIONS, INPUTS)),
    ):
        pass
    with stage_folder(StagePlan(tmp_path, 'extract', OPTIONS, INPUTS)) as run:
        assert run.resumed
        assert not run.finished
        assert (tmp_path / 'patch.png').exists()
        assert not (tmp_path / 'half.png.part').exists()


def test_a_finished_stage_with_other_options_is_refused_untouched(tmp_path: Path) -> None:
    finish(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with (
        pytest.raises(InputError, match=r'options\.threshold: was 23\.0, now 24\.0'),
        stage_folder(StagePlan(tmp_path, 'extract', {**OPTIONS, 'threshold': 24.0}, INPUTS)),
    ):
        pass
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    ('stage', 'advice'), [('extract', 'another save_dir'), ('finetune', 'another name for the experiment')]
)
def test_files_of_another_origin_are_never_touched(tmp_path: Path, stage: str, advice: str) -> None:
    (tmp_path / 'holiday.jpg.part').write_text('x')
    with (
        pytest.raises(InputError, match=f'holds files of another origin; choose {advice}'),
        stage_folder(StagePlan(tmp_path, stage, OPTIONS, INPUTS)),
    ):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ['holiday.jpg.part']


def test_a_run_killed_at_its_first_write_is_no_other_origin(tmp_path: Path) -> None:
    (tmp_path / 'stage.started.json.part').write_text('{"sta')
    finish(tmp_path)


def test_a_run_killed_right_after_stage_json_is_finished(tmp_path: Path) -> None:
    finish(tmp_path)
    record = json.loads((tmp_path / 'stage.json').read_text())
    (tmp_path / 'stage.started.json').write_text(
        json.dumps({key: record[key] for key in ('stage', 'options', 'inputs')})
    )
    with stage_folder(StagePlan(tmp_path, 'extract', OPTIONS, INPUTS)) as run:
        assert run.finished
        assert not run.resumed
    assert not (tmp_path / 'stage.started.json').exists()


def test_parts_go_only_once_the_stage_is_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        monkeypatch.context() as patch,
        pytest.raises(KeyboardInterrupt),
        stage_folder(StagePlan(tmp_path, 'extract', OPTIONS, INPUTS)) as run,
    ):
        run.parts.mkdir()
        (run.parts / '0.npz').write_text('hours')

        def killed(*_: object) -> None:
            raise KeyboardInterrupt

        patch.setattr(module, 'write_json', killed)
        run.finish({})
    assert (tmp_path / 'parts' / '0.npz').exists()
    with monkeypatch.context() as patch, stage_folder(StagePlan(tmp_path, 'extract', OPTIONS, INPUTS)) as run:
        patch.setattr(module, '_remove_leftovers', lambda folder: None)  # as if killed right behind stage.json
        run.finish({})
    assert (tmp_path / 'parts').exists() and (tmp_path / 'stage.started.json').exists()
    with stage_folder(StagePlan(tmp_path, 'extract', OPTIONS, INPUTS)) as run:
        assert run.finished
    assert [path.name for path in tmp_path.iterdir()] == ['stage.json']


@pytest.mark.parametrize(
    ('output', 'photos'),
    [
        ('photos', 'photos'),
        ('photos/deep/out', 'photos'),
        ('.', 'photos'),
        ('link/out', 'photos'),
        ('photos/../photos/x', 'photos'),
    ],
)
def test_outputs_among_the_photographs_are_refused(tmp_path: Path, output: str, photos: str) -> None:
    (tmp_path / 'photos').mkdir()
    (tmp_path / 'link').symlink_to(tmp_path / 'photos')
    with pytest.raises(InputError, match=r'extract\.save_dir: .* must lie apart'):
        refuse_overlap(
            str(tmp_path / output), [str(tmp_path / 'elsewhere'), str(tmp_path / photos)], 'extract.save_dir'
        )
    refuse_overlap(str(tmp_path / 'photos_patches'), [str(tmp_path / photos)], 'extract.save_dir')


def test_the_photographs_of_patches_are_known(tmp_path: Path) -> None:
    assert photo_folders(tmp_path) == []
    finish(tmp_path / 'one', dataroot='photos')
    finish(tmp_path / 'two', dataroot=['a', 'b'])
    assert photo_folders(tmp_path / 'one') == ['photos'] and photo_folders(tmp_path / 'two') == ['a', 'b']


def test_abandon_empties_the_folder(tmp_path: Path) -> None:
    with stage_folder(StagePlan(tmp_path, 'extract', OPTIONS, INPUTS)) as run:
        (tmp_path / 'deep').mkdir()
        (tmp_path / 'deep' / 'x').write_text('x')
        run.clear()
    assert not list(tmp_path.iterdir())
    finish(tmp_path, threshold=25.0)


def test_no_infinity_reaches_the_record(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match='JSON'), stage_folder(StagePlan(tmp_path, 'extract', OPTIONS, INPUTS)) as run:
        run.finish({}, threshold_db=float('inf'))
    assert not (tmp_path / 'stage.json').exists()


def test_a_stage_is_known_by_its_record(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r'no stage\.json there; run the stage'):
        fingerprint_stage(tmp_path)
    finish(tmp_path / 'three')
    assert (
        fingerprint_stage(tmp_path / 'three')
        == hashlib.sha256((tmp_path / 'three' / 'stage.json').read_bytes()).hexdigest()
    )


def test_a_section_that_an_earlier_version_did_not_know_and_that_is_off_is_no_difference(tmp_path: Path) -> None:
    with stage_folder(StagePlan(tmp_path / 'out', 'extract', {'size': 3}, {})) as stage:
        stage.finish({}, [])
    off = {'size': 3, 'filters': {'noise': None, 'grey': None}}
    with stage_folder(StagePlan(tmp_path / 'out', 'extract', off, {})) as stage:
        assert stage.finished
    with (
        pytest.raises(InputError, match=r'options\.filters\.noise: was None, now 3'),
        stage_folder(StagePlan(tmp_path / 'out', 'extract', {'size': 3, 'filters': {'noise': 3}}, {})),
    ):
        pass
