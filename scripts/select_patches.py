"""Run the select stage of a recipe: ``python scripts/select_patches.py -opt options/distill/coreset_OST.yml``."""

import sys

from basicsr_distill.cli import main

if __name__ == '__main__':
    sys.exit(main(['distill', *sys.argv[1:], '--stage', 'select']))
