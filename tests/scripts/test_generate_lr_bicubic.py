import importlib.util
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

_PATH = Path(__file__).parents[2] / 'scripts' / 'generate_lr_bicubic.py'
_SPEC = importlib.util.spec_from_file_location('generate_lr_bicubic', _PATH)
assert _SPEC
assert _SPEC.loader
script = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(script)


@pytest.fixture
def folder(tmp_path: Path, astronaut: NDArray[np.uint8]) -> Path:
    for name, size in (('a.png', (64, 80)), ('deep/b.jpg', (101, 67)), ('deep/sp ace.bmp', (48, 48))):
        path = tmp_path / 'HR' / name
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), astronaut[100:100 + size[0], 150:150 + size[1], ::-1])
    return tmp_path / 'HR'


def run(folder: Path, *more: object) -> int:
    return script.main(['--input', str(folder), '--output', str(folder.parent / 'LR'), *map(str, more)])


@pytest.mark.parametrize('scale', [2, 3, 4])
def test_equals_basicsrs_imresize_of_the_cropped_image(folder: Path, scale: int) -> None:
    from basicsr.utils.matlab_functions import imresize
    assert run(folder, '--scale', scale, '--modcrop_output', folder.parent / 'GTmod') == 0
    for source, name in (('a.png', 'a.png'), ('deep/b.jpg', 'deep/b.png'), ('deep/sp ace.bmp', 'deep/sp ace.png')):
        hr = cv2.imread(str(folder / source))
        height, width = hr.shape[0] // scale * scale, hr.shape[1] // scale * scale
        np.testing.assert_array_equal(cv2.imread(str(folder.parent / 'GTmod' / name)), hr[:height, :width])
        lr = cv2.imread(str(folder.parent / 'LR' / name))
        exact = np.clip(imresize(hr[:height, :width] / np.float32(255), 1 / scale) * 255, 0, 255)
        assert lr.shape == (height // scale, width // scale, 3)
        assert np.abs(lr - exact).max() < 0.502
    assert len([path for path in (folder.parent / 'LR').rglob('*') if path.is_file()]) == 3


def test_whole_files_are_kept_and_half_ones_made_again(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(folder) == 0
    lr = folder.parent / 'LR'
    before = {path: path.read_bytes() for path in lr.rglob('*.png')}
    os.utime(lr / 'a.png', ns=(1, 1))
    (lr / 'deep' / 'b.png').write_bytes(before[lr / 'deep' / 'b.png'][:50])
    (lr / 'deep' / 'b.png.part').write_bytes(b'x')
    assert run(folder) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith('1 images written')
    assert (lr / 'a.png').stat().st_mtime_ns == 1
    assert {path: path.read_bytes() for path in lr.rglob('*') if path.is_file()} == before


def test_bad_input_is_one_line(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def refusal(*arguments: object) -> str:
        assert script.main([str(argument) for argument in arguments]) == 2
        text = capsys.readouterr().err
        assert text.count('\n') == 1
        return text

    assert 'not a folder' in refusal('--input', tmp_path / 'nowhere', '--output', tmp_path / 'LR')
    (tmp_path / 'empty').mkdir()
    assert 'no image found' in refusal('--input', tmp_path / 'empty', '--output', tmp_path / 'LR')
    assert 'lies inside --input' in refusal('--input', folder, '--output', folder / 'LR')
    (folder / 'a.jpg').write_bytes((folder / 'a.png').read_bytes())
    assert '2 images would become a.png' in refusal('--input', folder, '--output', tmp_path / 'LR')
    (folder / 'a.jpg').write_bytes(b'no picture')
    (folder / 'a.png').unlink()
    assert 'a.jpg: not an image' in refusal('--input', folder, '--output', tmp_path / 'LR')
    cv2.imwrite(str(folder / 'a.jpg'), np.zeros((3, 9, 3), np.uint8))
    assert '9x3 pixels are fewer than the scale 4' in refusal('--input', folder, '--output', tmp_path / 'LR')


def test_the_workers_do_not_matter(folder: Path) -> None:
    assert run(folder, '--num_workers', 1) == 0
    one = {path.name: path.read_bytes() for path in (folder.parent / 'LR').rglob('*.png')}
    for path in (folder.parent / 'LR').rglob('*.png'):
        path.unlink()
    assert run(folder, '--num_workers', 3) == 0
    assert {path.name: path.read_bytes() for path in (folder.parent / 'LR').rglob('*.png')} == one
