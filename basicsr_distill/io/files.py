"""Files that are whole or absent: atomic writes, hashes, paths that stay inside their folder."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from basicsr_distill.errors import InputError

# A temporary file carries this suffix; whatever run finds one owns no live writer (folders are locked) and may delete
# it.
TEMP_SUFFIX = '.part'


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on success flush it to disk and rename it, on failure remove it."""
    temp = path.with_name(f'{path.name}{TEMP_SUFFIX}')
    try:
        yield temp
        with temp.open('rb') as file:
            os.fsync(file.fileno())
        os.replace(temp, path)
    except BaseException:
        temp.unlink(missing_ok=True)
        raise


def write_atomic(path: Path, data: bytes | str) -> None:
    """Write ``data`` (text as UTF-8 with ``\\n`` line ends) so that a reader sees the old file or the new one."""
    with replacing(path) as temp:
        temp.write_bytes(data.encode() if isinstance(data, str) else data)


def remove_temporaries(folder: Path) -> None:
    """Delete what an interrupted writer left below ``folder``."""
    for temp in folder.rglob(f'*{TEMP_SUFFIX}'):
        temp.unlink()


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's bytes, hexadecimal."""
    digest = hashlib.sha256()
    with path.open('rb') as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def sha256_tree(path: Path) -> str:
    """SHA-256 of a file's bytes, or of the names and contents of all files below a folder, hexadecimal.

    What begins with a dot is left out: downloads keep their notes there.
    """
    if path.is_file():
        return sha256_file(path)
    files = {file.relative_to(path).as_posix(): file for file in path.rglob('*') if file.is_file()}
    lines = (f'{sha256_file(files[name])} {name}\n' for name in sorted(files) if '/.' not in f'/{name}')
    return hashlib.sha256(''.join(lines).encode('utf-8', 'surrogateescape')).hexdigest()


def safe_join(root: Path, relative: str, listed_in: Path) -> Path:
    """Join a name read from a table to its folder.

    Raises:
        InputError: ``relative`` is absolute or climbs out of ``root`` (``listed_in`` names the table it came from).
    """
    if os.path.isabs(relative) or '..' in Path(relative).parts:
        raise InputError(f'{listed_in}: {relative!r} points outside {root}; names must stay inside the folder.')
    return root / relative
