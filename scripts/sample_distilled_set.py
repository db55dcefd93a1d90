"""Run the sample stage of a recipe: ``python scripts/sample_distilled_set.py -opt options/distill/demo.yml``."""

import sys

from basicsr_distill.cli import main

if __name__ == '__main__':
    sys.exit(main(['distill', *sys.argv[1:], '--stage', 'sample']))
