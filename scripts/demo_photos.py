#!/usr/bin/env python3
"""Copy scikit-image's bundled colour photographs into demo/photos/{train,test}."""

import shutil
import sys
from pathlib import Path

import skimage

TRAIN = ('astronaut.png', 'rocket.jpg', 'motorcycle_left.png', 'hubble_deep_field.jpg', 'ihc.png')
TEST = ('chelsea.png', 'coffee.png')


def main(target: Path) -> None:
    source = Path(skimage.__file__).parent / 'data'
    for split, names in {'train': TRAIN, 'test': TEST}.items():
        folder = target / split
        folder.mkdir(parents=True, exist_ok=True)
        for name in names:
            shutil.copyfile(source / name, folder / name)


if __name__ == '__main__':
    main(Path(sys.argv[1] if len(sys.argv) > 1 else 'demo/photos'))
