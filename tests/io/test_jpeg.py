"""Good JPEGs of every kind are read, cut ones are refused; OpenCV and Pillow write them."""

import io
from collections.abc import Callable

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from basicsr_distill.io.images import UnreadableImageError, decode_rgb
from basicsr_distill.io.jpeg import is_whole_jpeg

Pixels = NDArray[np.uint8]
# A film as phones append it, which happens to hold what looks like markers of a JPEG.
FILM = b'\x00\x00\x00\x18ftypmp42' + bytes(range(256)) * 40 + b'\xff\xd8\xff\xda\x00\x0c' + b'\x55' * 500


def by_opencv(rgb: Pixels, *parameters: int) -> bytes:
    return cv2.imencode('.jpg', rgb[..., ::-1], parameters)[1].tobytes()


def by_pillow(rgb: Pixels, mode: str = 'RGB', **options: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(rgb).convert(mode).save(file, 'JPEG', **options)
    return file.getvalue()


def with_thumbnail(rgb: Pixels) -> bytes:
    """With a whole JPEG inside its EXIF segment, end marker included."""
    body = b'Exif\x00\x00' + b'MM\x00*\x00\x00\x00\x08' + bytes(6) + by_opencv(rgb[::8, ::8])
    segment = b'\xff\xe1' + (len(body) + 2).to_bytes(2, 'big') + body
    plain = by_opencv(rgb)
    return plain[:2] + segment + plain[2:]


def multi_picture(rgb: Pixels) -> bytes:
    file = io.BytesIO()
    Image.fromarray(rgb).save(file, 'MPO', save_all=True, append_images=[Image.fromarray(rgb[::2, ::2])])
    return file.getvalue()


KINDS: dict[str, Callable[[Pixels], bytes]] = {
    'baseline': by_opencv,
    'progressive': lambda rgb: by_opencv(rgb, cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
    'restart markers': lambda rgb: by_opencv(rgb, cv2.IMWRITE_JPEG_RST_INTERVAL, 4),
    'progressive with restarts': lambda rgb: by_opencv(
        rgb, cv2.IMWRITE_JPEG_PROGRESSIVE, 1, cv2.IMWRITE_JPEG_RST_INTERVAL, 2
    ),
    'thumbnail': with_thumbnail,
    'multi-picture': multi_picture,
    'grey': lambda rgb: by_pillow(rgb, 'L'),
    'cmyk': lambda rgb: by_pillow(rgb, 'CMYK'),
    'comment': lambda rgb: by_pillow(rgb, comment=b'\xff\xd9' * 9),
    'fill bytes': lambda rgb: by_opencv(rgb)[:-2] + b'\xff\xff\xff\xd9',
}


@pytest.mark.parametrize('tail', [b'', FILM, b'\xff', bytes(64)], ids=['', 'film', 'byte', 'zeros'])
@pytest.mark.parametrize('kind', KINDS)
def test_good_files_are_read(astronaut: Pixels, kind: str, tail: bytes) -> None:
    rgb = astronaut[:160, :200]
    data = KINDS[kind](rgb)
    read = decode_rgb(data + tail, 'x.jpg').rgb
    np.testing.assert_array_equal(read, decode_rgb(data, 'x.jpg').rgb)
    reference = rgb if kind != 'grey' else np.repeat(np.asarray(Image.fromarray(rgb).convert('L'))[..., None], 3, 2)
    assert np.abs(read.astype(int) - reference).mean() < 6


@pytest.mark.parametrize('kind', KINDS)
def test_cut_files_are_refused(astronaut: Pixels, kind: str) -> None:
    data = KINDS[kind](astronaut[:160, :200])
    end = len(data)
    if kind == 'multi-picture':  # the end of its first picture: where the second starts
        end = data.index(b'\xff\xd8\xff', 1000)
        assert is_whole_jpeg(data[:end])
    for length in [*np.linspace(3, end - 1, 60).astype(int), end - 2]:
        assert not is_whole_jpeg(data[:length]), length
    with pytest.raises(UnreadableImageError, match='truncated'):
        decode_rgb(data[: end * 3 // 4], 'x.jpg')
