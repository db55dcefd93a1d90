"""Filters of photographs in the extract stage: what is set aside, counted and listed, whatever the workers."""

import csv
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage.data
from support import run_extract

from basicsr_distill.config.sections.extract import ExtractOptions
from basicsr_distill.errors import InputError
from basicsr_distill.stages.extract import layout
from basicsr_distill.stages.record import read_stage

LIMITS = {
    'min_side': {'min': 150},
    'aspect': {'max': 3},
    'grey': {'min': 2},
    'blockiness': {'max': 30},
    'noise': {'max': 8},
}


@pytest.fixture
def spoiled(tmp_path: Path) -> Path:
    """Two good photographs, and one for every filter."""
    folder = tmp_path / 'photos'
    folder.mkdir()
    good, other = skimage.data.astronaut()[:256, 60:380], skimage.data.coffee()[60:316, 100:420]
    noise = np.random.default_rng(0).normal(0, 15, other.shape)
    images = {
        'good.png': good,
        'other.png': other,
        'small.png': good[:128],
        'long.png': np.tile(good, (1, 3, 1)),
        'grey.png': np.repeat(good.mean(2, keepdims=True), 3, 2).astype(np.uint8),
        'noisy.png': (other + noise).clip(0, 255).astype(np.uint8),
    }
    for name, rgb in images.items():
        cv2.imwrite(str(folder / name), rgb[..., ::-1])
    cv2.imwrite(str(folder / 'blocky.jpg'), good[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 40])
    return folder


def options(folder: Path, **changes: object) -> ExtractOptions:
    return ExtractOptions(
        **{'dataroot': str(folder), 'save_dir': str(folder.parent / 'out'), 'patch_size': 64, 'source_filters': LIMITS}
        | changes
    )


def quarantine(folder: Path) -> dict[str, tuple[str, str]]:
    with (folder / 'quarantine.csv').open() as file:
        return {row['source']: (row['reason'], row['detail']) for row in csv.DictReader(file)}


def test_each_drops_its_own_and_says_why(spoiled: Path) -> None:
    folder = run_extract(options(spoiled))
    found = quarantine(folder)
    assert {name: reason for name, (reason, _) in found.items()} == {
        'small.png': 'min_side',
        'long.png': 'aspect',
        'grey.png': 'grey',
        'noisy.png': 'noise',
        'blocky.jpg': 'blockiness',
    }
    assert found['small.png'][1] == '128 under 150' and found['long.png'][1] == '3.75 over 3'
    assert found['grey.png'][1] == '0 under 2' and found['noisy.png'][1].endswith(' over 8')
    counts = read_stage(folder)['counts']
    assert counts['images_used'] == 2
    assert all(counts[f'images_dropped_{name}'] == 1 for name in LIMITS)
    assert {path.name.split('_')[0] for path in (folder / 'images').iterdir()} == {'good', 'other'}


def test_without_filters_nothing_is_measured_and_nothing_dropped(spoiled: Path) -> None:
    folder = run_extract(options(spoiled, source_filters={}))
    assert read_stage(folder)['counts']['images_used'] == 7 and not (folder / 'quarantine.csv').exists()


def test_a_quantile_is_one_of_all_images(spoiled: Path) -> None:
    folder = run_extract(options(spoiled, source_filters={'blockiness': {'max': 'q80'}}, threshold=100.0))
    found = quarantine(folder)
    assert len(found) == 2 and 'blocky.jpg' in found  # a fifth of seven lies above
    assert {reason for reason, _ in found.values()} == {'blockiness'}
    assert not [path for path in (folder / 'images').iterdir() if path.name.startswith('blocky')]


def test_workers_and_interruption_have_no_say(spoiled: Path, tree_digests, monkeypatch: pytest.MonkeyPatch) -> None:
    filters = LIMITS | {'noise': {'max': 'q90'}}
    folder = run_extract(options(spoiled, source_filters=filters, num_workers=1))
    expected = tree_digests(folder)
    shutil.rmtree(folder)
    monkeypatch.setattr(layout, '_IMAGES_PER_PART', 2)
    assert tree_digests(run_extract(options(spoiled, source_filters=filters, num_workers=3))) == expected
    shutil.rmtree(folder)

    finish = 'basicsr_distill.stages.extract.stage.publish'
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(finish, lambda *given: (_ for _ in ()).throw(KeyboardInterrupt))
        run_extract(options(spoiled, source_filters=filters))
    assert tree_digests(run_extract(options(spoiled, source_filters=filters))) == expected


def test_when_none_is_left_the_filters_are_named(spoiled: Path) -> None:
    with pytest.raises(InputError, match=r'none of the 7 images can be used \(7 min side\)'):
        run_extract(options(spoiled, source_filters={'min_side': {'min': 5000}}))


@pytest.mark.parametrize(
    ('limits', 'message'), [({}, 'give min, max, or both'), ({'max': 'q101'}, 'q'), ({'most': 3}, 'most')]
)
def test_wrong_limits_are_refused(limits: dict[str, object], message: str, spoiled: Path) -> None:
    with pytest.raises(ValueError, match=message):
        options(spoiled, source_filters={'noise': limits})
