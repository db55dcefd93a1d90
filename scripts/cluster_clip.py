"""Run the cluster stage of a recipe: ``python scripts/cluster_clip.py -opt options/distill/demo.yml``."""

import sys

from basicsr_distill.cli import main

if __name__ == '__main__':
    sys.exit(main(['distill', *sys.argv[1:], '--stage', 'cluster']))
