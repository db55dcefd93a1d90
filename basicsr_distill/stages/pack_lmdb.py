"""Patches packed into BasicSR's lmdb layout."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import lmdb

# Compression level noted in meta_info.txt; BasicSR's own packer writes it and nothing reads it.
_PNG_LEVEL = 1


def pack_lmdb(folder: Path, names: Sequence[str], target: Path) -> None:
    """Pack PNG files, in order, as ``basicsr.utils.lmdb_util`` does: keys are names without suffix, values whole files.

    Args:
        folder: of the files.
        names: of the files.
        target: folder to make, ending in ``.lmdb``; it appears whole.
    """
    if target.is_dir():
        return
    temp = target.with_name('packing.lmdb')
    shutil.rmtree(temp, ignore_errors=True)
    temp.mkdir()
    payload = sum((folder / name).stat().st_size for name in names)
    lines: list[str] = []
    # Every value takes whole 4 KiB pages, and the tree of keys some more.
    with (
        lmdb.open(str(temp), map_size=2 * payload + 8192 * len(names) + (1 << 20)) as env,
        env.begin(write=True) as txn,
    ):
        for name in names:
            data = (folder / name).read_bytes()
            txn.put(Path(name).stem.encode(), data)
            height, width = _png_size(data)
            lines.append(f'{name} ({height},{width},3) {_PNG_LEVEL}\n')
    (temp / 'meta_info.txt').write_text(''.join(lines), encoding='utf-8')
    (temp / 'lock.mdb').unlink(missing_ok=True)
    os.replace(temp, target)


def _png_size(data: bytes) -> tuple[int, int]:
    return int.from_bytes(data[20:24], 'big'), int.from_bytes(data[16:20], 'big')
