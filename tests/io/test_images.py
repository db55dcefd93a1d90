import io
import os
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageOps

from basicsr_distill.errors import InputError
from basicsr_distill.io import deflating, images
from basicsr_distill.io.images import (
    UnreadableImageError,
    decode_rgb,
    encode_png,
    find_images,
    fingerprint_images,
    image_shape,
    is_whole_png,
    read_rgb,
    write_png,
)


@pytest.fixture
def photo(astronaut: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return astronaut[:90, 150:270]


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def names(roots: list[Path]) -> list[str]:
    return [image.relative for image in find_images(roots)]


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b'x')
    return path


# Search


def test_search_is_recursive_sorted_and_takes_images_only(tmp_path: Path) -> None:
    for name in ('b/2.PNG', 'b/10.jpg', 'a.jpeg', 'a/notes.txt', 'c.webp', 'c/deep/er.tif', '.hidden/x.png', '.x.png'):
        touch(tmp_path / name)
    assert names([tmp_path]) == ['a.jpeg', 'b/10.jpg', 'b/2.PNG', 'c.webp', 'c/deep/er.tif']


def test_several_roots_are_named_from_their_common_folder_and_visited_once(tmp_path: Path) -> None:
    for name in ('DIV2K/HR/1.png', 'Flickr2K/HR/1.png'):
        touch(tmp_path / name)
    roots = [tmp_path / 'Flickr2K' / 'HR', tmp_path / 'DIV2K', tmp_path / 'DIV2K' / 'HR']
    assert names(roots) == ['DIV2K/HR/1.png', 'Flickr2K/HR/1.png']


def test_links_are_followed_inside_and_nothing_is_visited_twice(tmp_path: Path) -> None:
    target = touch(tmp_path / 'root' / 'a' / '1.png')
    (tmp_path / 'root' / 'a' / 'loop').symlink_to(tmp_path / 'root')
    (tmp_path / 'root' / 'again.png').symlink_to(target)
    stored = touch(tmp_path / 'root' / 'store' / 'key')  # as git-annex keeps files
    for name in ('y.png', 'x.png'):
        (tmp_path / 'root' / name).symlink_to(stored)
    assert names([tmp_path / 'root']) == ['a/1.png', 'x.png']


@pytest.mark.parametrize('link', ['out.png', 'folder'])
def test_a_link_out_of_the_root_is_refused(tmp_path: Path, link: str) -> None:
    outside = touch(tmp_path / 'outside' / '1.png')
    (tmp_path / 'root').mkdir()
    (tmp_path / 'root' / link).symlink_to(outside if link.endswith('png') else outside.parent)
    with pytest.raises(InputError, match=f'{link}: this link leads out of'):
        find_images([tmp_path / 'root'])


def test_links_between_the_roots_are_inside(tmp_path: Path) -> None:
    touch(tmp_path / 'one' / '1.png')
    (tmp_path / 'two').mkdir()
    (tmp_path / 'two' / 'link').symlink_to(tmp_path / 'one')
    assert names([tmp_path / 'one', tmp_path / 'two']) == ['one/1.png']


def test_a_missing_root_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match='not a folder'):
        find_images([tmp_path / 'nowhere'])


def test_many_files_are_listed_quickly(tmp_path: Path) -> None:
    for number in range(20_000):
        os.close(os.open(tmp_path / f'{number}.png', os.O_CREAT))
    start = time.perf_counter()
    assert len(find_images([tmp_path])) == 20_000
    assert time.perf_counter() - start < 5


def test_fingerprint_changes_with_both_ends_of_files_at_equal_size(tmp_path: Path) -> None:
    data = bytearray(300_000)
    (tmp_path / '1.ppm').write_bytes(data)
    before = fingerprint_images(find_images([tmp_path]))
    for place in (0, 16_000, 284_000, 299_999):
        changed = bytearray(data)
        changed[place] = 1
        (tmp_path / '1.ppm').write_bytes(changed)
        assert fingerprint_images(find_images([tmp_path])) != before, place
    (tmp_path / '1.ppm').write_bytes(data)
    assert fingerprint_images(find_images([tmp_path])) == before


