"""The dataset that stands in for PairedImageDataset."""

import logging
import pickle
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from basicsr.data import build_dataset
from basicsr.utils.matlab_functions import imresize
from numpy.typing import NDArray
from support import save_rgb

from basicsr_distill.data import _pairs, distilled_patch_dataset
from basicsr_distill.errors import InputError
from basicsr_distill.io.images import read_rgb
from basicsr_distill.io.manifest import SampleRow, read_table, write_metadata, write_table
from basicsr_distill.ops.bicubic import make_lr
from basicsr_distill.stages.dataset_card import front_matter


def build(root: Path, phase: str = 'train', **keys: Any) -> Any:
    opt = {'name': 'set', 'type': 'DistilledPatchDataset', 'dataroot_gt': str(root), 'phase': phase, 'scale': 4, **keys}
    return build_dataset({'gt_size': 32, **opt} if phase == 'train' else opt)


def stock(hr: Path, lr: Path, phase: str = 'val', **keys: Any) -> Any:
    return build_dataset(
        {
            'name': 'set',
            'type': 'PairedImageDataset',
            'dataroot_gt': str(hr),
            'dataroot_lq': str(lr),
            'io_backend': {'type': 'disk'},
            'phase': phase,
            'scale': 4,
            **keys,
        }
    )


@pytest.fixture
def distilled_set(tmp_path: Path, astronaut: NDArray[np.uint8]) -> Path:
    """Two clusters of three 64x64 images, with LR partners and a manifest, as the sample stage leaves them."""
    root, rows = tmp_path / 'distilled', []
    for label in range(2):
        for index in range(3):
            hr = astronaut[100 + 64 * label : 164 + 64 * label, 64 * index : 64 * index + 64]
            row = SampleRow(f'{label:03d}_{index:05d}.png', label, index, 0, 'ab', 1.0, '', 'matlab_rgb', 23.5)
            rows.append(row)
            save_rgb(root / 'HR' / row.name, hr)
            save_rgb(root / 'LR_bicubic' / 'X4' / row.name, make_lr(hr, 4))
    write_table(root / 'manifest.csv', rows, SampleRow)
    write_metadata(root, rows, root / 'LR_bicubic' / 'X4')
    return root


def test_whole_images_equal_the_stock_dataset(distilled_set: Path) -> None:
    ours, theirs = build(distilled_set, 'val'), stock(distilled_set / 'HR', distilled_set / 'LR_bicubic/X4')
    by_name = {Path(theirs[i]['gt_path']).name: theirs[i] for i in range(len(theirs))}
    assert len(ours) == len(theirs) == 6
    for index in range(6):
        item = ours[index]
        other = by_name[Path(item['gt_path']).name]
        assert torch.equal(item['gt'], other['gt']) and torch.equal(item['lq'], other['lq'])
        assert item['gt'].dtype == torch.float32


@pytest.mark.parametrize('keys', [{'color': 'y'}, {'mean': [0.4, 0.5, 0.6], 'std': [0.2, 0.3, 0.4]}])
def test_colour_and_normalisation_equal_the_stock_dataset(distilled_set: Path, keys: dict[str, Any]) -> None:
    item = build(distilled_set, 'val', **keys)[0]
    other = stock(distilled_set / 'HR', distilled_set / 'LR_bicubic/X4', **keys)
    match = next(other[i] for i in range(len(other)) if Path(other[i]['gt_path']).name == Path(item['gt_path']).name)
    torch.testing.assert_close(item['gt'], match['gt'])
    torch.testing.assert_close(item['lq'], match['lq'])


