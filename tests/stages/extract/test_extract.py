import errno
import json
import logging
import multiprocessing
import os
import shutil
import signal
from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage.data
from dying import die_at_replacement
from support import EVERY_LIMIT, run_extract, torchrun

from basicsr_distill.config.sections.extract import ExtractOptions
from basicsr_distill.errors import InputError
from basicsr_distill.io import images
from basicsr_distill.io.manifest import PatchRow, read_table
from basicsr_distill.stages.extract import layout, scoring, writing
from basicsr_distill.stages.extract import stage as extract


def options(photo_folder: Path, name: str = 'patches', **changes: object) -> ExtractOptions:
    values = {
        'dataroot': str(photo_folder),
        'save_dir': str(photo_folder.parent / name),
        'patch_size': 64,
        'stride': 48,
    }
    return ExtractOptions.model_validate({**values, **changes})


def stage_record(folder: Path) -> dict:
    return json.loads((folder / 'stage.json').read_text())


def plain_scores(photos: dict[str, np.ndarray]) -> dict[tuple[str, int, int], float]:
    """psnr_db of every window, one at a time, through BasicSR's imresize."""
    from basicsr.utils.matlab_functions import imresize

    scores = {}
    for name, rgb in photos.items():
        for top in range(0, rgb.shape[0] - 63, 48):
            for left in range(0, rgb.shape[1] - 63, 48):
                x = rgb[top : top + 64, left : left + 64].astype(np.float32) / 255
                error = x - imresize(imresize(x, 1 / 4), 4.0)
                scores[name, top, left] = float(-10 * np.log10(np.mean(error.astype(np.float64) ** 2)))
    return scores


def test_keeps_the_half_that_bicubic_loses_most(photo_folder: Path, photos: dict[str, np.ndarray]) -> None:
    folder = run_extract(options(photo_folder))
    scores = plain_scores(photos)
    median = np.median(list(scores.values()))
    wanted = [(key, score) for key, score in scores.items() if score < median]
    rows = read_table(folder / 'manifest.csv', PatchRow)
    assert [(row.source, row.top, row.left) for row in rows] == [key for key, _ in wanted]
    np.testing.assert_allclose([row.psnr_db for row in rows], [score for _, score in wanted], rtol=0, atol=1e-4)
    assert {row.label for row in rows} == {-1}
    for row in rows:
        bgr = cv2.imread(str(folder / 'images' / row.name))
        np.testing.assert_array_equal(
            bgr[..., ::-1], photos[row.source][row.top : row.top + 64, row.left : row.left + 64]
        )
        assert row.source_sha256 == images.hashlib.sha256((photo_folder / row.source).read_bytes()).hexdigest()
    assert sorted(path.name for path in (folder / 'images').iterdir()) == sorted(row.name for row in rows)
    assert (folder / 'meta_info.txt').read_text() == ''.join(f'{row.name} (64,64,3)\n' for row in rows)
    record = stage_record(folder)
    assert record['threshold_db'] == pytest.approx(median, abs=1e-4)
    assert record['counts']['patches_scored'] == len(scores)
    assert record['counts']['patches_kept'] + record['counts']['patches_over_threshold'] == len(scores)
    assert sorted(path.name for path in folder.iterdir()) == [
        'images',
        'manifest.csv',
        'measures.npz',
        'meta_info.txt',
        'psnr.png',
        'stage.json',
    ]


