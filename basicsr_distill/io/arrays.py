"""Arrays of features and latents, read without running what a file might hold."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from basicsr_distill.errors import InputError


def read_array(path: Path, mapped: bool = False) -> NDArray[Any]:
    """An array from a ``.npy`` file.

    Args:
        path: the file.
        mapped: leave the array on disk and map it into memory, read-only.

    Raises:
        InputError: the file is missing or damaged, or holds Python objects.
    """
    try:
        return np.asanyarray(np.load(path, mmap_mode='r' if mapped else None, allow_pickle=False))
    except (OSError, ValueError, EOFError) as error:
        raise _unreadable(path, error) from error


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of a ``.npz`` file, by name.

    Raises:
        InputError: as :func:`read_array`.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return dict(arrays)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, AttributeError, TypeError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> InputError:
    return InputError(
        f'{path}: holds no plain array ({error}); remove the folder that it lies in, and run the command '
        'again that made it.'
    )
