"""LR folders for HR folders."""

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from basicsr.data import build_dataset
from basicsr.utils.matlab_functions import imresize
from numpy.typing import NDArray
from support import REPOSITORY, save_rgb

from basicsr_distill.errors import InputError
from basicsr_distill.stages.lr_folder import generate_lr_folder, pack_lr_folder
from basicsr_distill.stages.pack_lmdb import pack_lmdb


@pytest.fixture
def hr(tmp_path: Path, astronaut: NDArray[np.uint8], chelsea: NDArray[np.uint8]) -> Path:
    save_rgb(tmp_path / 'HR' / 'cat.png', chelsea[:83, :90])
    save_rgb(tmp_path / 'HR' / 'people' / 'one two.bmp', astronaut[:64, :70])
    return tmp_path / 'HR'


def test_lr_images_equal_matlab_and_feed_the_stock_dataset(hr: Path, tmp_path: Path) -> None:
    assert generate_lr_folder(hr, tmp_path / 'LR', 4, '{}x4', tmp_path / 'cropped') == 2
    for name in ('cat', 'people/one two'):
        high, low = (
            cv2.imread(str(tmp_path / f'{folder}/{name}{end}.png')) for folder, end in (('cropped', ''), ('LR', 'x4'))
        )
        assert high.shape[:2] == tuple(4 * length for length in low.shape[:2])
        np.testing.assert_allclose(low, (imresize(high / 255.0, 1 / 4) * 255).clip(0, 255), atol=0.51)
    assert cv2.imread(str(tmp_path / 'LR/catx4.png')).shape == (20, 22, 3)
    pairs = build_dataset(
        {
            'name': 'x',
            'type': 'PairedImageDataset',
            'phase': 'val',
            'scale': 4,
            'filename_tmpl': '{}x4',
            'dataroot_gt': str(tmp_path / 'cropped/people'),
            'dataroot_lq': str(tmp_path / 'LR/people'),
            'io_backend': {'type': 'disk'},
        }
    )
    assert pairs[0]['lq'].shape == (3, 16, 17)


def test_packed_lr_images_are_the_partners_of_packed_hr_images(tmp_path: Path, astronaut: NDArray[np.uint8]) -> None:
    for number, size in enumerate((64, 48)):
        save_rgb(tmp_path / 'HR' / f'{number}.png', astronaut[:size, :64])
    generate_lr_folder(tmp_path / 'HR', tmp_path / 'X4', 4)
    pack_lmdb(tmp_path / 'HR', ['0.png', '1.png'], tmp_path / 'HR.lmdb')
    assert pack_lr_folder(tmp_path / 'X4') == tmp_path / 'X4.lmdb'
    assert (tmp_path / 'X4.lmdb/meta_info.txt').read_text() == '0.png (16,16,3) 1\n1.png (12,16,3) 1\n'
    section = {'name': 'x', 'type': 'PairedImageDataset', 'phase': 'val', 'scale': 4}
    packed, plain = (
        build_dataset(
            {
                **section,
                'dataroot_gt': str(tmp_path / f'HR{suffix}'),
                'io_backend': {'type': kind},
                'dataroot_lq': str(tmp_path / f'X4{suffix}'),
            }
        )
        for suffix, kind in (('.lmdb', 'lmdb'), ('', 'disk'))
    )
    assert len(packed) == len(plain) == 2
    for index in range(2):
        for key in ('lq', 'gt'):
            assert packed[index][key].equal(plain[index][key])
    save_rgb(tmp_path / 'odd' / 'a.b.png', astronaut[:8, :8])
    with pytest.raises(InputError, match=r'a\.b\.png cannot be a key'):
        pack_lr_folder(tmp_path / 'odd')


def test_a_second_run_continues_and_keeps_what_is_whole(hr: Path, tmp_path: Path) -> None:
    generate_lr_folder(hr, tmp_path / 'LR', 4)
    whole = (tmp_path / 'LR/cat.png').read_bytes()
    (tmp_path / 'LR/people/one two.png').write_bytes(whole[:100])  # as a power cut leaves it
    assert generate_lr_folder(hr, tmp_path / 'LR', 4) == 1
    assert cv2.imread(str(tmp_path / 'LR/people/one two.png')).shape == (16, 17, 3)


def test_wrong_input_is_refused(hr: Path, tmp_path: Path) -> None:
    for folder, scale, template, message in (
        (hr / 'LR', 4, '{}', 'outside'),
        (tmp_path / 'LR', 1, '{}', 'at least 2'),
        (tmp_path / 'LR', 4, 'x', 'filename_tmpl'),
        (tmp_path / 'LR', 80, '{}', 'smaller'),
    ):
        with pytest.raises(InputError, match=message):
            generate_lr_folder(hr, folder, scale, template)
    (tmp_path / 'empty').mkdir()
    with pytest.raises(InputError, match='no image found'):
        generate_lr_folder(tmp_path / 'empty', tmp_path / 'LR', 4)
    (hr / 'cat.bmp').write_bytes((hr / 'cat.png').read_bytes())
    with pytest.raises(InputError, match='would both become'):
        generate_lr_folder(hr, tmp_path / 'LR', 4)


def test_the_script(hr: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(REPOSITORY / 'scripts/generate_lr_bicubic.py'), '--output', str(tmp_path / 'LR')]
    done = subprocess.run([*command, '--input', str(hr), '--scale', '3'], capture_output=True, text=True)
    assert done.returncode == 0 and '2 LR images written' in done.stdout
    wrong = subprocess.run([*command, '--input', str(tmp_path / 'none')], capture_output=True, text=True)
    assert wrong.returncode == 2 and wrong.stderr.count('\n') == 1
