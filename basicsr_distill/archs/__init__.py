"""Networks, in ``*_arch.py``; ``host.hooks`` registers them with BasicSR."""