def test_fingerprint_of_many_files_opens_few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3000):
        os.close(os.open(tmp_path / f'{number}.png', os.O_CREAT))
    opened = []
    monkeypatch.setattr(images, '_ends', lambda path, size: opened.append(path) or b'')
    fingerprint_images(find_images([tmp_path]))
    assert 900 < len(opened) <= 1024


def test_fingerprint_does_not_change_with_place_or_time(tmp_path: Path) -> None:
    touch(tmp_path / 'one' / '1.png')
    touch(tmp_path / 'two' / '1.png')
    before = fingerprint_images(find_images([tmp_path / 'one']))
    assert fingerprint_images(find_images([tmp_path / 'two'])) == before
    (tmp_path / 'two' / '1.png').write_bytes(b'xx')
    assert fingerprint_images(find_images([tmp_path / 'two'])) != before
    (tmp_path / 'one' / '1.png').rename(tmp_path / 'one' / '2.png')
    assert fingerprint_images(find_images([tmp_path / 'one'])) != before


# Reading


def test_every_odd_kind_has_its_policy(photo: NDArray[np.uint8], tmp_path: Path) -> None:
    image = Image.fromarray(photo)
    grey = np.asarray(image.convert('L'))
    deep = (photo.astype(np.uint16) * 257) + np.arange(120, dtype=np.uint16)[None, :, None]
    deep = np.minimum(deep, 65535).astype(np.uint16)
    hidden = np.dstack([photo, np.zeros(photo.shape[:2], np.uint8)])
    palette = image.quantize(32)
    rotated = Image.Exif()
    rotated[0x0112] = 6
    turned = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(encoded(image, 'PNG', exif=rotated)))))
    cases = {
        'plain': (encoded(image, 'PNG'), photo, ()),
        'grey': (encoded(image.convert('L'), 'PNG'), np.dstack([grey] * 3), ('grey',)),
        'bits': (
            encoded(image.convert('1'), 'PNG'),
            np.dstack([np.asarray(image.convert('1').convert('L'))] * 3),
            ('grey',),
        ),
        'deep': (cv2.imencode('.png', deep[..., ::-1])[1].tobytes(), np.rint(deep / 257).astype(np.uint8), ('16bit',)),
        'deep grey': (
            encoded(Image.fromarray(deep[..., 1]), 'PNG'),
            np.dstack([np.rint(deep[..., 1] / 257).astype(np.uint8)] * 3),
            ('16bit', 'grey'),
        ),
        'alpha': (encoded(Image.fromarray(hidden), 'PNG'), photo, ('alpha',)),
        'grey alpha': (encoded(image.convert('LA'), 'PNG'), np.dstack([grey] * 3), ('grey', 'alpha')),
        'palette': (encoded(palette, 'PNG'), np.asarray(palette.convert('RGB')), ('palette',)),
        'clear palette': (
            encoded(palette, 'PNG', transparency=3),
            np.asarray(palette.convert('RGB')),
            ('palette', 'alpha'),
        ),
        'rotated': (encoded(image, 'PNG', exif=rotated), turned, ('exif_rotated',)),
        'tiff': (encoded(image, 'TIFF'), photo, ()),
        'bmp': (encoded(image, 'BMP'), photo, ()),
        'ppm': (encoded(image, 'PPM'), photo, ()),
        'webp': (encoded(image, 'WEBP', lossless=True), photo, ()),
    }
    for name, (data, expected, kinds) in cases.items():
        decoded = decode_rgb(data, name)
        assert decoded.rgb.dtype == np.uint8, name
        np.testing.assert_array_equal(decoded.rgb, expected, err_msg=name)
        assert decoded.kinds == kinds, name


