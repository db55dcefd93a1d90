"""Laws that hold whatever the input: option files, tables, names, crops, bicubic resampling, choices."""

import math
import re
import string
import unicodedata
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import yaml
from basicsr.utils.matlab_functions import imresize
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from basicsr_distill.config.recipe import Recipe
from basicsr_distill.config.yaml_files import load_option_file
from basicsr_distill.data.distilled_patch_dataset import DistilledPatchDataset
from basicsr_distill.errors import InputError
from basicsr_distill.io.files import safe_join
from basicsr_distill.io.manifest import PatchRow, read_table, write_table
from basicsr_distill.ops.bicubic import bicubic_downsample, bicubic_upsample, make_lr
from basicsr_distill.selection.core_sets import choose_by_herding, choose_k_center
from basicsr_distill.selection.medoids import choose_medoids
from basicsr_distill.selection.random_choice import choose_in_band, choose_random
from basicsr_distill.selection.ranked import choose_hardest, choose_highest
from basicsr_distill.selection.windows import grid_windows
from basicsr_distill.stages.extract.layout import patch_name

common = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(['EDSR', 'medoids', 'texture', 'SRModel', 'median', 'q30', '~/x', '../x', 'L1Loss'])
)
SECTIONS = (
    'name',
    'model_type',
    'scale',
    'datasets',
    'network_g',
    'train',
    'val',
    'path',
    'logger',
    'extract',
    'cluster',
    'select',
    'sample',
    'manual_seed',
    'num_gpu',
    'unknown',
)
KEYS = st.sampled_from(
    [
        *SECTIONS,
        'type',
        'dataroot',
        'save_dir',
        'threshold',
        'encoder',
        'num_images',
        'total_iter',
        'optim_g',
        'scheduler',
        'metrics',
        'train',
        'test',
        'pixel_opt',
        'init',
        'codec',
    ]
)
TREES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=5), max_leaves=12
)


@settings(common, max_examples=300)
@given(options=st.dictionaries(st.sampled_from(SECTIONS), TREES, max_size=7))
def test_any_options_are_read_or_refused_in_a_sentence(options: dict[str, Any]) -> None:
    try:
        Recipe.parse(Path('x.yml'), options)
    except InputError as error:
        assert 'x.yml' in str(error) and '\n' not in str(error)


PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**9), 10**9)
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=['Cs', 'Cc']), max_size=12).filter(
        # Numbers to us, though PyYAML, for which 1e-4 is a word, does not quote them.
        lambda text: not re.fullmatch(r'[-+]?[\d.]+[eE][-+]?\d+', text)
    ),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(string.ascii_letters, min_size=1, max_size=8), inner, max_size=4)
    ),
    max_leaves=15,
)


@common
@given(options=st.dictionaries(st.text(string.ascii_letters, min_size=1, max_size=8), PLAIN, min_size=1, max_size=5))
def test_what_yaml_writes_is_what_is_read(options: dict[str, Any], tmp_path: Path) -> None:
    assume('$' not in str(options) and '~' not in str(options))  # which have a meaning of their own in paths
    path = tmp_path / 'x.yml'
    path.write_text(yaml.safe_dump(options, allow_unicode=True), encoding='utf-8')
    assert load_option_file(path) == options


NAMES = st.text(st.characters(exclude_categories=['Cs'], exclude_characters='\x00/'), min_size=1, max_size=30)


@common
@given(sources=st.lists(NAMES, min_size=1, max_size=4), psnr_db=st.floats(0, 60, width=32), top=st.integers(0, 10**6))
def test_a_manifest_gives_back_what_was_written(sources: list[str], psnr_db: float, top: int, tmp_path: Path) -> None:
    rows = [
        PatchRow(patch_name(source, number, top, 7), source, 'ab' * 32, top, 7, 64, 'matlab_rgb', psnr_db, number)
        for number, source in enumerate(sources)
    ]
    write_table(tmp_path / 'manifest.csv', rows, PatchRow)
    back = read_table(tmp_path / 'manifest.csv', PatchRow)
    assert [row.source for row in back] == sources and [row.name for row in back] == [row.name for row in rows]
    assert all(row.top == top and math.isclose(row.psnr_db, psnr_db, rel_tol=1e-8, abs_tol=1e-12) for row in back)


