"""Image files in and out: the search for them, one written policy for every odd kind, and a fast PNG writer.

Every picture becomes 8-bit RGB:

========  ==============================================================
16-bit    v -> round(v / 257)
grey      replicated into three channels
palette   looked up
alpha     dropped, not composited (the hidden colours come to light)
CMYK      converted by OpenCV, embedded colour profiles are not applied
EXIF      orientation is applied
========  ==============================================================

Floating-point pictures, animations beyond their first frame and formats that OpenCV cannot decode are not read.
"""

import hashlib
import io
import os
import struct
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from basicsr_distill.errors import InputError
from basicsr_distill.io.deflating import compress, crc32
from basicsr_distill.io.files import TEMP_SUFFIX
from basicsr_distill.io.jpeg import is_whole_jpeg

IMAGE_SUFFIXES = frozenset({'.png', '.jpg', '.jpeg', '.bmp', '.webp', '.tif', '.tiff', '.ppm'})
# A photograph of 134 megapixels is 400 MB decoded; what claims more is taken for a decompression bomb.
MAX_PIXELS = 1 << 27

EXIF_ORIENTATION = 0x0112
_PNG_SIGNATURE = b'\x89PNG\r\n\x1a\n'
# Signature, the chunk IHDR with width and height, and the name of the chunk behind it.
_PNG_START = struct.Struct('>8s4x4sII5x4x4x4s')
# Files whose content has a say in a fingerprint, and how much of each end.
_FINGERPRINTED_FILES = 1024
_END_BYTES = 1 << 14


class UnreadableImageError(InputError):
    """An image file that cannot be used; ``reason`` is one word to count it under."""

    def __init__(self, name: str, reason: str = '', detail: str = '') -> None:
        # With the message alone it can be raised again across processes, as torch's data workers do.
        super().__init__(f'{name}: {detail}; remove or replace the file.' if detail else name)
        self.name = name
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True)
class FoundImage:
    """An image file. relative: its path below the common folder of all roots, with forward slashes."""

    path: Path
    relative: str


def find_images(roots: Sequence[Path]) -> list[FoundImage]:
    """Image files below some folders, sorted by relative path, each once.

    Hidden files and folders are left out. Links to files or folders inside the roots are followed, but nothing is
    visited twice. Of the folder of a stage only ``images/`` counts: beside it lie figures.

    Raises:
        InputError: a root is not a folder, or a link leads out of the roots.
    """
    for root in roots:
        if not root.is_dir():
            raise InputError(f'{root}: not a folder; give a folder of images.')
    real_roots = [os.path.realpath(root) for root in roots]
    common = os.path.commonpath(real_roots)
    seen_folders: set[str] = set()
    files: set[str] = set()
    links: dict[str, str] = {}
    pending = sorted(real_roots, reverse=True)
    while pending:
        folder = pending.pop()
        if folder in seen_folders:
            continue
        seen_folders.add(folder)
        entries = list(_visible_entries(folder))
        if images := _images_of_stage(entries):
            entries = images
        for entry in entries:
            is_image = os.path.splitext(entry.name)[1].lower() in IMAGE_SUFFIXES
            if entry.is_symlink():
                target = os.path.realpath(entry.path)
                is_folder = os.path.isdir(target)
                if not (is_folder or is_image):
                    continue
                if not any(os.path.commonpath([target, root]) == root for root in real_roots):
                    raise InputError(
                        f'{entry.path}: this link leads out of {" and ".join(map(str, roots))}; '
                        'copy its target or add that folder to dataroot.'
                    )
                if is_folder:
                    pending.append(target)
                else:
                    links[target] = min(entry.path, links.get(target, entry.path))
            elif entry.is_dir():
                pending.append(entry.path)
            elif is_image:
                files.add(entry.path)
    paths = files | {link for target, link in links.items() if target not in files}
    found = (FoundImage(Path(path), os.path.relpath(path, common).replace(os.sep, '/')) for path in paths)
    return sorted(found, key=lambda image: image.relative)


def _images_of_stage(entries: list[os.DirEntry[str]]) -> list[os.DirEntry[str]]:
    """The images/ of a stage's folder, whose figures lie beside it; nothing for any other folder."""
    names = {entry.name: entry for entry in entries}
    return [names['images']] if {'images', 'stage.json'} <= names.keys() else []