def test_the_header_says_what_shape_decoding_gives(photo: NDArray[np.uint8], tmp_path: Path) -> None:
    image = Image.fromarray(photo)
    exif = Image.Exif()
    exif[0x0112] = 6
    files = {
        'ours.png': encode_png(photo),
        'pillow.png': encoded(image, 'PNG'),
        'palette.png': encoded(image.convert('P'), 'PNG'),
        'plain.jpg': encoded(image, 'JPEG'),
        'turned.jpg': encoded(image, 'JPEG', exif=exif),
        'x.webp': encoded(image, 'WEBP'),
        'turned.png': encoded(image, 'PNG', exif=exif),
        'x.bmp': encoded(image, 'BMP'),
        'x.tif': encoded(image, 'TIFF'),
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
        assert image_shape(tmp_path / name) == read_rgb(tmp_path / name).shape[:2], name
    for data in (b'', b'no image', encode_png(photo)[:20]):
        (tmp_path / 'bad.png').write_bytes(data)
        with pytest.raises(UnreadableImageError, match=r'bad\.png'):
            image_shape(tmp_path / 'bad.png')
    with pytest.raises(UnreadableImageError, match='cannot be read'):
        image_shape(tmp_path / 'absent.png')


def test_jpegs_of_all_kinds_come_close_to_pillows_decoder(photo: NDArray[np.uint8]) -> None:
    image = Image.fromarray(photo)
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        data = encoded(image, 'JPEG', exif=exif, quality=95)
        expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert('RGB')).astype(int)
        decoded = decode_rgb(data, 'x.jpg')
        assert np.abs(decoded.rgb - expected).max() <= 3
        assert ('exif_rotated' in decoded.kinds) == (orientation != 1)
    cmyk = encoded(image.convert('CMYK'), 'JPEG', quality=98)
    decoded = decode_rgb(cmyk, 'x.jpg')
    assert decoded.kinds == ('cmyk',)
    assert np.abs(decoded.rgb.astype(int) - photo).mean() < 4


@pytest.mark.parametrize('kind', ['PNG', 'JPEG', 'WEBP', 'BMP', 'TIFF', 'PPM'])
def test_truncated_files_are_refused_wherever_they_end(photo: NDArray[np.uint8], kind: str) -> None:
    data = encoded(Image.fromarray(photo), kind)
    for share in (0.02, 0.3, 0.7, 0.99):
        with pytest.raises(UnreadableImageError) as raised:
            decode_rgb(data[: int(share * len(data))], 'cut')
        assert raised.value.reason in {'broken', 'not_an_image'}


def test_a_truncated_jpeg_is_found_behind_its_whole_thumbnail(photo: NDArray[np.uint8]) -> None:
    thumbnail = encoded(Image.fromarray(photo).resize((24, 18)), 'JPEG')
    data = encoded(Image.fromarray(photo), 'JPEG', comment=thumbnail)
    assert decode_rgb(data, 'whole').rgb.shape == photo.shape
    assert decode_rgb(data + b'\0' * 64, 'padded').rgb.shape == photo.shape
    with pytest.raises(UnreadableImageError, match='the file is truncated'):
        decode_rgb(data[:-100], 'cut')


def test_a_jpeg_that_opencv_4_would_fill_with_grey_is_refused_before_it_decodes(
    photo: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cv2, 'imdecode', lambda *_: pytest.fail('decoded'))
    with pytest.raises(UnreadableImageError, match='truncated'):
        decode_rgb(encoded(Image.fromarray(photo), 'JPEG')[:-50], 'cut.jpg')


@pytest.mark.parametrize(
    ('data', 'reason'), [(b'', 'empty'), (b'hello', 'not_an_image'), (b'\x89PNG\r\n\x1a\n', 'not_an_image')]
)
def test_what_is_no_image_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(UnreadableImageError, match=r'^photo.png: .*; remove or replace the file\.$') as raised:
        decode_rgb(data, 'photo.png')
    assert raised.value.reason == reason


def test_floating_point_pictures_are_not_supported(photo: NDArray[np.uint8]) -> None:
    data = encoded(Image.fromarray(photo[..., 0].astype(np.float32)), 'TIFF')
    with pytest.raises(UnreadableImageError) as raised:
        decode_rgb(data, 'x.tif')
    assert raised.value.reason == 'unsupported'


