"""Run the extract stage of a recipe: ``python scripts/extract_threshold_patches.py -opt options/distill/demo.yml``."""

import sys

from basicsr_distill.cli import main

if __name__ == '__main__':
    sys.exit(main(['distill', *sys.argv[1:], '--stage', 'extract']))