def fingerprint_images(images: Sequence[FoundImage]) -> str:
    """Digest of the names and sizes of image files, and of both ends of up to 1024 of them, evenly chosen.

    An edit that keeps a file's size is so noticed in sets of that many (but in the middle of an uncompressed file),
    while a million files cost no more than their sizes. Times have no say: a copy of a set is the same set.
    """
    digest = hashlib.sha256()
    step = -(-len(images) // _FINGERPRINTED_FILES)
    for number, image in enumerate(images):
        size, ends = file_bytes(image.path), b''
        if number % step == 0:
            with suppress(OSError):  # reading it will show
                ends = _ends(image.path, size)
        digest.update(f'{image.relative}\0{size}\0'.encode('utf-8', 'surrogateescape') + ends)
    return digest.hexdigest()


def file_bytes(path: Path) -> int:
    """Size of a file; 0 where it cannot be had."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _ends(path: Path, size: int) -> bytes:
    with path.open('rb') as file:
        head = file.read(_END_BYTES)
        file.seek(max(len(head), size - _END_BYTES))
        return head + file.read(_END_BYTES)


def _visible_entries(folder: str) -> Iterator[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        yield from (entry for entry in entries if not entry.name.startswith('.'))


@dataclass(frozen=True)
class DecodedImage:
    """rgb: (H, W, 3), uint8.  kinds: what was odd in the file: 16bit, grey, palette, alpha, cmyk, exif_rotated."""

    rgb: NDArray[np.uint8]
    kinds: tuple[str, ...]


def read_rgb(path: Path) -> NDArray[np.uint8]:
    """Read an image file as RGB, (H, W, 3), uint8, by the policy above.

    Raises:
        UnreadableImageError: see :func:`decode_rgb`; or the file cannot be opened.
    """
    return decode_rgb(read_bytes(path), str(path)).rgb


def read_bytes(path: Path) -> bytes:
    """The content of a file.

    Raises:
        UnreadableImageError: with reason ``unreadable``.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise UnreadableImageError(str(path), 'unreadable', f'cannot be read ({error.strerror})') from error


def image_shape(path: Path) -> tuple[int, int]:
    """Height and width that :func:`read_rgb` will give, from the file's header alone.

    Raises:
        UnreadableImageError: the file cannot be opened, is empty or not an image.
    """
    try:
        with path.open('rb') as file:
            start = file.read(_PNG_START.size)
            if len(start) == _PNG_START.size:
                signature, ihdr, width, height, following = _PNG_START.unpack(start)
                if (signature, ihdr, following) == (_PNG_SIGNATURE, b'IHDR', b'IDAT'):
                    return height, width  # a PNG without anything that could turn it, as ours are
            file.seek(0)
            header = _open_header(file, str(path))
            turned = header.getexif().get(EXIF_ORIENTATION, 1) in range(5, 9)
            return header.size if turned else header.size[::-1]
    except OSError as error:
        raise UnreadableImageError(str(path), 'unreadable', f'cannot be read ({error.strerror})') from error


def decode_rgb(data: bytes, name: str) -> DecodedImage:
    """Decode an image file's bytes by the policy above. The size is judged from the header, before any decoding.

    Args:
        data: the whole file.
        name: of the file, for messages.

    Raises:
        UnreadableImageError: with reason ``empty``, ``not_an_image``, ``too_large``, ``unsupported`` or ``broken``.
    """
    header = _open_header(io.BytesIO(data), name)
    orientation = header.getexif().get(EXIF_ORIENTATION, 1)
    width, height = header.size
    if width * height > MAX_PIXELS:
        raise UnreadableImageError(name, 'too_large', f'{width}x{height} pixels are more than {MAX_PIXELS}')
    if header.mode == 'F':
        raise UnreadableImageError(name, 'unsupported', 'floating-point pixels are not supported')
    # OpenCV 4 fills the missing part of a truncated JPEG with grey instead of refusing it.
    if header.format in ('JPEG', 'MPO') and not is_whole_jpeg(data):
        raise UnreadableImageError(name, 'broken', 'the file is truncated')
    _silence_opencv()
    try:
        bgr = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
    except cv2.error:
        bgr = None
    if bgr is None:
        raise UnreadableImageError(name, 'broken', 'the file is truncated or damaged')
    if bgr.dtype not in (np.uint8, np.uint16):
        raise UnreadableImageError(name, 'unsupported', f'{bgr.dtype} pixels are not supported')
    kinds = _kinds(header, orientation, bgr.dtype == np.uint16)
    if bgr.dtype == np.uint16:
        bgr = ((bgr.astype(np.uint32) + 128) // 257).astype(np.uint8)
    return DecodedImage(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB, dst=bgr), kinds)


def _open_header(file: BinaryIO, name: str) -> Image.Image:
    """An image whose header and EXIF data are read, and nothing else."""
    if not file.read(1):
        raise UnreadableImageError(name, 'empty', 'the file is empty')
    file.seek(0)
    with naming_faults(name), warnings.catch_warnings():
        warnings.simplefilter('ignore')
        header = Image.open(file)
        header.getexif()
    return header


@contextmanager
def naming_faults(name: str) -> Iterator[None]:
    """Let Pillow read a header.

    Raises:
        UnreadableImageError: what Pillow raised, with reason ``too_large``, ``not_an_image`` or ``broken``.
    """
    try:
        yield
    except Image.DecompressionBombError:
        raise UnreadableImageError(name, 'too_large', 'its header claims a decompression bomb') from None
    except UnidentifiedImageError:
        raise UnreadableImageError(name, 'not_an_image', 'not an image') from None
    except Exception as error:  # a hostile header makes Pillow raise nearly anything
        raise UnreadableImageError(name, 'broken', f'its header is broken ({error})') from None


def _kinds(header: Image.Image, orientation: int, is_16bit: bool) -> tuple[str, ...]:
    mode = header.mode
    found = {
        '16bit': is_16bit,
        'grey': mode in {'1', 'L', 'LA'} or mode.startswith('I'),
        'palette': mode in {'P', 'PA'},
        'alpha': mode in {'LA', 'PA', 'RGBA', 'RGBa'} or 'transparency' in header.info,
        'cmyk': mode == 'CMYK',
        'exif_rotated': orientation in range(2, 9),
    }
    return tuple(kind for kind, present in found.items() if present)


@lru_cache(maxsize=1)
def _silence_opencv() -> None:
    """Broken files are reported by us, once and by name; OpenCV would add lines of its own to stderr."""
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


def write_png(path: Path, rgb: NDArray[np.uint8], level: int = 1) -> None:
    """Write an image as PNG; a reader finds the whole file or none. Equal pixels give equal bytes.

    Unlike :func:`basicsr_distill.io.files.write_atomic` this does not wait for the disk: there may be millions, and a
    file that a power cut halved is found by :func:`is_whole_png`.

    Args:
        path: of the file.
        rgb: (H, W, 3), uint8.
        level: of :func:`encode_png`.
    """
    temp = path.with_name(f'{path.name}{TEMP_SUFFIX}')
    try:
        with temp.open('wb') as file:
            file.writelines(_png_parts(rgb, level))
        os.replace(temp, path)
    except BaseException:
        temp.unlink(missing_ok=True)
        raise


_JPEG_QUALITY = 88


def encode_jpeg(rgb: NDArray[np.uint8]) -> bytes:
    """Encode an image as JPEG for a page, (H, W, 3), uint8."""
    return cv2.imencode('.jpg', rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])[1].tobytes()


