"""Where windows lie, which of them are left out, and how many an image may give, in the extract stage."""

import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from support import EVERY_LIMIT, run_extract

from basicsr_distill.config.sections.extract import ExtractOptions
from basicsr_distill.errors import InputError
from basicsr_distill.io.manifest import PatchRow, read_table
from basicsr_distill.ops.loss_maps import bicubic_error_cells, laplacian_cells
from basicsr_distill.selection.windows import best_windows
from basicsr_distill.stages.extract import layout
from basicsr_distill.stages.record import read_stage


def options(photo_folder: Path, name: str = 'patches', **changes: Any) -> ExtractOptions:
    return ExtractOptions(
        **{
            'dataroot': str(photo_folder),
            'save_dir': str(photo_folder.parent / name),
            'patch_size': 64,
            'threshold': 'q100',
        }
        | changes
    )


def places(folder: Path) -> dict[str, list[list[int]]]:
    found: dict[str, list[list[int]]] = {}
    for row in read_table(folder / 'manifest.csv', PatchRow):
        found.setdefault(row.source, []).append([row.top, row.left])
    return found


@pytest.mark.parametrize('by', ['psnr', 'laplacian'])
def test_best_windows_are_written_best_first(photo_folder: Path, photos: dict[str, NDArray[np.uint8]], by: str) -> None:
    folder = run_extract(options(photo_folder, windows={'type': 'best', 'by': by, 'max_overlap': 0.3}))
    for name, found in places(folder).items():
        cells = laplacian_cells(photos[name], 4) if by == 'laplacian' else bicubic_error_cells(photos[name], 4)
        assert found == (4 * best_windows(cells, 16, 0.3)).tolist()
    for row in read_table(folder / 'manifest.csv', PatchRow):
        np.testing.assert_array_equal(
            cv2.imread(str(folder / 'images' / row.name))[..., ::-1],
            photos[row.source][row.top : row.top + 64, row.left : row.left + 64],
        )
    assert read_stage(folder)['counts']['patches_kept'] == read_stage(folder)['counts']['patches_scored']


def test_best_windows_lose_more_than_those_of_the_grid(photo_folder: Path) -> None:
    def hardest(name: str, **changes: Any) -> float:
        rows = read_table(
            run_extract(options(photo_folder, name, max_per_image=3, **changes)) / 'manifest.csv', PatchRow
        )
        return float(np.mean([row.psnr_db for row in rows]))

    assert hardest('best', windows='best') < hardest('grid') - 0.2


def test_random_windows_follow_the_seed_and_no_other_image(photo_folder: Path) -> None:
    drawn = {'windows': {'type': 'poisson', 'min_distance': 40}}
    first = places(run_extract(options(photo_folder, 'first', **drawn)))
    other = places(run_extract(options(photo_folder, 'other', seed=1, **drawn)))
    (photo_folder / 'coffee.png').unlink()
    fewer = places(run_extract(options(photo_folder, 'fewer', **drawn)))
    assert first != other and fewer == {name: found for name, found in first.items() if name != 'coffee.png'}
    for found in first.values():
        apart = np.hypot(*(np.array(found)[:, None] - found).transpose(2, 0, 1).astype(float))
        assert (apart + 1e9 * np.eye(len(found))).min() >= 40 and len(found) > 1


def test_reduced_photographs_are_those_of_pillow(photo_folder: Path, photos: dict[str, NDArray[np.uint8]]) -> None:
    folder = run_extract(options(photo_folder, reduce=2))
    rows = read_table(folder / 'manifest.csv', PatchRow)
    assert rows and {row.reduced_by for row in rows} == {2.0}
    for row in rows:
        rgb = Image.fromarray(photos[row.source])
        half = np.array(rgb.resize((round(rgb.width / 2), round(rgb.height / 2)), Image.Resampling.BICUBIC))
        np.testing.assert_array_equal(
            cv2.imread(str(folder / 'images' / row.name))[..., ::-1],
            half[row.top : row.top + 64, row.left : row.left + 64],
        )
    assert read_stage(folder)['counts']['images_reduced'] == len({row.source for row in rows})


