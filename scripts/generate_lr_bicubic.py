#!/usr/bin/env python3
"""Make MATLAB-compatible bicubic LR images for any folder of HR images.

python scripts/generate_lr_bicubic.py --input datasets/Set5 --output datasets/Set5_LR_bicubic/X4 --scale 4

With --lmdb the images are packed as well, to OUTPUT.lmdb, the partner of the images.lmdb of an extract stage.
"""

import argparse
import sys
from pathlib import Path

from basicsr_distill.errors import InputError
from basicsr_distill.stages.lr_folder import generate_lr_folder, pack_lr_folder


def main() -> int:
    parser = argparse.ArgumentParser(
        description='Crop HR images to a multiple of the scale and downsample them, as MATLAB does.'
    )
    parser.add_argument('--input', type=Path, required=True, help='folder of HR images, searched recursively')
    parser.add_argument('--output', type=Path, required=True, help='folder for the LR images')
    parser.add_argument('--scale', type=int, default=4)
    parser.add_argument('--filename_tmpl', default='{}', help="of the LR names, for example '{}x4' for DIV2K's")
    parser.add_argument('--cropped', type=Path, help='folder for the cropped HR images, where they are wanted')
    parser.add_argument('--lmdb', action='store_true', help='also pack the LR images, to OUTPUT.lmdb')
    args = parser.parse_args()
    try:
        count = generate_lr_folder(args.input, args.output, args.scale, args.filename_tmpl, args.cropped)
        packed = pack_lr_folder(args.output) if args.lmdb else None
    except InputError as error:
        print(f'generate_lr_bicubic: {error}', file=sys.stderr)
        return 2
    print(f'{count} LR images written to {args.output}{f" and packed in {packed}" if packed else ""}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
