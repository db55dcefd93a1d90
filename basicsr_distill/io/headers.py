"""Sizes of image files from their headers, a hundred thousand in seconds and again from a cache.

PNG and JPEG headers are read here, from one block of the file; Pillow reads those of other formats and of files with an
EXIF orientation. Sizes are those of the decoded picture. Both kinds are also looked at from their end: a file that does
not end as its format does is decoded, so that a truncated one is found now. Damage in the middle is found by decoding
alone.
"""

import hashlib
import json
import os
import struct
import tempfile
import warnings
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import lru_cache, partial
from pathlib import Path
from typing import NamedTuple

from PIL import Image, UnidentifiedImageError

from basicsr_distill.io.images import MAX_PIXELS, UnreadableImageError, read_rgb

# Reading fewer takes less time than a cache saves, and leaves no file behind.
MIN_CACHED_FILES = 1000

_CACHE_VERSION = 1
_BLOCK_BYTES = 4096
_THREADS = 8
_CHUNK_FILES = 512
_PNG_SIGNATURE = b'\x89PNG\r\n\x1a\n'
_PNG_END = b'IEND\xaeB`\x82'
_PNG_MODES = {0: 'L', 2: 'RGB', 3: 'P', 4: 'LA', 6: 'RGBA'}
_JPEG_SIGNATURE = b'\xff\xd8\xff'
_JPEG_END = b'\xff\xd9'
_JPEG_MODES = {1: 'L', 3: 'RGB', 4: 'CMYK'}
_EXIF_ORIENTATION = 0x0112


class ImageHeader(NamedTuple):
    """width, height: of the decoded picture, pixels.  mode: as Pillow names it, with ``;16`` for 16 bits of a PNG."""

    width: int
    height: int
    mode: str

    @property
    def has_alpha(self) -> bool:
        return 'A' in self.mode or 'a' in self.mode

    @property
    def is_deep(self) -> bool:
        """More than 8 bits a channel."""
        return '16' in self.mode or self.mode in ('I', 'F')


