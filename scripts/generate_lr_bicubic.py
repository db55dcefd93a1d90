#!/usr/bin/env python3
"""Make MATLAB-compatible bicubic LR images for any folder of HR images.

python scripts/generate_lr_bicubic.py --input datasets/Set5 --output datasets/Set5_LR_bicubic/X4 --scale 4
"""

import argparse
import sys
from pathlib import Path

from basicsr_distill.errors import InputError
from basicsr_distill.stages.lr_folder import generate_lr_folder


def main() -> int:
    parser = argparse.ArgumentParser(description='Crop HR images to a multiple of the scale and downsample them, as MATLAB does.')
    parser.add_argument('--input', type=Path, required=True, help='folder of HR images, searched recursively')
    parser.add_argument('--output', type=Path, required=True, help='folder for the LR images')
    parser.add_argument('--scale', type=int, default=4)
    parser.add_argument('--filename_tmpl', default='{}', help="of the LR names, for example '{}x4' for DIV2K's")
    parser.add_argument('--cropped', type=Path, help='folder for the cropped HR images, where they are wanted')
    args = parser.parse_args()
    try:
        count = generate_lr_folder(args.input, args.output, args.scale, args.filename_tmpl, args.cropped)
    except InputError as error:
        print(f'generate_lr_bicubic: {error}', file=sys.stderr)
        return 2
    print(f'{count} LR images written to {args.output}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
