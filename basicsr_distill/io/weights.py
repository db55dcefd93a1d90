"""Checkpoints that are whole or absent, loaded without ever running code from them."""

import errno
import logging
import os
import re
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from basicsr_distill.errors import InputError
from basicsr_distill.io.files import replacing

_LOGGER = logging.getLogger('basicsr')


def save_atomic(obj: Any, path: str | Path) -> None:
    """Write a checkpoint so that a reader sees the old file or the new one, never half of it.

    Args:
        obj: what ``torch.save`` takes; for a path ending in ``.safetensors``, a flat dict of contiguous tensors.
        path: the file; its folder must exist.

    Raises:
        OSError: the file cannot be written; the message names it and, on a full disk, the space needed. The former
            file is untouched and nothing half-written is left.
    """
    path = Path(path)
    try:
        with replacing(path) as temp:
            if path.suffix == '.safetensors':
                save_file(obj, temp)
            else:
                with temp.open('wb') as file:
                    torch.save(obj, file)
    except Exception as error:
        code = _os_error_number(error)
        if code is None:
            raise
        message = f'cannot write {path}: {os.strerror(code)}'
        if code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            free_bytes = shutil.disk_usage(path.parent).free
            message += f'; it needs about {_num_bytes(obj) / 1e6:.1f} MB and {free_bytes / 1e6:.1f} MB are free'
        raise OSError(code, message) from error


def _os_error_number(error: Exception) -> int | None:
    """The operating system's code behind a failed write."""
    # torch's zip writer raises a RuntimeError while handling the file's OSError; safetensors only quotes the number.
    cause = error if isinstance(error, OSError) else error.__context__
    if isinstance(cause, OSError):
        return cause.errno
    quoted = re.search(r'os error (\d+)', str(error))
    return int(quoted[1]) if quoted else None


def _num_bytes(obj: Any) -> int:
    """Bytes of the tensors inside nested dicts and lists."""
    if isinstance(obj, torch.Tensor):
        return obj.nbytes
    if isinstance(obj, Mapping):
        return sum(_num_bytes(value) for value in obj.values())
    if isinstance(obj, (list, tuple)):
        return sum(_num_bytes(value) for value in obj)
    return 0


def load_weights(path: str | Path) -> dict[str, Any]:
    """Read a ``.pth``/``.pt``/``.state`` or ``.safetensors`` file into CPU memory.

    Args:
        path: the file. Anything but tensors, numbers, strings and containers of them is refused, not executed.

    Returns:
        The dict that was saved: a state_dict, or a dict holding some (``params``, ``params_ema``, ...).

    Raises:
        InputError: the file is missing, empty, truncated, not a checkpoint, or holds code (whose names are listed).
    """
    return _load(Path(path), mapped=False)


def is_loadable(path: str | Path) -> bool:
    """Whether :func:`load_weights` would succeed; tensors stay on disk, so large files cost little."""
    try:
        _load(Path(path), mapped=True)
    except InputError:
        return False
    return True


def _load(path: Path, mapped: bool) -> dict[str, Any]:
    if not path.is_file():
        raise InputError(f'{path}: no such file; give the path of a checkpoint (.pth or .safetensors).')
    if path.stat().st_size == 0:
        raise InputError(f'{path}: the file is empty; copy or download it again.')
    try:
        if path.suffix == '.safetensors':
            if mapped:
                with safe_open(path, framework='pt') as file:  # checks the header against the file's length
                    return dict.fromkeys(file.keys())
            return load_file(path)
        # Only today's zip layout can be mapped; files of torch < 1.6 are one pickle stream.
        loaded = torch.load(path, map_location='cpu', weights_only=True, mmap=mapped and zipfile.is_zipfile(path))
    except MemoryError:
        raise
    except Exception as error:  # a damaged file fails in whatever layer first trips over it
        names = _unsafe_globals(path, str(error))
        if names:
            raise InputError(
                f'{path}: refused, as it holds code or objects beyond plain weights '
                f'({", ".join(names)}); use a file of tensors only.'
            ) from error
        raise InputError(
            f'{path}: damaged, or not a checkpoint ({_first_sentence(error)}); copy or download it again.'
        ) from error
    if not isinstance(loaded, dict):
        raise InputError(f'{path}: holds a {type(loaded).__name__} instead of a dict of weights.')
    return loaded


def _unsafe_globals(path: Path, message: str) -> list[str]:
    """Names that unpickling would have imported and called; read without executing anything."""
    if zipfile.is_zipfile(path):
        try:
            return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
        except Exception:  # an archive of something else; the caller reports it as damaged
            return []
    return re.findall(r'GLOBAL ([\w.]+)', message)[:1]


def _first_sentence(error: Exception) -> str:
    """A few words of the loader's own; torch's unpickling errors are left out, as they advise unsafe loading."""
    if isinstance(error, (RuntimeError, OSError)) or 'safetensors' in type(error).__module__:
        return str(error).split('\n')[0].split('. ')[0][:120]
    return type(error).__name__