@pytest.mark.parametrize(
    'limits', [(0, 0), (1 << 30, 0), (1 << 30, 1 << 30)], ids=['alone', 'decoded_alone', 'in one batch']
)
@pytest.mark.parametrize('threshold', ['median', 27.0])
def test_the_grouping_of_images_has_no_say(
    photo_folder: Path, monkeypatch: pytest.MonkeyPatch, tree_digests, threshold: float | str, limits: tuple[int, int]
) -> None:
    whole = tree_digests(run_extract(options(photo_folder, threshold=threshold)))
    shutil.rmtree(photo_folder.parent / 'patches')
    (photo_folder / 'broken.jpg').write_bytes(b'no picture')
    monkeypatch.setattr(scoring, '_GROUP_BYTES', limits[0])
    monkeypatch.setattr(scoring, '_GROUP_DECODED_BYTES', limits[1])
    folder = run_extract(options(photo_folder, threshold=threshold))
    numbered = {name: digest for name, digest in tree_digests(folder).items() if name.startswith('images/')}
    assert sorted(numbered.values()) == sorted(digest for name, digest in whole.items() if name.startswith('images/'))
    rows = read_table(folder / 'manifest.csv', PatchRow)
    assert len(rows) == len(numbered) > 5


@pytest.mark.parametrize('level', [0, 9])
def test_png_level_changes_bytes_and_no_pixel(photo_folder: Path, level: int) -> None:
    plain, other = run_extract(options(photo_folder)), run_extract(options(photo_folder, 'other', png_level=level))
    sizes = [path.stat().st_size for path in sorted((other / 'images').iterdir())]
    assert (min(sizes) >= 64 * 64 * 3) if level == 0 else (sum(sizes) < 0.9 * len(sizes) * 64 * 64 * 3)
    for row in read_table(plain / 'manifest.csv', PatchRow):
        np.testing.assert_array_equal(
            cv2.imread(str(other / 'images' / row.name)), cv2.imread(str(plain / 'images' / row.name))
        )


@pytest.mark.parametrize('threshold', [24.0, 'q20', 'q100'])
def test_thresholds(photo_folder: Path, photos: dict[str, np.ndarray], threshold: float | str) -> None:
    scores = np.array(list(plain_scores(photos).values()))
    limit = {24.0: 24.0, 'q20': np.quantile(scores, 0.2), 'q100': np.inf}[threshold]
    folder = run_extract(options(photo_folder, threshold=threshold))
    assert stage_record(folder)['counts']['patches_kept'] == (scores < limit).sum()


def test_a_band_leaves_out_the_hardest(photo_folder: Path, photos: dict[str, np.ndarray]) -> None:
    scores = np.array(list(plain_scores(photos).values()))
    low, high = np.quantile(scores, [0.1, 0.5])
    rows = read_table(run_extract(options(photo_folder, drop_hardest=0.1)) / 'manifest.csv', PatchRow)
    assert len(rows) == ((scores >= low) & (scores < high)).sum()
    assert min(row.psnr_db for row in rows) >= low - 1e-4


def test_max_patches_are_drawn_by_the_seed_from_those_selected(photo_folder: Path) -> None:
    def names(name: str, **changes: object) -> list[str]:
        folder = run_extract(options(photo_folder, name, **changes))
        return [row.name for row in read_table(folder / 'manifest.csv', PatchRow)]

    everything = names('all')
    first, again, other = (
        names('one', max_patches=9),
        names('two', max_patches=9),
        names('three', max_patches=9, seed=1),
    )
    assert first == again != other
    assert len(first) == len(other) == 9
    assert set(first) | set(other) <= set(everything)
    assert first == [name for name in everything if name in first], 'the order is that of the manifest'