def test_lr_is_made_as_matlab_makes_it(tmp_path: Path, chelsea: NDArray[np.uint8]) -> None:
    save_rgb(tmp_path / 'hr' / 'cat.png', chelsea)  # 300 x 451: three columns are cropped
    item = build(tmp_path / 'hr', 'test')[0]
    expected = imresize(chelsea[:300, :448] / 255.0, 1 / 4)
    assert item['gt'].shape == (3, 300, 448) and item['lq'].shape == (3, 75, 112)
    lq = item['lq'].permute(1, 2, 0).numpy()
    np.testing.assert_allclose(lq, (expected * 255).round().clip(0, 255) / 255, atol=1.01 / 255)
    assert np.mean(np.abs(lq - expected)) < 0.0015


def test_crops_are_aligned_and_all_eight_turns_occur(distilled_set: Path) -> None:
    dataset = build(distilled_set, gt_size=32, use_hflip=True, use_rot=True, num_images=1)
    hr = cv2.imread(str(distilled_set / 'HR/000_00000.png'))[..., ::-1]
    lr = cv2.imread(str(distilled_set / 'LR_bicubic/X4/000_00000.png'))[..., ::-1]
    turns = [(flip, over, swap) for flip in (False, True) for over in (False, True) for swap in (False, True)]
    seen = set()
    torch.manual_seed(0)
    for _ in range(60):
        item = dataset[0]
        gt, lq = (np.rint(item[key].permute(1, 2, 0).numpy() * 255).astype(np.uint8) for key in ('gt', 'lq'))
        found = []
        for turn in turns:
            a, b = (_undo(image, *turn) for image in (gt, lq))
            found += [
                turn
                for top in range(9)
                for left in range(9)
                if np.array_equal(lr[top : top + 8, left : left + 8], b)
                and np.array_equal(hr[4 * top : 4 * top + 32, 4 * left : 4 * left + 32], a)
            ]
        assert len(found) == 1
        seen.add(found[0])
    assert seen == set(turns)


def _undo(image: NDArray[np.uint8], flip: bool, over: bool, swap: bool) -> NDArray[np.uint8]:
    if swap:
        image = image.transpose(1, 0, 2)
    if over:
        image = image[::-1]
    return image[:, ::-1] if flip else image


def test_subsets_are_spread_over_the_clusters(distilled_set: Path) -> None:
    names = [pair.hr.name for pair in build(distilled_set, 'val', num_images=4).pairs]
    assert names == ['000_00000.png', '001_00000.png', '000_00001.png', '001_00001.png']
    assert {pair.hr.name[:3] for pair in build(distilled_set, 'val', labels=[1]).pairs} == {'001'}
    with pytest.raises(InputError, match='no cluster 7'):
        build(distilled_set, labels=[7])
    with pytest.raises(InputError, match='7 images are asked for'):
        build(distilled_set, num_images=7)


def test_subsets_are_spread_though_draws_were_left_out(distilled_set: Path) -> None:
    table = distilled_set / 'manifest.csv'
    rows = [replace(row, index=row.index + 30 * row.label) for row in read_table(table, SampleRow)]
    write_table(table, rows, SampleRow)
    assert [pair.hr.name[:3] for pair in build(distilled_set, 'val', num_images=4).pairs] == [
        '000',
        '001',
        '000',
        '001',
    ]


