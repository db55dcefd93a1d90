"""Networks, in ``*_arch.py``; ``host.registration`` registers them with BasicSR."""
