"""Datasets, in ``*_dataset.py``; ``host.registration`` registers them with BasicSR."""
