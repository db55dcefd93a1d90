"""Metrics; importing this package registers them with BasicSR."""

from basicsr_distill.metrics import lpips_metric

__all__ = ['lpips_metric']
