"""Losses, in ``*_loss.py``; ``host.registration`` registers them with BasicSR."""