def test_a_distilled_set_ignores_what_another_set_left_behind(
    distilled_set: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    logging.getLogger('basicsr').propagate = True
    dataset = build(
        distilled_set,
        dataroot_lq='datasets/DIV2K/LR',
        meta_info_file='meta_info_DIV2K.txt',
        filename_tmpl='{}x4',
        meta_info='pairs.txt',
        task='SR',
        io_backend={'type': 'lmdb'},
        gt_size=192,
    )
    assert dataset[0]['gt'].shape == (3, 64, 64)
    assert 'dataroot_lq and meta_info_file and meta_info ignored' in caplog.text
    assert 'cropping 64 instead' in caplog.text


def test_the_hr_folder_alone_means_the_set(distilled_set: Path) -> None:
    assert [pair.lr for pair in build(distilled_set / 'HR').pairs] == [pair.lr for pair in build(distilled_set).pairs]


def test_plain_folders_with_a_partner_folder_and_a_list(tmp_path: Path, astronaut: NDArray[np.uint8]) -> None:
    for name in ('b/2.png', 'a/1.png', 'a/3.png'):
        save_rgb(tmp_path / 'hr' / name, astronaut[:64, :64])
        save_rgb(tmp_path / 'lr' / name.replace('.png', 'x4.png'), make_lr(astronaut[:64, :64], 4))
    keys: dict[str, Any] = {'dataroot_lq': str(tmp_path / 'lr'), 'filename_tmpl': '{}x4'}
    assert [pair.lr.name for pair in build(tmp_path / 'hr', **keys).pairs] == ['1x4.png', '3x4.png', '2x4.png']
    (tmp_path / 'meta.txt').write_text('b/2.png (64,64,3)\n')
    assert len(build(tmp_path / 'hr', meta_info_file=str(tmp_path / 'meta.txt'), **keys)) == 1
    (tmp_path / 'meta.txt').write_text('../secret.png (64,64,3)\n')
    with pytest.raises(InputError, match='points outside'):
        build(tmp_path / 'hr', meta_info_file=str(tmp_path / 'meta.txt'))
    with pytest.raises(InputError, match='meta_info: lists of pairs'):
        build(tmp_path / 'hr', meta_info='pairs.txt')
    (tmp_path / 'lr/a/3x4.png').unlink()
    with pytest.raises(InputError, match=r'3x4\.png is missing, the partner of'):
        build(tmp_path / 'hr', **keys)


def test_wrong_pairs_and_broken_images_are_named(distilled_set: Path, astronaut: NDArray[np.uint8]) -> None:
    lr = distilled_set / 'LR_bicubic/X4/001_00002.png'
    save_rgb(lr, astronaut[:9, :9])
    with pytest.raises(InputError, match=r'001_00002\.png: is 9x9.*64x64'):
        build(distilled_set)
    lr.write_bytes(b'no image')
    with pytest.raises(InputError, match=r'001_00002\.png'):
        build(distilled_set)
    with pytest.raises(InputError, match='not a multiple of the scale'):
        build(distilled_set, gt_size=30, cache='none')


def test_a_wrong_key_is_one_sentence_without_our_command_too(distilled_set: Path) -> None:
    with pytest.raises(InputError) as error:
        build(distilled_set, num_imges=3)
    assert str(error.value) == "datasets.set: unknown key 'num_imges'; did you mean 'num_images'?"
    with pytest.raises(InputError, match=r'datasets\.set: num_images: '):
        build(distilled_set, num_images=-1)


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that were decoded."""
    names: list[str] = []
    monkeypatch.setattr(_pairs, 'read_rgb', lambda path: (names.append(path.name), read_rgb(path))[1])
    return names


@pytest.mark.parametrize(
    ('cache', 'auto_limit', 'limit', 'workers', 'reads'),
    [
        ('auto', 10**9, 10**9, None, 1),  # a small set is kept
        ('auto', 70_000, 10**9, None, 3),  # 6 pairs of 64 x 64 and 16 x 16 take 78 kB
        ('auto', 150_000, 10**9, 2, 3),  # two workers would keep it twice
        ('none', 10**9, 10**9, None, 3),
        ('ram', 0, 10**9, None, 1),
        ('ram', 0, 10**9, 4, 1),
    ],
)
def test_images_are_decoded_on_first_use_and_kept_where_they_fit(
    distilled_set: Path,
    decoded: list[str],
    monkeypatch: pytest.MonkeyPatch,
    cache: str,
    auto_limit: int,
    limit: int,
    workers: int | None,
    reads: int,
) -> None:
    monkeypatch.setattr(distilled_patch_dataset, 'MAX_AUTO_CACHE_BYTES', auto_limit)
    monkeypatch.setattr(distilled_patch_dataset, 'MAX_CACHE_BYTES', limit)
    if workers:
        monkeypatch.setattr(distilled_patch_dataset, 'get_worker_info', lambda: SimpleNamespace(num_workers=workers))
    dataset = build(distilled_set, cache=cache)
    assert decoded == []
    for _ in range(3):
        for index in range(6):
            dataset[index]
    assert len(decoded) == 2 * 6 * reads  # HR and LR
    # What a spawned worker is sent: no images.
    assert len(pickle.dumps(dataset)) < 5000
    assert len(pickle.loads(pickle.dumps(dataset))[0]['gt']) == 3


def test_a_cache_larger_than_allowed_is_filled_in_part(
    distilled_set: Path, decoded: list[str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    logging.getLogger('basicsr').propagate = True
    monkeypatch.setattr(distilled_patch_dataset, 'MAX_CACHE_BYTES', 3 * 13_056)  # of 6 pairs
    dataset = build(distilled_set, cache='ram')
    assert 'GiB, of which' in caplog.text
    for _ in range(2):
        for index in range(6):
            dataset[index]
    assert len(decoded) == 2 * (6 + 3)


def test_the_cache_changes_nothing(distilled_set: Path) -> None:
    items = []
    for cache in ('ram', 'none'):
        torch.manual_seed(7)
        items.append(build(distilled_set, cache=cache, use_hflip=True, use_rot=True)[2])
    assert torch.equal(items[0]['gt'], items[1]['gt']) and torch.equal(items[0]['lq'], items[1]['lq'])


@pytest.mark.slow
def test_the_folder_is_read_by_datasets(distilled_set: Path, tmp_path: Path) -> None:
    """As pairs, and nothing else: no montage, no image twice."""
    datasets = pytest.importorskip('datasets')
    save_rgb(distilled_set / 'montage.png', np.zeros((9, 9, 3), np.uint8))
    (distilled_set / 'README.md').write_text(front_matter('set', 6, []))
    for place in (('imagefolder', {'data_dir': str(distilled_set)}), (str(distilled_set), {})):
        table = datasets.load_dataset(place[0], split='train', cache_dir=str(tmp_path / 'cache'), **place[1])
        assert table.column_names == ['image', 'lr', 'label', 'psnr_db'] and sorted(table['label']) == [
            0,
            0,
            0,
            1,
            1,
            1,
        ]
        ours = build(distilled_set, 'val')
        expected = {ours[index]['gt'].numpy().tobytes(): ours[index]['lq'] for index in range(6)}
        for item in table:
            gt, lq = (
                torch.from_numpy(np.asarray(item[key]).transpose(2, 0, 1).astype(np.float32) / 255)
                for key in ('image', 'lr')
            )
            assert torch.equal(expected.pop(np.ascontiguousarray(gt.numpy()).tobytes()), lq)
        assert not expected


def test_the_folder_feeds_stock_datasets(distilled_set: Path) -> None:
    pairs = stock(
        distilled_set / 'HR', distilled_set / 'LR_bicubic/X4', 'train', gt_size=32, use_hflip=True, use_rot=True
    )
    assert pairs[0]['gt'].shape == (3, 32, 32) and pairs[0]['lq'].shape == (3, 8, 8)
    (distilled_set / 'meta_info.txt').write_text(
        ''.join(f'{path.name} (64,64,3)\n' for path in (distilled_set / 'HR').iterdir())
    )
    kernels = {
        'blur_kernel_size': 21,
        'kernel_list': ['iso'],
        'kernel_prob': [1],
        'sinc_prob': 0.1,
        'blur_sigma': [0.2, 3],
        'betag_range': [0.5, 4],
        'betap_range': [1, 2],
    }
    blind = build_dataset(
        {
            'name': 'set',
            'type': 'RealESRGANDataset',
            'phase': 'train',
            'scale': 4,
            'dataroot_gt': str(distilled_set / 'HR'),
            'meta_info': str(distilled_set / 'meta_info.txt'),
            'io_backend': {'type': 'disk'},
            'use_hflip': True,
            'use_rot': False,
            'final_sinc_prob': 0.8,
            **kernels,
            **{f'{key}2': value for key, value in kernels.items()},
        }
    )
    assert len(blind) == 6 and blind[0]['gt'].shape == (3, 400, 400)


def test_one_small_image_does_not_cut_the_crops_of_all(
    tmp_path: Path, astronaut: NDArray[np.uint8], caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(4):
        save_rgb(tmp_path / f'{number}.png', astronaut[:128, 64 * number : 64 * number + 128])
    save_rgb(tmp_path / 'banner.png', astronaut[100:140, :200])
    with caplog.at_level(logging.WARNING, 'basicsr'):
        dataset = build(tmp_path, gt_size=128)
    assert '1 of 5 images are smaller than the crop of 128' in caplog.text and 'banner.png' in caplog.text
    assert len(dataset) == 5 and {dataset[number]['gt'].shape for number in range(5)} == {(3, 128, 128)}
    assert {dataset[number]['lq'].shape for number in range(5)} == {(3, 32, 32)}
    banner = next(number for number in range(5) if 'banner' in dataset.paths_of(number)['gt_path'])
    gt, lq = dataset[banner]['gt'], dataset[banner]['lq']
    assert torch.equal(gt[:, 40:80], gt[:, :40].flip(1)) and torch.equal(lq[:, 10:20], lq[:, :10].flip(1))


def test_the_lr_image_of_a_continued_image_is_the_continued_lr_image(astronaut: NDArray[np.uint8]) -> None:
    small = astronaut[200:248, 100:164]
    whole = make_lr(distilled_patch_dataset.continued(small, 128), 4)
    assert np.array_equal(whole[:28, :28], distilled_patch_dataset.continued(make_lr(small, 4), 32)[:28, :28])


def test_a_set_of_small_images_is_cropped_to_their_side(
    tmp_path: Path, astronaut: NDArray[np.uint8], caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(3):
        save_rgb(tmp_path / f'{number}.png', astronaut[:64, 64 * number : 64 * number + 64])
    with caplog.at_level(logging.WARNING, 'basicsr'):
        dataset = build(tmp_path, gt_size=256)
    assert dataset.gt_size == 64 and 'cropping 64 instead' in caplog.text and 'mirror' not in caplog.text


@pytest.mark.parametrize(
    ('large', 'small', 'suffix'), [('GTmod12', 'LRbicx4', ''), ('DIV2K_train_HR', 'DIV2K_train_LR_bicubic/X2', 'x2')]
)
def test_a_folder_of_hr_beside_lr_images_is_refused(
    large: str, small: str, suffix: str, tmp_path: Path, astronaut: NDArray[np.uint8]
) -> None:
    scale = int(small[-1])
    for number in range(3):
        hr = astronaut[: 120 + 12 * number, :96]
        save_rgb(tmp_path / large / f'{number}.png', hr)
        save_rgb(tmp_path / small / f'{number}{suffix}.png', make_lr(hr, scale))
    with pytest.raises(
        InputError, match=f'{small} holds the pictures of {large} at a smaller size; point it at .*{large}'
    ):
        build(tmp_path, 'val')
    assert len(build(tmp_path / large, 'val')) == 3


def test_equal_names_of_different_pictures_are_no_versions(tmp_path: Path, astronaut: NDArray[np.uint8]) -> None:
    for number, name in enumerate(('animal', 'building')):
        save_rgb(tmp_path / name / '1.png', astronaut[: 64 + 32 * number, : 96 - 24 * number])
    assert len(build(tmp_path, 'val')) == 2


def test_fewer_images_of_a_plain_folder_are_taken_evenly(tmp_path: Path, astronaut: NDArray[np.uint8]) -> None:
    for number in range(30):
        save_rgb(tmp_path / f'{number:02d}.png', astronaut[:64, :64])
    names = [Path(build(tmp_path, num_images=6).paths_of(number)['gt_path']).stem for number in range(6)]
    assert names == ['00', '05', '10', '15', '20', '25']
