"""Patches to BasicSR 1.4.2, by what they are about; importing this package fills the table."""

from basicsr_distill.host.patches import checkpoints, data, devices, images, libraries, metrics

__all__ = ['checkpoints', 'data', 'devices', 'images', 'libraries', 'metrics']
