"""Patches to BasicSR 1.4.2, by what they are about; importing this package fills the table."""

from basicsr_distill.host.patches import checkpoints, data, devices, libraries, results

__all__ = ['checkpoints', 'data', 'devices', 'libraries', 'results']
