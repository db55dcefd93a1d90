"""``python -m basicsr_distill`` is the ``basicsr`` command."""

from basicsr_distill.cli import command

if __name__ == '__main__':
    command()