@pytest.mark.parametrize('side', [20_000, 60_000])
def test_a_decompression_bomb_is_refused_from_its_header(side: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))

    bomb = b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', struct.pack('>IIBBBBB', side, side, 8, 2, 0, 0, 0))
    bomb += chunk(b'IDAT', zlib.compress(bytes(1000))) + chunk(b'IEND', b'')
    monkeypatch.setattr(cv2, 'imdecode', lambda *_: pytest.fail('decoded'))
    with pytest.raises(UnreadableImageError) as raised:
        decode_rgb(bomb, 'bomb.png')
    assert raised.value.reason == 'too_large'


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r'gone\.png: cannot be read \(No such file or directory\)'):
        read_rgb(tmp_path / 'gone.png')


# Writing


@pytest.mark.parametrize('size', [(1, 1), (1, 7), (7, 1), (64, 48)])
def test_png_is_read_by_other_decoders(astronaut: NDArray[np.uint8], size: tuple[int, int], tmp_path: Path) -> None:
    rgb = astronaut[100 : 100 + size[0], 200 : 200 + size[1]]  # not contiguous
    path = tmp_path / 'x.png'
    write_png(path, rgb)
    image = Image.open(path)
    image.verify()  # checksums of all chunks
    np.testing.assert_array_equal(np.asarray(Image.open(path)), rgb)
    np.testing.assert_array_equal(cv2.imread(str(path))[..., ::-1], rgb)
    np.testing.assert_array_equal(read_rgb(path), rgb)
    assert path.read_bytes() == encode_png(rgb.copy())
    assert is_whole_png(path)
    for level in (0, 12):
        write_png(path, rgb, level)
        Image.open(path).verify()
        np.testing.assert_array_equal(cv2.imread(str(path))[..., ::-1], rgb)
        assert is_whole_png(path)
    assert [entry.name for entry in tmp_path.iterdir()] == ['x.png']


@pytest.mark.parametrize('size', [(1, 1), (3, 7284), (64, 341), (300, 301)])  # around 65,535 bytes a block
def test_without_libdeflate_stored_pngs_are_the_same_and_deflated_ones_hold_the_same_pixels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]
) -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    stored = encode_png(rgb, 0)
    monkeypatch.setattr(deflating, 'libdeflate', None)
    assert encode_png(rgb, 0) == stored
    for level in (1, 12):
        write_png(tmp_path / 'x.png', rgb, level)
        Image.open(tmp_path / 'x.png').verify()
        np.testing.assert_array_equal(cv2.imread(str(tmp_path / 'x.png'))[..., ::-1], rgb)
        assert is_whole_png(tmp_path / 'x.png')


def test_the_package_works_without_libdeflate() -> None:
    code = (
        "import sys; sys.modules['deflate'] = None; import numpy as np; "
        'from basicsr_distill.io import deflating, images; '
        'assert deflating.libdeflate is None; images.encode_png(np.zeros((4, 4, 3), np.uint8))'
    )
    subprocess.run([sys.executable, '-c', code], check=True)


def test_png_is_no_larger_than_opencvs(astronaut: NDArray[np.uint8]) -> None:
    fast = cv2.imencode('.png', astronaut, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1]
    assert len(encode_png(astronaut)) < 1.2 * len(fast)


def test_png_takes_only_rgb_of_8_bits() -> None:
    for wrong in (
        np.zeros((4, 4), np.uint8)[..., None],
        np.zeros((4, 4, 3), np.float32),
        np.zeros((0, 4, 3), np.uint8),
    ):
        with pytest.raises(ValueError, match='cannot be written as RGB PNG'):
            encode_png(wrong)


def test_a_failed_write_leaves_nothing(
    tmp_path: Path, photo: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError('disk full')

    monkeypatch.setattr(os, 'replace', fail)
    with pytest.raises(OSError, match='disk full'):
        write_png(tmp_path / 'x.png', photo)
    assert not list(tmp_path.iterdir())


def test_half_a_png_is_told_from_a_whole_one(tmp_path: Path, photo: NDArray[np.uint8]) -> None:
    data = encode_png(photo)
    for cut in (0, 5, len(data) // 2, len(data) - 1):
        (tmp_path / 'x.png').write_bytes(data[:cut])
        assert not is_whole_png(tmp_path / 'x.png')
    assert not is_whole_png(tmp_path / 'absent.png')