def test_an_enlarged_photograph_is_reduced_or_set_aside(tmp_path: Path, astronaut: NDArray[np.uint8]) -> None:
    photo = astronaut[:256, 100:356]
    large = cv2.resize(photo, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC)
    for name, rgb in (('photo.png', photo), ('enlarged.png', large)):
        (tmp_path / 'photos').mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / 'photos' / name), rgb[..., ::-1])
    dropped = run_extract(options(tmp_path / 'photos', 'dropped', source_filters={'upscaled': {'max': 1.2}}))
    assert set(places(dropped)) == {'photo.png'}
    assert 'enlarged.png,upscaled,2 over 1.2' in (dropped / 'quarantine.csv').read_text()
    reduced = run_extract(
        options(tmp_path / 'photos', 'reduced', source_filters={'upscaled': {'max': 1.2, 'reduce': True}})
    )
    found = places(reduced)
    assert found['enlarged.png'] == found['photo.png']
    factors = {row.source: row.reduced_by for row in read_table(reduced / 'manifest.csv', PatchRow)}
    assert factors == {'photo.png': 1.0, 'enlarged.png': pytest.approx(2, rel=0.01)}
    with pytest.raises(InputError, match='1 too small'):
        (tmp_path / 'photos' / 'photo.png').unlink()
        run_extract(
            options(
                tmp_path / 'photos', 'small', patch_size=300, source_filters={'upscaled': {'max': 1.2, 'reduce': True}}
            )
        )


@pytest.mark.parametrize('windows', [None, 'best'])
def test_an_image_gives_at_most_so_many(photo_folder: Path, windows: str | None) -> None:
    everything = read_table(run_extract(options(photo_folder, 'all', windows=windows)) / 'manifest.csv', PatchRow)
    few = run_extract(options(photo_folder, 'few', windows=windows, max_per_image=2))
    kept = {row.name for row in read_table(few / 'manifest.csv', PatchRow)}
    for source in {row.source for row in everything}:
        own = [row for row in everything if row.source == source]
        first = sorted(own, key=lambda row: row.psnr_db)[:2] if windows is None else own[:2]
        assert {row.name for row in first} == {row.name for row in own if row.name in kept}
    counts = read_stage(few)['counts']
    assert counts['patches_over_maximum_of_image'] == len(everything) - len(kept)


@pytest.fixture
def pages(tmp_path: Path, astronaut: NDArray[np.uint8]) -> Path:
    """One image whose windows are a photograph: whole, noisy, half a sky, half black and white, and a screen."""
    rgb = np.tile(astronaut[100:228, 200:328], (1, 5, 1))
    rng = np.random.default_rng(0)
    rgb[:, 128:256] = (rgb[:, 128:256] + rng.normal(0, 25, (128, 128, 3))).clip(0, 255)
    rgb[:96, 256:384] = (90, 140, 220)
    rgb[:64, 384:512] = rng.choice([0, 255], (64, 128, 1))
    y, x = np.mgrid[:128, :128]
    screen = np.sin(2 * np.pi * x / 6) * np.sin(2 * np.pi * y / 6)
    rgb[:, 512:] = (128 + 40 * screen + rng.normal(0, 4, (128, 128)))[..., None]
    (tmp_path / 'photos').mkdir()
    cv2.imwrite(str(tmp_path / 'photos' / 'pages.png'), rgb[..., ::-1])
    return tmp_path / 'photos'


def test_each_window_filter_drops_its_own(pages: Path) -> None:
    limits = {'flat': {'max': 0.6}, 'saturated': {'max': 0.4}, 'noise': {'max': 15}, 'halftone': {'max': 14}}
    folder = run_extract(options(pages, patch_size=128, window_filters=limits))
    assert places(folder) == {'pages.png': [[0, 0]]}
    counts = read_stage(folder)['counts']
    assert {name: counts[f'patches_dropped_{name}'] for name in limits} == dict.fromkeys(limits, 1)
    assert counts['patches_scored'] == 5 and counts['patches_kept'] == 1
    assert {left for _, left in places(run_extract(options(pages, 'all', patch_size=128)))['pages.png']} == {
        0,
        128,
        256,
        384,
        512,
    }