def test_copies_and_near_copies_are_dropped(
    photo_folder: Path, photos: dict[str, np.ndarray], caplog: pytest.LogCaptureFixture
) -> None:
    plain = stage_record(run_extract(options(photo_folder, 'plain', threshold='q100')))['counts']
    shutil.copy(photo_folder / 'coffee.png', photo_folder / 'copy.png')
    with caplog.at_level(logging.WARNING):
        copied = stage_record(run_extract(options(photo_folder, 'copied', threshold='q100')))['counts']
    assert copied['images_identical'] == 1
    assert 'copies of others' in caplog.text
    assert copied['patches_kept'] > plain['patches_kept']
    exact = stage_record(run_extract(options(photo_folder, 'exact', threshold='q100', deduplicate='exact')))['counts']
    assert exact['patches_kept'] == plain['patches_kept']
    cv2.imwrite(str(photo_folder / 'copy.png'), photos['coffee.png'][..., ::-1] // 2 * 2)
    coarse = options(photo_folder, 'coarse', threshold='q100', deduplicate='exact')
    assert stage_record(run_extract(coarse))['counts']['patches_kept'] == copied['patches_kept']
    near = options(photo_folder, 'near', threshold='q100', deduplicate='perceptual')
    folder = run_extract(near)
    kept = read_table(folder / 'manifest.csv', PatchRow)
    assert not [row for row in kept if row.source == 'copy.png']
    assert len(kept) > 0.9 * plain['patches_kept']


def test_images_of_a_test_set_are_left_out(photo_folder: Path, tmp_path: Path) -> None:
    (tmp_path / 'Set1').mkdir()
    crop = skimage.data.coffee()[60:240, 160:400, ::-1]
    cv2.imwrite(
        str(tmp_path / 'Set1' / 'cup.jpg'), cv2.resize(crop, None, fx=0.8, fy=0.8, interpolation=cv2.INTER_AREA)
    )
    folder = run_extract(options(photo_folder, leak_check=[str(tmp_path / 'Set1')]))
    assert (folder / 'quarantine.csv').read_text().splitlines()[1:] == ['coffee.png,leak,shows the scene of cup.jpg']
    assert 'coffee.png' not in {row.source for row in read_table(folder / 'manifest.csv', PatchRow)}
    assert stage_record(folder)['counts']['images_dropped_leak'] == 1
    for name, altered in (('mirrored.png', crop[:, ::-1]), ('negative.png', 255 - crop)):
        cv2.imwrite(str(photo_folder / name), altered)
    shutil.copy(tmp_path / 'Set1' / 'cup.jpg', photo_folder / 'copy.jpg')
    folder = run_extract(options(photo_folder, 'again', leak_check=[str(tmp_path / 'Set1')]))
    assert (folder / 'quarantine.csv').read_text().splitlines()[1:] == [
        'coffee.png,leak,shows the scene of cup.jpg',
        'copy.jpg,leak,is a copy of cup.jpg',
        'mirrored.png,leak,shows the scene of cup.jpg',
        'negative.png,leak,shows the scene of cup.jpg',
    ]
    flat = np.full((70, 90, 3), 99, np.uint8)  # nothing but its bytes says what it is
    for folder in (tmp_path / 'Set1', photo_folder):
        cv2.imwrite(str(folder / 'grey.png'), flat)
    folder = run_extract(options(photo_folder, 'flat', leak_check=[str(tmp_path / 'Set1')]))
    assert 'grey.png,leak,is a copy of grey.png' in (folder / 'quarantine.csv').read_text()
    with pytest.raises(InputError, match=r'extract\.leak_check: .*Set2 is not a folder of test images'):
        run_extract(options(photo_folder, 'none', leak_check=[str(tmp_path / 'Set2')]))


def test_flat_patches_are_never_selected(tmp_path: Path) -> None:
    picture = np.full((64, 256, 3), 90, np.uint8)
    picture[:, 192:] = skimage.data.astronaut()[100:164, 200:264]
    (tmp_path / 'photos').mkdir()
    cv2.imwrite(str(tmp_path / 'photos' / 'sky.png'), picture)
    folder = run_extract(options(tmp_path / 'photos', stride=64, threshold='q100'))
    assert [row.left for row in read_table(folder / 'manifest.csv', PatchRow)] == [192]
    record = (folder / 'stage.json').read_text()
    assert json.loads(record)['counts']['patches_flat'] == 3
    assert 'Infinity' not in record
    assert 'nan' not in record.lower()


@pytest.mark.parametrize(('changes', 'per_image'), [({'threshold': 25.0}, 1), ({}, 1), ({'_cache': 0}, 2)])
def test_images_are_decoded_twice_only_when_they_do_not_fit_the_cache(
    photo_folder: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, object], per_image: int
) -> None:
    decoded: list[str] = []
    plain = images.decode_rgb

    def counting(data: bytes, name: str) -> images.DecodedImage:
        decoded.append(name)
        return plain(data, name)

    for module in (images, scoring, writing):
        monkeypatch.setattr(module, 'decode_rgb', counting)
    if '_cache' in changes:
        monkeypatch.setattr(writing, '_CACHE_BYTES', changes['_cache'])
    folder = run_extract(options(photo_folder, **{key: value for key, value in changes.items() if key != '_cache'}))
    sources = {row.source for row in read_table(folder / 'manifest.csv', PatchRow)}
    assert len(decoded) == 4 + (per_image - 1) * len(sources)


