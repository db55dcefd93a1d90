"""What the plugin adds to BasicSR's registries."""

import importlib

# Importing each of these runs the decorators of its modules.
COMPONENT_PACKAGES = (
    'basicsr_distill.archs',
    'basicsr_distill.data',
    'basicsr_distill.losses',
    'basicsr_distill.metrics',
    'basicsr_distill.models',
)


def register_all() -> None:
    """Register the plugin's archs, datasets, losses, metrics and models with BasicSR."""
    for name in COMPONENT_PACKAGES:
        importlib.import_module(name)
