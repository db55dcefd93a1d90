#!/usr/bin/env python3
"""Copy the photographs of the package and of scikit-image into demo/photos/{train,test}."""

import shutil
import sys
from pathlib import Path

import skimage

import basicsr_distill

OURS = Path(basicsr_distill.__file__).parent / 'photos'
THEIRS = Path(skimage.__file__).parent / 'data'
TRAIN = (
    THEIRS / 'astronaut.png',
    THEIRS / 'chelsea.png',
    THEIRS / 'coffee.png',
    THEIRS / 'motorcycle_left.png',
    THEIRS / 'rocket.jpg',
    OURS / 'casa-mila.jpg',
    OURS / 'lake-sherburne.jpg',
    OURS / 'singaporean-cityscape.jpg',
    OURS / 'the-spices-of-life.jpg',
)
TEST = (OURS / 'oakland-zoo-otters.jpg', OURS / 'roman-colosseum.jpg')


def main(target: Path) -> None:
    for split, photos in {'train': TRAIN, 'test': TEST}.items():
        folder = target / split
        folder.mkdir(parents=True, exist_ok=True)
        for photo in photos:
            shutil.copyfile(photo, folder / photo.name)


if __name__ == '__main__':
    main(Path(sys.argv[1] if len(sys.argv) > 1 else 'demo/photos'))
