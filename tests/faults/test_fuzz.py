"""Broken files by the thousand: an image is decoded whole or set aside, an option file is read or refused.

``corpus/`` keeps what once went wrong, and what is known to go wrong in the libraries below.
"""

import io
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from dying import run
from PIL import Image
from support import REPOSITORY

from basicsr_distill.config.recipe import Recipe
from basicsr_distill.config.yaml_files import load_option_file
from basicsr_distill.errors import InputError
from basicsr_distill.io.images import MAX_PIXELS, UnreadableImageError, decode_rgb, image_shape

CORPUS = sorted((Path(__file__).parent / 'corpus').iterdir())
REASONS = {'empty', 'not_an_image', 'too_large', 'unsupported', 'broken', 'unreadable'}


def real_files() -> list[bytes]:
    """One photograph in every kind of file that is taken in."""
    photo = Image.fromarray(skimage.data.astronaut()[100:148, 180:244])
    kinds = [
        ('PNG', photo, {}),
        ('PNG', photo.convert('P'), {}),
        ('PNG', photo.convert('LA'), {}),
        ('PNG', Image.fromarray(np.arange(3072, dtype=np.uint16).reshape(48, 64) * 20), {}),
        ('JPEG', photo, {'quality': 90}),
        ('JPEG', photo.convert('L'), {'progressive': True}),
        ('JPEG', photo.convert('CMYK'), {}),
        ('WEBP', photo, {}),
        ('TIFF', photo, {}),
        ('TIFF', photo, {'compression': 'tiff_lzw'}),
        ('BMP', photo, {}),
    ]
    files = []
    for kind, image, options in kinds:
        buffer = io.BytesIO()
        image.save(buffer, kind, **options)
        files.append(buffer.getvalue())
    return files


def mutated(data: bytes, draw: random.Random) -> bytes:
    """Cut, overwritten, repeated or shifted somewhere."""
    changed = bytearray(data)
    for _ in range(draw.choice((1, 1, 2, 5))):
        if not changed:
            break
        place = draw.randrange(len(changed)) if draw.random() < 0.7 else draw.randrange(min(64, len(changed)))
        length = draw.choice((1, 1, 2, 4, 16, 200))
        kind = draw.randrange(6)
        if kind == 0:
            del changed[place:]
        elif kind == 1:
            changed[place : place + length] = draw.randbytes(length)
        elif kind == 2:
            changed[place] ^= 1 << draw.randrange(8)
        elif kind == 3:
            del changed[place : place + length]
        elif kind == 4:
            changed[place:place] = changed[place : place + length]
        else:
            changed[place : place + length] = draw.choice((b'\x00', b'\xff', b'\x7f')) * length
    return bytes(changed)


def check_image(data: bytes) -> str:
    """Decode or set aside; nothing else may happen."""
    try:
        decoded = decode_rgb(data, 'x.png')
    except UnreadableImageError as error:
        assert error.reason in REASONS and '\n' not in str(error)
        return error.reason
    height, width, channels = decoded.rgb.shape
    assert channels == 3 and decoded.rgb.dtype == np.uint8 and 0 < height * width <= MAX_PIXELS
    return 'decoded'


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize('number', [3_000, pytest.param(100_000, marks=pytest.mark.slow)])
def test_images(number: int) -> None:
    draw, files = random.Random(0), real_files()
    assert all(check_image(data) == 'decoded' for data in files)
    ends = [check_image(mutated(draw.choice(files), draw)) for _ in range(number)]
    assert ends.count('decoded') > number / 10 and len(set(ends)) >= 3


@pytest.mark.parametrize('number', [100])
def test_the_header_promises_what_decoding_gives(number: int, tmp_path: Path) -> None:
    draw, files, compared = random.Random(1), real_files(), 0
    for _ in range(number):
        data = mutated(draw.choice(files), draw)
        path = tmp_path / 'x.png'
        path.write_bytes(data)
        try:
            shape = decode_rgb(data, 'x.png').rgb.shape[:2]
            promised = image_shape(path)
        except UnreadableImageError:
            continue
        compared += 1
        assert promised == shape
    assert compared > number / 10


def option_texts() -> list[str]:
    return [path.read_text(encoding='utf-8') for path in sorted(REPOSITORY.glob('options/**/*.yml'))]


def check_options(path: Path, read: Callable[[Path], object]) -> bool:
    """Whether it was read; if not, it was refused in a sentence."""
    try:
        read(path)
    except InputError as error:
        assert str(error).count('\n') == 0 and str(path.name) in str(error)
        return False
    return True


def mutated_texts(number: int) -> Iterator[bytes]:
    draw, texts = random.Random(2), option_texts()
    tokens = [
        '!!python/name:os.system',
        '&a',
        '*a',
        '<<: *a',
        '{',
        '}',
        '[',
        ']',
        ': ',
        '- ',
        '|',
        '>',
        '\t',
        '"',
        "'",
        '~',
        '.inf',
        '.nan',
        '1e400',
        '-1',
        '0x1f',
        'yes',
        '\x00',
        '\ufeff',
        '#',
        '---',
        '...',
        '? ',
        '@',
        '`',
        '%',
    ]
    for _ in range(number):
        text = draw.choice(texts)
        if draw.random() < 0.5:
            yield mutated(text.encode(), draw)
            continue
        for _ in range(draw.choice((1, 1, 3))):
            place = draw.randrange(len(text))
            text = text[:place] + draw.choice(tokens) + text[place + draw.choice((0, 0, 1, 5)) :]
        yield text.encode('utf-8')


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize('number', [500, pytest.param(10_000, marks=pytest.mark.slow)])
def test_option_files(number: int, tmp_path: Path) -> None:
    path = tmp_path / 'x.yml'
    read = parsed = 0
    for content in mutated_texts(number):
        path.write_bytes(content)
        if check_options(path, load_option_file):
            read += 1
            parsed += check_options(path, Recipe.load)
    assert 0 < parsed < read < number


@pytest.mark.parametrize('path', CORPUS, ids=lambda path: path.name)
def test_what_once_went_wrong(path: Path, tmp_path: Path) -> None:
    """Through the command too, which ends with a sentence and not with a signal."""
    if path.suffix == '.yml':
        check_options(path, Recipe.load)
        code, output = run(tmp_path, 'train', '-opt', str(path))
    else:
        assert check_image(path.read_bytes()) != 'decoded'
        (tmp_path / 'photos').mkdir()
        (tmp_path / 'photos' / path.name).write_bytes(path.read_bytes())
        (tmp_path / 'x.yml').write_text('extract: {dataroot: photos, save_dir: out}\n')
        code, output = run(tmp_path, 'distill', '-opt', 'x.yml')
    assert code == 2 and 'Traceback' not in output and output.splitlines()[-1].startswith('basicsr: '), output
