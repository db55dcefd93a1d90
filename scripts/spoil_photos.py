"""Spoil a folder of photographs as pools are spoiled: a third JPEG at quality 30, a tenth enlarged, a tenth noisy.

    python scripts/spoil_photos.py datasets/BSDS500 datasets/BSDS500_spoiled

What curation is worth is measured on the result: see options/benchmark/curation_study.yml.
"""

import argparse
import shutil
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from basicsr_distill.io.images import find_images, read_rgb, write_png

JPEG_QUALITY = 30
FACTOR = 2
SIGMA = 15


def enlarged(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The middle of an image, enlarged to its size."""
    height, width = (side // FACTOR for side in rgb.shape[:2])
    top, left = height // 2, width // 2
    return np.asarray(
        cv2.resize(rgb[top : top + height, left : left + width], rgb.shape[1::-1], interpolation=cv2.INTER_CUBIC),
        np.uint8,
    )


def noisy(rgb: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """An image under white noise."""
    return (rgb + rng.normal(0, SIGMA, rgb.shape)).round().clip(0, 255).astype(np.uint8)


def main() -> None:
    """Write every photograph, spoiled or as it is, under the name of what was done to it."""
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('photos', type=Path)
    parser.add_argument('spoiled', type=Path)
    parser.add_argument('--seed', type=int, default=0)
    arguments = parser.parse_args()
    arguments.spoiled.mkdir(parents=True)
    images = find_images([arguments.photos])
    rng = np.random.default_rng(arguments.seed)
    order = rng.permutation(len(images)).tolist()
    third, tenth = len(images) // 3, len(images) // 10
    for place, number in enumerate(tqdm(order, desc='spoil', unit='image')):
        path, stem = images[number].path, f'{number:06d}_{images[number].path.stem}'
        if place < third:
            cv2.imwrite(
                str(arguments.spoiled / f'{stem}_jpeg.jpg'),
                read_rgb(path)[..., ::-1],
                [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY],
            )
        elif place < third + tenth:
            write_png(arguments.spoiled / f'{stem}_enlarged.png', enlarged(read_rgb(path)))
        elif place < third + 2 * tenth:
            write_png(arguments.spoiled / f'{stem}_noisy.png', noisy(read_rgb(path), rng))
        else:
            shutil.copyfile(path, arguments.spoiled / f'{stem}{path.suffix}')


if __name__ == '__main__':
    main()
