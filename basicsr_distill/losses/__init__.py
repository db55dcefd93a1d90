"""Losses, in ``*_loss.py``; ``host.hooks`` registers them with BasicSR."""
