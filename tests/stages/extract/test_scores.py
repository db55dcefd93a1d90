"""Scores of photographs from files and from pyiqa."""

import csv
import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from support import run_extract
from torch import Tensor

from basicsr_distill.config.sections.extract import ExtractOptions
from basicsr_distill.errors import InputError
from basicsr_distill.stages.extract import layout


def options(photo_folder: Path, name: str = 'patches', **changes: Any) -> ExtractOptions:
    return ExtractOptions(
        **{'dataroot': str(photo_folder), 'save_dir': str(photo_folder.parent / name), 'patch_size': 64} | changes
    )


def quarantine(folder: Path) -> dict[str, tuple[str, str]]:
    if not (folder / 'quarantine.csv').is_file():
        return {}
    with (folder / 'quarantine.csv').open() as file:
        return {row['source']: (row['reason'], row['detail']) for row in csv.DictReader(file)}


def written(folder: Path) -> dict[str, dict[str, str]]:
    with (folder / 'scores.csv').open() as file:
        return {row.pop('name'): row for row in csv.DictReader(file)}


@pytest.fixture
def names(photos: dict[str, NDArray[np.uint8]]) -> list[str]:
    return sorted(photos)


@pytest.mark.parametrize('line', ['{name} {score}', '{stem},{score}', '{name}\t{score}', '{stem}: {score}'])
def test_lines_of_names_and_numbers(photo_folder: Path, names: list[str], line: str) -> None:
    path = photo_folder.parent / 'hyperiqa.txt'
    path.write_text(
        ''.join(
            line.format(name=name, stem=Path(name).stem, score=number / 10) + '\n' for number, name in enumerate(names)
        )
    )
    folder = run_extract(options(photo_folder, scores={'file': str(path), 'min': 0.15}))
    assert quarantine(folder) == {names[0]: ('hyperiqa', '0 under 0.15'), names[1]: ('hyperiqa', '0.1 under 0.15')}
    assert {name: float(row['hyperiqa']) for name, row in written(folder).items()} == {
        name: pytest.approx(number / 10) for number, name in enumerate(names)
    }


def test_two_columns_of_a_table_and_images_without_a_score(photo_folder: Path, names: list[str]) -> None:
    path = photo_folder.parent / 'bhi.csv'
    path.write_text(
        'tile,hyperiqa,ic9600\n'
        + ''.join(f'{name},{0.1 * number},{0.5 - 0.1 * number}\n' for number, name in enumerate(names[:-1]))
    )
    table = {'file': str(path), 'name_column': 'tile'}
    folder = run_extract(
        options(
            photo_folder,
            scores=[table | {'column': 'hyperiqa', 'min': 'q40'}, table | {'column': 'ic9600', 'min': 0.25}],
        )
    )
    low = [
        name
        for number, name in enumerate(names[:-1])
        if 0.1 * number < np.quantile(0.1 * np.arange(len(names) - 1), 0.4)
    ]
    late = [name for number, name in enumerate(names[:-1]) if number > 2 and name not in low]
    found = quarantine(folder)
    assert {name: reason for name, (reason, _) in found.items()} == {
        **dict.fromkeys(low, 'hyperiqa'),
        **dict.fromkeys(late, 'ic9600'),
        names[-1]: 'hyperiqa',
    }
    assert found[names[-1]][1] == 'no score in bhi.csv'
    assert written(folder)[names[-1]] == {'hyperiqa': '', 'ic9600': ''}
    # What was written is a file of scores again.
    again = run_extract(
        options(photo_folder, 'again', scores={'file': str(folder / 'scores.csv'), 'column': 'ic9600', 'max': 0.45})
    )
    assert quarantine(again)[names[0]] == ('ic9600', '0.5 over 0.45')


def test_paths_go_before_names(photo_folder: Path, names: list[str]) -> None:
    (photo_folder / names[0]).rename(photo_folder / 'a' / 'same.png')
    (photo_folder / names[1]).rename(photo_folder / 'same.png')
    path = photo_folder.parent / 'scores.txt'
    path.write_text('a/same 1\nsame 2\n' + ''.join(f'{name} 3\n' for name in names[2:]))
    scores = written(run_extract(options(photo_folder, scores={'file': str(path), 'min': 0.5})))
    assert scores['a/same.png']['scores'] == '1' and scores['same.png']['scores'] == '2'


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (None, 'no such file'),
        ('unknown 1\n', "of none of the .* its first name is 'unknown'"),
        ('astronaut high\n', "'high', is not a number"),
        ('astronaut nan\n', 'astronaut is not finite'),
        ('astronaut\n', "'astronaut' is not a name and a number"),
    ],
)
def test_a_file_that_says_nothing_is_refused(photo_folder: Path, content: str | None, message: str) -> None:
    path = photo_folder.parent / 'scores.txt'
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError, match=message):
        run_extract(options(photo_folder, scores={'file': str(path), 'min': 0.5}))


