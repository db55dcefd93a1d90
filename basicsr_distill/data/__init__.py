"""Datasets, in ``*_dataset.py``; ``host.hooks`` registers them with BasicSR."""
