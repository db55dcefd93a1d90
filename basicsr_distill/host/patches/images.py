"""Image files: written whole, under any name."""

import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from basicsr_distill.host.patches.table import HostFunction, patch
from basicsr_distill.io.files import write_atomic


@patch(
    'basicsr.utils.img_util:imwrite',
    'utils/img_util.py:151',
    'leaves the file to OpenCV, which ends the process on a name that is not UTF-8 and, on a full disk, halves an '
    'image and says that writing failed, but not of what',
    'basicsr test -opt options/test/EDSR/test_EDSR_Mx4.yml, on a full disk',
)
def _imwrite(original: HostFunction) -> HostFunction:
    def imwrite(img: np.ndarray, file_path: str, params: Any = None, auto_mkdir: bool = True) -> None:
        """Write an image; a reader finds the whole file or none.

        Raises:
            OSError: the file cannot be written; the message names it.
        """
        path = Path(file_path)
        done, data = cv2.imencode(path.suffix, img, params or [])
        if not done:
            raise OSError(f'{path}: OpenCV cannot write an image of shape {img.shape} as {path.suffix}.')
        try:
            if auto_mkdir:
                path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(path, data.tobytes())
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno else str(error)
            raise OSError(
                error.errno, f'cannot write {os.fsencode(path).decode(errors="backslashreplace")}: {reason}'
            ) from error

    return imwrite