@pytest.mark.parametrize(
    ('scores', 'message'),
    [
        ({'min': 1}, 'give file or metric'),
        ({'file': 'a', 'metric': 'b', 'min': 1}, 'give file or metric'),
        ({'file': 'a.txt', 'weights': 'b', 'min': 1}, 'weights are those of a metric'),
        ({'file': 'a.txt'}, 'give min, max'),
        ([{'file': 'a.csv', 'min': 1}, {'file': 'b.csv', 'min': 1}], 'two scores are called score'),
    ],
)
def test_wrong_scores_are_refused(photo_folder: Path, scores: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        options(photo_folder, scores=scores)


def test_another_file_is_another_extraction(photo_folder: Path, names: list[str]) -> None:
    path = photo_folder.parent / 'scores.txt'
    path.write_text(''.join(f'{name} 1\n' for name in names))
    run_extract(options(photo_folder, scores={'file': str(path), 'min': 0.5}))
    path.write_text(''.join(f'{name} 2\n' for name in names))
    with pytest.raises(InputError, match=r'inputs\.scores'):
        run_extract(options(photo_folder, scores={'file': str(path), 'min': 0.5}))


@pytest.fixture
def pyiqa(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """A stand-in for pyiqa, whose one metric is the mean of an image and a random number; the batches it was given."""
    batches: list[tuple[int, ...]] = []

    def create_metric(name: str, device: torch.device, **keys: Any) -> Any:
        assert os.environ['TORCH_FORCE_WEIGHTS_ONLY_LOAD'] == '1'
        if 'pretrained_model_path' in keys:
            raise RuntimeError('no such weights')

        def metric(pixels: Tensor) -> Tensor:
            assert pixels.min() >= 0 and pixels.max() <= 1 and pixels.max() > 0.5
            batches.append(tuple(pixels.shape))
            return pixels.mean(dim=(1, 2, 3)) + 1e-3 * torch.rand(len(pixels))

        return metric

    module = ModuleType('pyiqa')
    module.create_metric = create_metric  # type: ignore[attr-defined]
    module.list_models = lambda metric_mode: ['mean', 'topiq_nr']  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, 'pyiqa', module)
    return batches


def test_a_metric_of_pyiqa_is_computed_once_in_batches(
    photo_folder: Path,
    photos: dict[str, NDArray[np.uint8]],
    pyiqa: list[tuple[int, ...]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for number in range(3):
        (photo_folder / f'copy_{number}.png').write_bytes((photo_folder / 'coffee.png').read_bytes())
    (photo_folder / 'broken.png').write_bytes(b'no picture')
    monkeypatch.setattr(layout, '_IMAGES_PER_PART', 4)
    given = options(photo_folder, scores={'metric': 'mean', 'min': 'q30', 'batch_size': 2})
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(
            'basicsr_distill.stages.extract.stage.Scoring', lambda *given: (_ for _ in ()).throw(KeyboardInterrupt)
        )
        run_extract(given)
    made = len(pyiqa)
    folder = run_extract(given)
    assert len(pyiqa) == made, 'what was computed is not computed again'
    assert max(shape[0] for shape in pyiqa) == 2
    scores = {name: row['mean'] for name, row in written(folder).items()}
    assert scores['broken.png'] == '' and quarantine(folder)['broken.png'][0] == 'not_an_image'
    for name, rgb in photos.items():
        assert float(scores[name]) == pytest.approx(rgb.mean() / 255, abs=2e-3)
    known = np.array([float(score) for score in scores.values() if score], np.float32)
    low = {name for name, score in scores.items() if score and float(score) < np.quantile(known, 0.3)}
    assert {name for name, (reason, _) in quarantine(folder).items() if reason == 'mean'} == low
    before = torch.random.get_rng_state()
    run_extract(options(photo_folder, 'other', scores={'metric': 'mean', 'min': 'q30', 'batch_size': 2}))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert written(photo_folder.parent / 'other') == written(folder)
    assert 'TORCH_FORCE_WEIGHTS_ONLY_LOAD' not in os.environ


@pytest.mark.parametrize(
    ('scores', 'message'),
    [
        ({'metric': 'topiqnr'}, "no metric 'topiqnr' without a reference; did you mean 'topiq_nr'"),
        (
            {'metric': 'mean', 'weights': __file__},
            'cannot make mean .no such weights.; give its weights as a local file',
        ),
    ],
)
def test_what_pyiqa_cannot_make_is_refused(
    photo_folder: Path, pyiqa: list[tuple[int, ...]], scores: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        run_extract(options(photo_folder, scores=scores | {'min': 0.2}))
    assert not list((photo_folder.parent / 'patches').glob('*.json'))


@pytest.mark.skipif(importlib.util.find_spec('pyiqa') is not None, reason='pyiqa is installed')
def test_without_pyiqa_the_extra_is_named(photo_folder: Path) -> None:
    with pytest.raises(InputError, match=r'pip install basicsr-distill\[iqa\]'):
        run_extract(options(photo_folder, scores={'metric': 'hyperiqa', 'min': 0.2}))


def test_pyiqa_itself_where_it_is_there(photo_folder: Path, photos: dict[str, NDArray[np.uint8]]) -> None:
    """Its metric entropy needs no weights."""
    pytest.importorskip('pyiqa')
    scores = written(run_extract(options(photo_folder, scores={'metric': 'entropy', 'min': 0.1})))
    assert all(5 < float(row['entropy']) < 8 for row in scores.values()) and len(scores) == len(photos)