def test_a_quantile_of_windows_and_the_threshold_of_what_is_left(pages: Path) -> None:
    folder = run_extract(options(pages, patch_size=128, window_filters={'noise': {'max': 'q75'}}, threshold='median'))
    counts = read_stage(folder)['counts']
    assert counts['patches_dropped_noise'] == 1
    assert counts['patches_kept'] + counts['patches_over_threshold'] == 4
    scores = [
        row.psnr_db
        for row in read_table(
            run_extract(options(pages, 'all', patch_size=128, window_filters={'noise': {'max': 'q75'}}))
            / 'manifest.csv',
            PatchRow,
        )
    ]
    assert read_stage(folder)['threshold_db'] == pytest.approx(np.median(scores), abs=1e-4)


def test_when_the_filters_leave_nothing_they_are_named(pages: Path) -> None:
    with pytest.raises(InputError, match=r'the window filters drop all 5 windows \(5 flat\).*suggest'):
        run_extract(options(pages, patch_size=128, window_filters={'flat': {'min': 0.9}}))


CURATED: dict[str, Any] = {
    'windows': 'best',
    'threshold': 'median',
    'drop_hardest': 0.05,
    'max_per_image': 9,
    'deduplicate': 'perceptual',
    **EVERY_LIMIT,
}


@pytest.mark.parametrize('windows', ['best', 'poisson'])
def test_with_every_filter_on_threads_and_interruption_have_no_say(
    photo_folder: Path, windows: str, tree_digests, monkeypatch: pytest.MonkeyPatch
) -> None:
    (photo_folder / 'scores.csv').write_text(
        'name,score\n' + ''.join(f'{path.name},{len(path.name)}\n' for path in photo_folder.rglob('*.png'))
    )
    given = CURATED | {'windows': windows, 'scores': {'file': str(photo_folder / 'scores.csv'), 'min': 'q5'}}
    folder = run_extract(options(photo_folder, num_workers=1, **given))
    expected = tree_digests(folder)
    shutil.rmtree(folder)
    monkeypatch.setattr(layout, '_IMAGES_PER_PART', 1)
    assert tree_digests(run_extract(options(photo_folder, num_workers=3, **given))) == expected
    shutil.rmtree(folder)
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(
            'basicsr_distill.stages.extract.stage.publish', lambda *given: (_ for _ in ()).throw(KeyboardInterrupt)
        )
        run_extract(options(photo_folder, **given))
    assert tree_digests(run_extract(options(photo_folder, **given))) == expected


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'windows': 'finest'}, 'finest'),
        ({'windows': {'type': 'best', 'max_overlap': 1}}, 'less than 1'),
        ({'windows': 'best', 'stride': 8}, 'stride is of windows: grid, not of best'),
        ({'source_filters': {'upscaled': {'max': 'q90', 'reduce': True}}}, 'reduce needs max, in numbers'),
    ],
)
def test_wrong_options_are_refused(photo_folder: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        options(photo_folder, **changes)
    assert (
        options(photo_folder, windows='grid')
        == options(photo_folder)
        == options(photo_folder, windows={'type': 'grid'})
    )


def test_options_that_an_earlier_version_did_not_know_are_null_when_they_are_off(photo_folder: Path) -> None:
    """So that its finished folders are still those of the same options."""
    given = options(photo_folder).model_dump(mode='json')
    new = {key: given[key] for key in ('windows', 'reduce', 'scores', 'max_per_image')}
    assert set(new.values()) == {None}
    assert {value for key in ('source_filters', 'window_filters') for value in given[key].values()} == {None}
