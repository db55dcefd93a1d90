"""Sizes of image files from their headers, as Pillow reads them, and whether two sizes can be those of a pair.

Damage in the middle of a file is found by decoding alone, and said then.
"""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from basicsr_distill.io.images import EXIF_ORIENTATION, MAX_PIXELS, UnreadableImageError, naming_faults, read_rgb

# How files of a format end; one that ends otherwise has lost its end, or has something behind it.
_ENDS = {'PNG': b'IEND\xaeB`\x82', 'JPEG': b'\xff\xd9', 'MPO': b'\xff\xd9'}
_END_BYTES = 8
# Benchmarks crop HR images to a multiple of 12, which is one of 2, 3 and 4, and often publish the uncropped ones.
_COMMON_MULTIPLE = 12


class ImageHeader(NamedTuple):
    """What a file says of its picture, EXIF orientation applied."""

    width: int  # pixels
    height: int  # pixels
    has_alpha: bool = False
    is_deep: bool = False  # more than 8 bits a channel


def read_headers(paths: Sequence[str]) -> list[ImageHeader | UnreadableImageError]:
    """Read the headers of many files, in order; what is wrong with a file stands in the place of its header."""
    found: list[ImageHeader | UnreadableImageError] = []
    shared: dict[ImageHeader, ImageHeader] = {}  # a hundred thousand patches have one size
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # of large pictures, whose limit is MAX_PIXELS, and of odd tags
        for path in paths:  # threads would wait for Python's lock: three times as long
            try:
                header = _read_header(path)
                found.append(shared.setdefault(header, header))
            except UnreadableImageError as error:
                found.append(error)
    return found


def _read_header(path: str) -> ImageHeader:
    """Read one header.

    Raises:
        UnreadableImageError: missing, empty, not an image, too large, or without its end.
    """
    try:
        with open(path, 'rb') as file:
            kind, header = _header_of(path, file)
            file.seek(-_END_BYTES, 2)
            end = file.read()
    except FileNotFoundError:
        raise UnreadableImageError(path, 'missing', 'no such file') from None
    except OSError as error:
        raise UnreadableImageError(path, 'unreadable', f'cannot be read ({error.strerror})') from error
    if header.width * header.height > MAX_PIXELS:
        raise UnreadableImageError(
            path, 'too_large', f'{header.width}x{header.height} pixels are more than {MAX_PIXELS}'
        )
    if not end.endswith(_ENDS.get(kind, b'')):
        read_rgb(Path(path))  # bytes behind the picture are allowed, a missing part of it is not
    return header


def _header_of(path: str, file: Any) -> tuple[str, ImageHeader]:
    """Return the format of an open file, and its header."""
    if not file.read(1):
        raise UnreadableImageError(path, 'empty', 'the file is empty')
    file.seek(0)
    with naming_faults(path), Image.open(file) as image:
        width, height = image.size
        # Pillow decodes a whole PNG to find an orientation that is not there.
        has_exif = image.format != 'PNG' or 'exif' in image.info
        if has_exif and image.getexif().get(EXIF_ORIENTATION, 1) in range(5, 9):
            width, height = height, width
        is_deep = image.mode[0] in 'IF' or any('16' in str(tile[3]) for tile in image.tile)
        return image.format or '', ImageHeader(width, height, 'a' in image.mode.lower(), is_deep)


def pair_fault(hr_size: tuple[int, int], lr_size: tuple[int, int], scale: int, is_train: bool) -> str | None:
    """Say what is wrong with the sizes of a pair, or return None.

    In training the HR image is exactly ``scale`` times the LR image. In a test BasicSR cuts off what is left over at
    the right and lower edge of the HR image, which is right for the few pixels that cropping to a multiple leaves, and
    a wrong number without a word for LR images of another scale.

    Args:
        hr_size: width, height in pixels.
        lr_size: width, height in pixels.
        scale: of the experiment.
        is_train: whether the pair is trained on.
    """
    left_over = [hr - lr * scale for hr, lr in zip(hr_size, lr_size)]
    limit = 1 if is_train else max(scale, _COMMON_MULTIPLE)
    if all(0 <= rest < limit and (is_train or 4 * rest <= hr) for rest, hr in zip(left_over, hr_size)):
        return None
    (hr_width, hr_height), (lr_width, lr_height) = hr_size, lr_size
    likely = {round(hr / lr) for hr, lr in zip(hr_size, lr_size)}
    hint = f', it is that of scale {likely.pop()}' if len(likely) == 1 and scale not in likely else ''
    return (
        f'is {lr_width}x{lr_height}, which at scale {scale} is not the partner of {hr_width}x{hr_height}{hint}; '
        f'{"crop HR images to a multiple of the scale and " if is_train and not hint else ""}'
        'make the LR images anew (scripts/generate_lr_bicubic.py) or correct scale'
    )


def is_doubtful_pair(hr_size: tuple[int, int], lr_size: tuple[int, int], scale: int) -> bool:
    """Whether a test leaves more of the HR image out than cropping to a multiple of the scale does."""
    return any(hr - lr * scale >= scale for hr, lr in zip(hr_size, lr_size))