@common
@given(names=st.lists(NAMES, min_size=1, max_size=6), top=st.integers(0, 99999), left=st.integers(0, 99999))
def test_names_of_patches_are_plain_and_unique(names: list[str], top: int, left: int) -> None:
    made = [patch_name(name, number, top, left) for number, name in enumerate(names)]
    allowed = set(string.ascii_letters + string.digits + '-_.')
    assert all(set(name) <= allowed and not name.startswith(('-', '.')) and len(name) < 100 for name in made)
    assert len({unicodedata.normalize('NFC', name).casefold() for name in made}) == len(names)


@common
@given(
    parts=st.lists(st.sampled_from(['..', '.', 'a', 'b.png', '', '~', 'c d']) | NAMES, min_size=1, max_size=5),
    absolute=st.booleans(),
)
def test_no_name_leads_out_of_its_folder(parts: list[str], absolute: bool, tmp_path: Path) -> None:
    name = ('/' if absolute else '') + '/'.join(parts)
    try:
        joined = safe_join(tmp_path, name, tmp_path / 'manifest.csv')
    except InputError:
        assert absolute or name.startswith('/') or '..' in parts
        return
    assert joined == tmp_path or tmp_path in joined.parents
    assert '..' not in joined.parts


@common
@given(height=st.integers(8, 90), width=st.integers(8, 90), size=st.integers(1, 8), stride=st.integers(1, 40))
def test_windows_of_the_grid_lie_inside_and_are_distinct(height: int, width: int, size: int, stride: int) -> None:
    places = [tuple(place) for place in grid_windows(height, width, size, stride).tolist()]
    assert len(set(places)) == len(places) == ((height - size) // stride + 1) * ((width - size) // stride + 1)
    assert all(
        0 <= top <= height - size and 0 <= left <= width - size and top % stride == left % stride == 0
        for top, left in places
    )
    assert (
        max(top for top, _ in places) + stride > height - size
        and max(left for _, left in places) + stride > width - size
    )


@settings(common, max_examples=25)
@given(
    height=st.integers(32, 70),
    width=st.integers(32, 70),
    gt_size=st.sampled_from([8, 16, 32]),
    seed=st.integers(0, 2**31),
)
def test_crops_are_parts_of_the_image_at_multiples_of_the_scale(
    height: int, width: int, gt_size: int, seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp('hr')
    # Red tells the row and green the column, so that every crop says where it is from.
    image = np.zeros((height, width, 3), np.uint8)
    image[..., 0], image[..., 1] = np.arange(height)[:, None], np.arange(width)[None]
    cv2.imwrite(str(folder / 'x.png'), image[..., ::-1])
    torch.manual_seed(seed)
    dataset = DistilledPatchDataset(
        {
            'name': 'x',
            'type': 'DistilledPatchDataset',
            'phase': 'train',
            'scale': 4,
            'dataroot_gt': str(folder),
            'gt_size': gt_size,
            'use_hflip': False,
            'use_rot': False,
            'io_backend': {'type': 'disk'},
        }
    )
    item = dataset[0]
    gt = (item['gt'] * 255).round().to(torch.int64)
    top, left = int(gt[0, 0, 0]), int(gt[1, 0, 0])
    assert top % 4 == left % 4 == 0
    assert torch.equal(gt[0], torch.arange(top, top + gt_size)[:, None].expand(gt_size, gt_size))
    assert torch.equal(gt[1], torch.arange(left, left + gt_size)[None].expand(gt_size, gt_size))
    assert item['lq'].shape == (3, gt_size // 4, gt_size // 4)


SIDES = st.integers(3, 12)
PIXELS = arrays.arrays(np.uint8, st.tuples(SIDES.map(lambda n: 4 * n), SIDES.map(lambda n: 4 * n), st.just(3)))


@settings(common, max_examples=40)
@given(image=PIXELS, scale=st.sampled_from([2, 4]))
def test_bicubic_is_basicsrs_and_commutes_with_flips(image: NDArray[np.uint8], scale: int) -> None:
    pixels = torch.from_numpy(image).permute(2, 0, 1).double()
    small = bicubic_downsample(pixels, scale)
    theirs = imresize(image.astype(np.float64) / 255, 1 / scale) * 255
    assert small.permute(1, 2, 0).numpy() == pytest.approx(theirs, abs=1e-3)
    for dims in ([1], [2]):
        assert torch.allclose(bicubic_downsample(pixels.flip(dims), scale), small.flip(dims), atol=1e-9)
        assert torch.allclose(
            bicubic_upsample(small.flip(dims), scale), bicubic_upsample(small, scale).flip(dims), atol=1e-9
        )
    assert torch.allclose(bicubic_downsample(255 - pixels, scale), 255 - small, atol=1e-9)
    assert make_lr(image, scale).shape == (image.shape[0] // scale, image.shape[1] // scale, 3)


@common
@given(value=st.integers(0, 255), height=SIDES, width=SIDES, scale=st.sampled_from([2, 3, 4]))
def test_bicubic_keeps_a_flat_image(value: int, height: int, width: int, scale: int) -> None:
    flat = torch.full((3, height * scale, width * scale), float(value), dtype=torch.float64)
    assert torch.allclose(bicubic_downsample(flat, scale), flat[:, :height, :width], atol=1e-9)
    assert torch.allclose(bicubic_upsample(flat[:, :height, :width], scale), flat, atol=1e-9)


FEATURES = arrays.arrays(
    np.float32, st.tuples(st.integers(1, 24), st.integers(1, 5)), elements=st.floats(-100, 100, width=32)
)
CHOICES = {
    'random': lambda features, count, seed: choose_random(len(features), count, seed),
    'medoids': choose_medoids,
    'herding': lambda features, count, seed: choose_by_herding(features, count),
    'k_center': lambda features, count, seed: choose_k_center(features, count),
    'loss': lambda features, count, seed: choose_hardest(features[:, 0], count, skip=0.0),
    'file': lambda features, count, seed: choose_highest(features[:, 0], count),
    'band': lambda features, count, seed: choose_in_band(features[:, 0], 0.0, 1.0, count, seed),
}


@pytest.mark.parametrize('method', CHOICES)
@settings(common, max_examples=40)
@given(features=FEATURES, share=st.floats(0, 1), seed=st.integers(0, 2**31 - 1))
def test_choices_are_distinct_valid_and_the_same_again(
    method: str, features: NDArray[np.float32], share: float, seed: int
) -> None:
    count = 1 + int(share * (len(features) - 1))
    chosen = CHOICES[method](features, count, seed)
    assert len(chosen) == count == len(set(chosen.tolist()))
    assert chosen.min() >= 0 and chosen.max() < len(features)
    np.testing.assert_array_equal(chosen, CHOICES[method](features.copy(), count, seed))


@settings(common, max_examples=40)
@given(features=FEATURES, seed=st.integers(0, 2**31 - 1))
def test_a_moved_cloud_has_the_same_best_patches(features: NDArray[np.float32], seed: int) -> None:
    """Herding and k-centre know distances alone: whole steps are exact in float32, and change none of them."""
    whole = np.round(features)
    moved = whole + np.float32(64)
    count = max(1, len(whole) // 2)
    for choose in (choose_by_herding, choose_k_center):
        first, second = choose(whole, count), choose(moved, count)
        assert len(first) == len(second) == count
    np.testing.assert_array_equal(choose_k_center(whole, count), choose_k_center(moved, count))
