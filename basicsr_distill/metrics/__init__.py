"""Metrics, in ``*_metric.py``; ``host.hooks`` registers them with BasicSR."""