def read_header(path: Path) -> ImageHeader:
    """Header of one image file.

    Raises:
        UnreadableImageError: missing, empty, not an image, too large, or truncated.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, 'O_BINARY', 0))
        try:
            head, size = os.pread(descriptor, _BLOCK_BYTES, 0), os.fstat(descriptor).st_size
            end = head[-12:] if size <= _BLOCK_BYTES else os.pread(descriptor, 12, size - 12)
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        raise UnreadableImageError(str(path), 'missing', 'no such file') from None
    except OSError as error:
        raise UnreadableImageError(str(path), 'unreadable', f'cannot be read ({error.strerror})') from error
    if not head:
        raise UnreadableImageError(str(path), 'empty', 'the file is empty')
    header = _png_header(head) or _jpeg_header(head) or _pillow_header(path)
    if header.width * header.height > MAX_PIXELS:
        raise UnreadableImageError(
            str(path), 'too_large', f'{header.width}x{header.height} pixels are more than {MAX_PIXELS}'
        )
    if (head.startswith(_PNG_SIGNATURE) and not end.endswith(_PNG_END)) or (
        head.startswith(_JPEG_SIGNATURE) and not end.endswith(_JPEG_END)
    ):
        read_rgb(path)  # bytes behind the picture are allowed, a missing part of it is not
    return header


def _png_header(head: bytes) -> ImageHeader | None:
    if not head.startswith(_PNG_SIGNATURE) or head[12:16] != b'IHDR' or len(head) < 33:
        return None
    width, height, bits, colour = struct.unpack('>IIBB', head[16:26])
    position = 33
    while (kind := head[position + 4 : position + 8]) != b'IDAT':
        if kind == b'eXIf' or len(kind) < 4:
            return None
        position += 12 + int.from_bytes(head[position : position + 4], 'big')
    return _shared(width, height, _PNG_MODES.get(colour, 'P') + (';16' if bits == 16 else ''))


def _jpeg_header(head: bytes) -> ImageHeader | None:
    if not head.startswith(_JPEG_SIGNATURE):
        return None
    position = 2
    while position + 10 <= len(head) and head[position] == 0xFF:
        marker, length = head[position + 1], int.from_bytes(head[position + 2 : position + 4], 'big')
        if marker == 0xE1 and head[position + 4 : position + 8] == b'Exif':
            return None
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width, channels = struct.unpack('>HHB', head[position + 5 : position + 10])
            return _shared(width, height, _JPEG_MODES.get(channels, 'RGB')) if height else None
        position += 2 + length
    return None


def _pillow_header(path: Path) -> ImageHeader:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            with Image.open(path) as image:
                width, height = image.size
                turned = image.getexif().get(_EXIF_ORIENTATION, 1) in range(5, 9)
                return _shared(*((height, width) if turned else (width, height)), image.mode)
    except Image.DecompressionBombError:
        raise UnreadableImageError(str(path), 'too_large', 'its header claims a decompression bomb') from None
    except UnidentifiedImageError:
        raise UnreadableImageError(str(path), 'not_an_image', 'not an image') from None
    except Exception as error:  # a hostile header makes Pillow raise nearly anything
        raise UnreadableImageError(str(path), 'broken', f'its header is broken ({error})') from None


@lru_cache(maxsize=1 << 16)
def _shared(width: int, height: int, mode: str) -> ImageHeader:
    """One object for each size that occurs: sets of patches have one size."""
    return ImageHeader(width, height, mode)


def read_headers(paths: Sequence[str]) -> list[ImageHeader | UnreadableImageError]:
    """Headers of many files, in order; what :func:`read_header` raises stands in the place of a file that is not right.

    Of folders with :data:`MIN_CACHED_FILES` files and more they are kept, by name, size and time of change, in
    ``$XDG_CACHE_HOME/basicsr_distill/headers`` (``~/.cache`` when unset); the folders themselves are not written to.
    """
    by_folder: dict[str, list[int]] = {}
    for index, path in enumerate(paths):
        by_folder.setdefault(os.path.dirname(path), []).append(index)
    found: list[ImageHeader | UnreadableImageError] = [None] * len(paths)  # type: ignore[list-item]
    with ThreadPoolExecutor(_THREADS) as threads:
        for folder, indices in by_folder.items():
            is_cached = len(indices) >= MIN_CACHED_FILES
            known = _load_cache(folder) if is_cached else {}
            chunks = [indices[start : start + _CHUNK_FILES] for start in range(0, len(indices), _CHUNK_FILES)]
            fresh: _Entries = {}
            for chunk, (headers, new) in zip(chunks, threads.map(partial(_read_chunk, paths, known), chunks)):
                fresh.update(new)
                for index, header in zip(chunk, headers):
                    found[index] = header
            if is_cached and fresh:
                _save_cache(folder, {**known, **fresh})
    return found


# Name -> size, time of change (ns), width, height, mode.
_Entries = dict[str, tuple[int, int, int, int, str]]


def _read_chunk(
    paths: Sequence[str], known: _Entries, chunk: Iterable[int]
) -> tuple[list[ImageHeader | UnreadableImageError], _Entries]:
    headers: list[ImageHeader | UnreadableImageError] = []
    fresh: _Entries = {}
    for index in chunk:
        path = paths[index]
        name = os.path.basename(path)
        try:
            stat = os.stat(path)
            entry = known.get(name)
            if entry is not None and entry[0] == stat.st_size and entry[1] == stat.st_mtime_ns:
                headers.append(_shared(*entry[2:]))
                continue
            header = read_header(Path(path))
            fresh[name] = (stat.st_size, stat.st_mtime_ns, *header)
            headers.append(header)
        except UnreadableImageError as error:
            headers.append(error)
        except OSError:
            headers.append(UnreadableImageError(path, 'missing', 'no such file'))
    return headers, fresh


def _cache_file(folder: str) -> Path:
    root = Path(os.environ.get('XDG_CACHE_HOME') or os.path.expanduser('~/.cache'))
    digest = hashlib.sha256(os.fsencode(os.path.realpath(folder))).hexdigest()
    return root / 'basicsr_distill' / 'headers' / f'{digest[:32]}.json'


def _load_cache(folder: str) -> _Entries:
    """What is known of a folder; nothing where the cache is absent, damaged or of another version."""
    try:
        content = json.loads(_cache_file(folder).read_bytes())
        if content['version'] != _CACHE_VERSION or content['folder'] != os.path.realpath(folder):
            return {}
        return {
            name: (size, time, width, height, str(mode))
            for name, (size, time, width, height, mode) in content['files'].items()
            if width > 0 < height
        }
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}


def _save_cache(folder: str, entries: _Entries) -> None:
    """A cache that cannot be written is no reason to stop; each writer has a temporary file of its own."""
    path = _cache_file(folder)
    content = json.dumps({'version': _CACHE_VERSION, 'folder': os.path.realpath(folder), 'files': entries})
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile('w', dir=path.parent, delete=False, encoding='utf-8') as file:
            try:
                file.write(content)
                file.close()
                os.replace(file.name, path)
            except BaseException:
                os.unlink(file.name)
                raise
