"""Metrics, in ``*_metric.py``; ``host.registration`` registers them with BasicSR."""