def test_a_finished_stage_is_skipped_and_another_one_refused(photo_folder: Path, tree_digests) -> None:
    folder = run_extract(options(photo_folder))
    before = tree_digests(folder), (folder / 'stage.json').stat().st_mtime_ns
    run_extract(options(photo_folder, num_workers=3))
    assert (tree_digests(folder), (folder / 'stage.json').stat().st_mtime_ns) == before
    with pytest.raises(InputError, match=r'options\.threshold: was .median., now 24\.0'):
        run_extract(options(photo_folder, threshold=24))
    (photo_folder / 'coffee.png').unlink()
    with pytest.raises(InputError, match=r'inputs\.dataroot'):
        run_extract(options(photo_folder))
    assert tree_digests(folder) == before[0]


def test_the_result_does_not_depend_on_workers(
    photo_folder: Path, tree_digests, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = tree_digests(run_extract(options(photo_folder, num_workers=1)))
    monkeypatch.setattr(writing, '_CACHE_BYTES', 0)
    shutil.rmtree(photo_folder.parent / 'patches')
    assert tree_digests(run_extract(options(photo_folder, num_workers=3))) == one


def test_the_result_does_not_depend_on_parts_groups_or_batches(
    photo_folder: Path, tree_digests, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = tree_digests(run_extract(options(photo_folder, stride=48)))
    monkeypatch.setattr(layout, '_IMAGES_PER_PART', 1)
    for name in ('_GROUP_BYTES', '_GROUP_DECODED_BYTES', '_BATCH_BYTES'):
        monkeypatch.setattr(scoring, name, 1)
    shutil.rmtree(photo_folder.parent / 'patches')
    assert tree_digests(run_extract(options(photo_folder, stride=48))) == one


_RANKS = """
import json
import sys
from pathlib import Path
from basicsr_distill.runtime import distributed
from basicsr_distill.config.recipe import Recipe
from basicsr_distill.stages.extract import layout
from basicsr_distill.stages.extract import stage as extract
layout._IMAGES_PER_PART = 1
distributed.init('pytorch')
extract.run(Recipe.parse(Path('x.yml'), {'extract': json.loads(sys.argv[1])}))
distributed.cleanup()
"""


EVERY_FILTER = {
    'stride': None,
    'windows': 'poisson',
    'max_per_image': 9,
    'deduplicate': 'perceptual',
    **EVERY_LIMIT,
}


@pytest.mark.long
@pytest.mark.parametrize('changes', [{'deduplicate': 'exact'}, EVERY_FILTER], ids=['plain', 'every filter'])
def test_the_result_does_not_depend_on_ranks_locale_or_timezone(
    photo_folder: Path, tmp_path: Path, tree_digests, changes: dict[str, object]
) -> None:
    given = options(photo_folder, **changes)
    folder = run_extract(given)
    one = tree_digests(folder)
    shutil.rmtree(folder)
    script = tmp_path / 'ranks.py'
    script.write_text(_RANKS)
    torchrun(script, given.model_dump_json(), TZ='Asia/Kathmandu', LC_ALL='C')
    assert tree_digests(folder) == one


def _die_at_replacement(number: int, given: ExtractOptions) -> None:
    """Run the stage and be killed just before (even numbers) or after (odd ones) some file gets its name."""
    die_at_replacement(number)
    layout._IMAGES_PER_PART = 1
    run_extract(given)
    os._exit(0)


@pytest.mark.long
@pytest.mark.parametrize('threshold', ['q30', 27.0])
def test_killed_between_any_two_writes_it_ends_with_the_same_tree(
    photo_folder: Path, tree_digests, monkeypatch: pytest.MonkeyPatch, threshold: float | str
) -> None:
    monkeypatch.setattr(layout, '_IMAGES_PER_PART', 1)
    given = options(photo_folder, threshold=threshold, num_workers=1, stride=64)
    folder = run_extract(given)
    whole = tree_digests(folder)
    shutil.rmtree(folder)
    context = multiprocessing.get_context('fork')
    deaths = 0
    for number in range(0, 200, 3):
        process = context.Process(target=_die_at_replacement, args=(number, given))
        process.start()
        process.join()
        if process.exitcode == 0:
            shutil.rmtree(folder)
            break
        assert process.exitcode == -signal.SIGKILL
        deaths += 1
        if number % 2:  # half of the interrupted runs are interrupted again
            continue
        assert tree_digests(run_extract(given)) == whole
        shutil.rmtree(folder)
    assert deaths > 8


def test_sigterm_leaves_a_folder_that_resumes(
    photo_folder: Path, tree_digests, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = options(photo_folder)
    folder = run_extract(given)
    whole = tree_digests(folder)
    shutil.rmtree(folder)
    writes = []

    def interrupted(path: Path, rgb: np.ndarray, level: int) -> None:
        writes.append(path)
        if len(writes) == 5:
            raise SystemExit(143)
        images.write_png(path, rgb, level)

    monkeypatch.setattr(writing, 'write_png', interrupted)
    with pytest.raises(SystemExit):
        run_extract(given)
    assert not (folder / 'stage.json').exists()
    monkeypatch.undo()
    assert tree_digests(run_extract(given)) == whole


def test_broken_and_odd_images_are_set_aside_and_counted(photo_folder: Path, photos: dict[str, np.ndarray]) -> None:
    rgb = photos['coffee.png']
    encoded = cv2.imencode('.jpg', rgb)[1].tobytes()
    broken = {
        'truncated.jpg': encoded[: len(encoded) // 2],
        'empty.png': b'',
        'text.jpg': b'no picture',
        'small.png': cv2.imencode('.png', rgb[:63])[1].tobytes(),
    }
    for name, data in broken.items():
        (photo_folder / name).write_bytes(data)
    cv2.imwrite(str(photo_folder / 'deep.png'), rgb.astype(np.uint16) * 257)
    cv2.imwrite(str(photo_folder / 'grey.png'), rgb[..., 0])
    folder = run_extract(options(photo_folder))
    lines = (folder / 'quarantine.csv').read_text().splitlines()
    assert [line.split(',')[:2] for line in lines[1:]] == [
        ['empty.png', 'empty'],
        ['small.png', 'too_small'],
        ['text.jpg', 'not_an_image'],
        ['truncated.jpg', 'broken'],
    ]
    counts = stage_record(folder)['counts']
    assert counts['images_found'] == 10
    assert counts['images_used'] == 6
    assert {key: counts[key] for key in counts if key.startswith('images_dropped')} == {
        'images_dropped_broken': 1,
        'images_dropped_empty': 1,
        'images_dropped_not_an_image': 1,
        'images_dropped_too_small': 1,
    }
    assert counts['images_16bit'] == counts['images_grey'] == 1


def test_strict_refuses_a_broken_image(photo_folder: Path) -> None:
    (photo_folder / 'text.jpg').write_bytes(b'no picture')
    with pytest.raises(InputError, match=r'text\.jpg: not an image; remove or replace the file\.'):
        run_extract(options(photo_folder, strict=True))
    (photo_folder / 'text.jpg').unlink()
    assert (run_extract(options(photo_folder, strict=True)) / 'stage.json').is_file()


def test_nothing_to_extract_is_refused(photo_folder: Path, tmp_path: Path) -> None:
    (tmp_path / 'empty').mkdir()
    with pytest.raises(InputError, match='no image found'):
        run_extract(options(tmp_path / 'empty'))
    with pytest.raises(InputError, match='not a folder'):
        run_extract(options(tmp_path / 'nowhere'))
    with pytest.raises(
        InputError, match=r'none of the 4 images can be used \(4 too small\); extract.patch_size is 400'
    ):
        run_extract(options(photo_folder, patch_size=400))
    assert not list((tmp_path / 'patches').iterdir())


def test_all_over_the_threshold_is_refused_with_the_threshold_that_keeps_half(
    photo_folder: Path, photos: dict[str, np.ndarray]
) -> None:
    with pytest.raises(
        InputError, match=r'no patch is left below 5\.00 dB \(.*dB: \d+.*\); extract\.threshold:'
    ) as raised:
        run_extract(options(photo_folder, threshold=5))
    text = str(raised.value)
    assert sum(int(part.split(': ')[1]) for part in text[text.index('(') + 1 : text.index(')')].split(', ')) == len(
        plain_scores(photos)
    )
    advice = float(text.split('threshold: ')[1].split()[0])
    counts = stage_record(run_extract(options(photo_folder, threshold=advice)))['counts']
    assert abs(counts['patches_kept'] - counts['patches_scored'] / 2) <= 1


def test_any_file_name_round_trips_and_patch_names_stay_plain_and_unique(tmp_path: Path) -> None:
    names = [
        'größe 1.png',
        'größe_1.png',
        'line\nbreak.png',
        'comma, "quote".png',
        'v1.2.final.png',
        '写真.png',
        os.fsdecode(b'latin-\xe9.png'),
    ]
    (tmp_path / 'photos').mkdir()
    patch = cv2.imencode('.png', skimage.data.astronaut()[100:164, 200:264])[1].tobytes()
    for name in names:
        (tmp_path / 'photos' / name).write_bytes(patch)
    folder = run_extract(options(tmp_path / 'photos', threshold='q100'))
    rows = read_table(folder / 'manifest.csv', PatchRow)
    assert sorted(row.source for row in rows) == sorted(names)
    assert len({row.name for row in rows}) == len(names)
    for row in rows:
        assert row.name.isascii()
        assert not set(row.name) & set(' \n,"')
        assert row.name.count('.') == 1


def test_the_lmdb_is_read_by_basicsr(photo_folder: Path) -> None:
    from basicsr.utils import FileClient, imfrombytes

    folder = run_extract(options(photo_folder, lmdb=True))
    client = FileClient('lmdb', db_paths=[str(folder / 'images.lmdb')], client_keys=['gt'])
    lines = (folder / 'images.lmdb' / 'meta_info.txt').read_text().splitlines()
    rows = read_table(folder / 'manifest.csv', PatchRow)
    assert lines == [f'{row.name} (64,64,3) 1' for row in rows]
    for row in rows:
        np.testing.assert_array_equal(
            imfrombytes(client.get(Path(row.name).stem, 'gt')), cv2.imread(str(folder / 'images' / row.name))
        )
    assert client is not None
    assert sorted(path.name for path in folder.iterdir()) == [
        'images',
        'images.lmdb',
        'manifest.csv',
        'measures.npz',
        'meta_info.txt',
        'psnr.png',
        'stage.json',
    ]


def test_the_folder_feeds_a_stock_dataset(photo_folder: Path, tmp_path: Path) -> None:
    from basicsr.data.paired_image_dataset import PairedImageDataset

    folder = run_extract(options(photo_folder))
    rows = read_table(folder / 'manifest.csv', PatchRow)
    lr = tmp_path / 'LR'
    lr.mkdir()
    for row in rows:
        cv2.imwrite(str(lr / row.name), cv2.imread(str(folder / 'images' / row.name))[::4, ::4])
    dataset = PairedImageDataset(
        {
            'dataroot_gt': str(folder / 'images'),
            'dataroot_lq': str(lr),
            'meta_info_file': str(folder / 'meta_info.txt'),
            'io_backend': {'type': 'disk'},
            'phase': 'train',
            'scale': 4,
            'gt_size': 64,
            'use_hflip': False,
            'use_rot': False,
        }
    )
    assert len(dataset) == len(rows)
    assert dataset[0]['gt'].shape == (3, 64, 64)


def test_a_full_disk_is_foreseen(photo_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(photo_folder)
    monkeypatch.setattr(writing.shutil, 'disk_usage', lambda path: usage._replace(free=1000))
    with pytest.raises(OSError, match=r'patches need at least \d+ MB') as caught:
        run_extract(options(photo_folder))
    assert caught.value.errno == errno.ENOSPC
    monkeypatch.undo()
    monkeypatch.setattr(scoring, 'score_windows', lambda *_: pytest.fail('scored again'))
    assert (run_extract(options(photo_folder)) / 'stage.json').is_file()


@pytest.mark.parametrize('threshold', ['median', 30.0])
def test_a_disk_that_fills_up_is_one_sentence(
    photo_folder: Path, monkeypatch: pytest.MonkeyPatch, threshold: float | str
) -> None:
    def full(path: Path, rgb: np.ndarray, level: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(writing, 'write_png', full)
    with pytest.raises(OSError, match=r'patches: .*(are free|are needed).* run the same command again') as caught:
        run_extract(options(photo_folder, threshold=threshold))
    assert caught.value.errno == errno.ENOSPC
    monkeypatch.undo()
    assert (run_extract(options(photo_folder, threshold=threshold)) / 'stage.json').is_file()


@pytest.mark.parametrize('name', ['photos', 'photos/patches', '.'])
def test_patches_among_the_photographs_are_refused(photo_folder: Path, name: str) -> None:
    before = sorted(photo_folder.rglob('*'))
    with pytest.raises(InputError, match=r'extract\.save_dir: .* must lie apart'):
        run_extract(options(photo_folder, name))
    assert sorted(photo_folder.rglob('*')) == before


def test_an_image_that_changes_between_the_passes_is_refused(
    photo_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, '_CACHE_BYTES', 0)
    choose = extract.choose
    coffee = photo_folder / 'coffee.png'

    def meddle(given: ExtractOptions, scored: list) -> object:
        data = bytearray(coffee.read_bytes())
        data[-20] ^= 1
        coffee.write_bytes(data)
        return choose(given, scored)

    monkeypatch.setattr(extract, 'choose', meddle)
    with pytest.raises(InputError, match=r'coffee\.png: changed while being extracted'):
        run_extract(options(photo_folder))
    assert not list((photo_folder.parent / 'patches').iterdir())


_STRICT_RANKS = """
import json
import sys
from pathlib import Path
from basicsr_distill.runtime import distributed
from basicsr_distill.errors import InputError
from basicsr_distill.config.recipe import Recipe
from basicsr_distill.stages.extract import layout
from basicsr_distill.stages.extract import stage as extract
layout._IMAGES_PER_PART = 4
distributed.init('pytorch')
try:
    keys = {'patch_size': 64, 'stride': 48, 'strict': True}
    extract.run(Recipe.parse(Path('x.yml'), {'extract': {'dataroot': sys.argv[1], 'save_dir': sys.argv[2], **keys}}))
except InputError as error:
    Path(sys.argv[3], f'rank{distributed.rank()}').write_text(str(error))
distributed.cleanup()
"""


@pytest.mark.long
def test_a_refusal_on_one_rank_is_a_refusal_on_all(photo_folder: Path, tmp_path: Path) -> None:
    (photo_folder / 'z.jpg').write_bytes(b'no picture')  # alone in the second rank's part
    (tmp_path / 'ranks.py').write_text(_STRICT_RANKS)
    torchrun(tmp_path / 'ranks.py', photo_folder, tmp_path / 'patches', tmp_path)
    said = {(tmp_path / name).read_text() for name in ('rank0', 'rank1')}
    assert said == {f'{photo_folder / "z.jpg"}: not an image; remove or replace the file.'}
    assert not list((tmp_path / 'patches').iterdir())
