import errno
import os
from pathlib import Path

import numpy as np
import pytest

from basicsr_distill.errors import InputError
from basicsr_distill.io.arrays import read_arrays
from basicsr_distill.runtime import distributed
from basicsr_distill.stages.record import StagePlan
from basicsr_distill.stages.sharding import own_parts, save_part, shared_stage_folder


@pytest.mark.parametrize('ranks', [1, 2, 3, 7])
def test_ranks_share_the_same_parts_without_overlap(ranks: int, monkeypatch: pytest.MonkeyPatch) -> None:
    items = list(range(23))
    alone = own_parts(items, 5)
    assert alone == [(0, items[:5]), (1, items[5:10]), (2, items[10:15]), (3, items[15:20]), (4, items[20:])]
    monkeypatch.setattr(distributed, 'world_size', lambda: ranks)
    shared = []
    for rank in range(ranks):
        monkeypatch.setattr(distributed, 'rank', lambda rank=rank: rank)
        shared += own_parts(items, 5)
    assert sorted(shared) == alone


def test_parts_round_trip(tmp_path: Path) -> None:
    arrays = {'a': np.arange(6, dtype=np.float32).reshape(2, 3), 'b': np.array([b'x', b'longer'])}
    save_part(tmp_path / 'part.npz', arrays)
    loaded = read_arrays(tmp_path / 'part.npz')
    assert loaded.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(loaded[name], array)
    assert [path.name for path in tmp_path.iterdir()] == ['part.npz']


def test_parts_with_pickled_objects_are_not_read(tmp_path: Path) -> None:
    np.savez(tmp_path / 'part.npz', a=np.array([{}], dtype=object))
    with pytest.raises(InputError, match=r'part\.npz: holds no plain array'):
        read_arrays(tmp_path / 'part.npz')


def test_a_refused_fresh_run_leaves_no_trace_and_a_resumed_one_keeps_its_work(tmp_path: Path) -> None:
    folder = tmp_path / 'out'
    with pytest.raises(InputError), shared_stage_folder(StagePlan(folder, 'extract', {}, {})):
        (folder / 'half').write_text('x')
        raise InputError('no')
    assert not list(folder.iterdir())
    with pytest.raises(KeyboardInterrupt), shared_stage_folder(StagePlan(folder, 'extract', {}, {})):
        (folder / 'half').write_text('x')
        raise KeyboardInterrupt
    with pytest.raises(InputError), shared_stage_folder(StagePlan(folder, 'extract', {}, {})) as stage:
        assert stage.resumed
        raise InputError('no')
    assert (folder / 'half').exists()


@pytest.mark.parametrize(
    'name',
    [
        'parts/000001.npz',
        'parts/label000_00001.png',
        'latents/train/00000.npy',
        'models/net_g_5000.pth',
        'training_states/5000.state',
    ],
)
def test_a_late_refusal_keeps_finished_work(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError), shared_stage_folder(StagePlan(tmp_path / 'out', 'finetune', {}, {})):
        (tmp_path / 'out' / name).parent.mkdir(parents=True)
        (tmp_path / 'out' / name).write_text('hours')
        raise InputError('no')
    assert (tmp_path / 'out' / name).exists()
    with shared_stage_folder(StagePlan(tmp_path / 'out', 'finetune', {}, {})) as stage:
        assert stage.resumed
    with (
        pytest.raises(InputError, match=r'options\.a: was None, now 1'),
        shared_stage_folder(StagePlan(tmp_path / 'out', 'finetune', {'a': 1}, {})),
    ):
        pass


def test_what_is_made_at_once_is_no_work(tmp_path: Path) -> None:
    with pytest.raises(InputError), shared_stage_folder(StagePlan(tmp_path / 'out', 'finetune', {}, {})):
        for name in ('latents/codec.safetensors', 'latents/train/latents.json', 'train.log', 'models/x'):
            (tmp_path / 'out' / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / 'out' / name).touch()
        raise InputError('no')
    assert not list((tmp_path / 'out').iterdir())


def test_a_finished_stage_survives_a_refusal(tmp_path: Path) -> None:
    with shared_stage_folder(StagePlan(tmp_path, 'finetune', {}, {})) as stage:
        stage.finish({})
    with pytest.raises(InputError), shared_stage_folder(StagePlan(tmp_path, 'finetune', {}, {})):
        raise InputError('the checkpoint was changed')
    assert (tmp_path / 'stage.json').exists()


@pytest.mark.parametrize('number', [errno.ENOSPC, errno.EROFS, errno.EDQUOT])
def test_a_full_disk_is_one_sentence_and_the_work_is_kept(tmp_path: Path, number: int) -> None:
    with (
        pytest.raises(OSError, match=r'out: .*, \d+ MB are free; make room and run the same command again') as caught,
        shared_stage_folder(StagePlan(tmp_path / 'out', 'sample', {}, {})),
    ):
        (tmp_path / 'out' / 'half').touch()
        raise OSError(number, os.strerror(number), 'deep/file')
    assert caught.value.errno == number and '\n' not in str(caught.value)
    assert (tmp_path / 'out' / 'half').exists()
    plan = StagePlan(tmp_path / 'out', 'sample', {}, {})
    with pytest.raises(OSError, match='5 MB are needed'), shared_stage_folder(plan):
        raise OSError(number, '5 MB are needed')
    with pytest.raises(FileNotFoundError, match='deep'), shared_stage_folder(plan):
        (tmp_path / 'deep').read_bytes()
