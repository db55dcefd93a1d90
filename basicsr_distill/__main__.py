"""``python -m basicsr_distill`` is the ``basicsr`` command."""

import sys

from basicsr_distill.cli import main

if __name__ == '__main__':
    sys.exit(main())