_PNG_FILTER_NONE = 0
_PNG_FILTER_UP = 2


def encode_png(rgb: NDArray[np.uint8], level: int = 1) -> bytes:
    """Encode an image as PNG, at level 1 three times as fast as OpenCV at its lowest and somewhat smaller.

    Nearly all the time is the deflate, where libdeflate (the extra ``deflate``; else zlib, half as fast) is the fastest
    that always gives the same bytes (ISA-L, twice as fast again, did not in one of 20,000 patches).

    Args:
        rgb: (H, W, 3), uint8.
        level: 1 (fast) to 12 (small), or 0: stored as it is, in a fifteenth of the time, 1.7 times as large.
    """
    return b''.join(_png_parts(rgb, level))


def _png_parts(rgb: NDArray[np.uint8], level: int) -> list[bytes | bytearray]:
    height, width, channels = rgb.shape
    if rgb.dtype != np.uint8 or channels != 3 or not rgb.size:
        raise ValueError(f'An image of shape {rgb.shape} and type {rgb.dtype} cannot be written as RGB PNG.')
    lines = np.empty((height, 1 + 3 * width), np.uint8)
    rows = rgb.reshape(height, 3 * width)
    if level:
        lines[:, 0] = _PNG_FILTER_UP
        lines[0, 1:] = rows[0]
        np.subtract(rows[1:], rows[:-1], out=lines[1:, 1:])
    else:
        lines[:, 0] = _PNG_FILTER_NONE
        lines[:, 1:] = rows
    header = struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0)
    pixels = compress(lines, level)
    return [_PNG_SIGNATURE, *_png_chunk(b'IHDR', header), *_png_chunk(b'IDAT', pixels), *_PNG_END]


def _png_chunk(kind: bytes, data: bytes | bytearray) -> tuple[bytes, bytes, bytes | bytearray, bytes]:
    return struct.pack('>I', len(data)), kind, data, struct.pack('>I', crc32(data, crc32(kind)))


_PNG_END = _png_chunk(b'IEND', b'')


def is_whole_png(path: Path) -> bool:
    """Whether a PNG written by :func:`write_png` is there to its last byte."""
    try:
        with path.open('rb') as file:
            file.seek(-12, os.SEEK_END)
            return file.read() == b''.join(_PNG_END)
    except OSError:
        return False
