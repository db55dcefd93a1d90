"""Low-resolution partners of a folder of images: cropped to a multiple of the scale, then MATLAB's bicubic.

    python scripts/generate_lr_bicubic.py --input datasets/DIV2K/DIV2K_train_HR \
        --output datasets/DIV2K/DIV2K_train_LR_bicubic/X4 --scale 4

Names and subfolders are kept, with the suffix .png; files that are already there are left as they are. The cropped
high-resolution images are written too where ``--modcrop_output`` says: training sets need both of matching size.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from basicsr_distill.errors import InputError
from basicsr_distill.images import FoundImage, find_images, is_whole_png, read_rgb, write_png
from basicsr_distill.ops.bicubic import make_lr
from basicsr_distill.parallel import default_workers, one_thread_per_operation, ordered_map


def generate(source: Path, target: Path, scale: int, modcrop: Path | None, num_workers: int) -> int:
    """Write the LR images of a folder.

    Returns:
        Number of images written; the others were there.

    Raises:
        InputError: no image is found, one cannot be read or is smaller than the scale, two would get one name, or the
            output lies inside the input.
    """
    images = find_images([source])
    if not images:
        raise InputError(f'{source}: no image found.')
    for folder in (target, *([modcrop] if modcrop else [])):
        if folder.resolve().is_relative_to(source.resolve()):
            raise InputError(f'{folder}: lies inside --input {source}; its images would be taken for sources.')
        folder.mkdir(parents=True, exist_ok=True)
    names = {image: Path(image.relative).with_suffix('.png') for image in images}
    name, count = Counter(names.values()).most_common(1)[0]
    if count > 1:
        raise InputError(f'{source}: {count} images would become {name}; rename them.')

    def write(image: FoundImage) -> bool:
        outputs = [target / names[image], *([modcrop / names[image]] if modcrop else [])]
        if all(is_whole_png(path) for path in outputs):
            return False
        rgb = read_rgb(image.path)
        height, width = (side - side % scale for side in rgb.shape[:2])
        if not height or not width:
            raise InputError(f'{image.path}: {rgb.shape[1]}x{rgb.shape[0]} pixels are fewer than the scale {scale}.')
        hr = rgb[:height, :width]
        for path, result in zip(outputs, (make_lr(hr, scale), hr)):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_png(path, result)
        return True

    with one_thread_per_operation():
        return sum(tqdm(ordered_map(write, images, num_workers), total=len(images), unit='image', disable=None))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line: 0 done, 2 the input is wrong (one line on stderr)."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--input', type=Path, required=True, metavar='FOLDER', help='high-resolution images')
    parser.add_argument('--output', type=Path, required=True, metavar='FOLDER', help='where the LR images go')
    parser.add_argument('--scale', type=int, choices=[2, 3, 4, 8], default=4)
    parser.add_argument('--modcrop_output', type=Path, metavar='FOLDER', help='where the cropped HR images go')
    parser.add_argument('--num_workers', type=int, default=default_workers(), metavar='N', help='threads')
    args = parser.parse_args(arguments)
    try:
        written = generate(args.input, args.output, args.scale, args.modcrop_output, max(1, args.num_workers))
    except InputError as error:
        print(f'generate_lr_bicubic: {error}', file=sys.stderr)
        return 2
    print(f'{written} images written to {args.output}.')
    return 0


if __name__ == '__main__':
    sys.exit(main())
