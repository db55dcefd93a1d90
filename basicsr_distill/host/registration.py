"""What the plugin adds to BasicSR's registries: what lies in its component packages under BasicSR's file names."""

import importlib
import pkgutil

# A package, and how the names of its modules of components end.
COMPONENT_PACKAGES = {
    'basicsr_distill.archs': '_arch',
    'basicsr_distill.data': '_dataset',
    'basicsr_distill.losses': '_loss',
    'basicsr_distill.metrics': '_metric',
    'basicsr_distill.models': '_model',
}


def register_all() -> None:
    """Import every ``*_arch.py``, ``*_dataset.py``, ... of the plugin, which registers what is in it with BasicSR."""
    for name, suffix in COMPONENT_PACKAGES.items():
        for module in sorted(found.name for found in pkgutil.iter_modules(importlib.import_module(name).__path__)):
            if module.endswith(suffix):
                importlib.import_module(f'{name}.{module}')
