"""Dataset distillation for super-resolution as a plugin of BasicSR.

Importing this package is cheap (no torch): it prepares the host for today's libraries, and the plugin's archs,
datasets, losses, metrics and models are registered as soon as anyone imports ``basicsr``.
"""

from basicsr_distill.host.hooks import install as _prepare_host

__version__ = '0.2.0'

_prepare_host()
