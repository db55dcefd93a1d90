"""Sections of BasicSR's dictionary that name a registered component."""

from collections.abc import Callable, Iterator
from typing import Any

from basicsr.utils.registry import ARCH_REGISTRY, LOSS_REGISTRY, METRIC_REGISTRY, Registry


def component_sections(opt: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any], Registry]]:
    """Networks, losses and metrics: the key, the section, the registry."""
    yield from (
        (key, value, ARCH_REGISTRY)
        for key, value in opt.items()
        if key.startswith('network_') and isinstance(value, dict)
    )
    yield from (
        (f'train.{key}', value, LOSS_REGISTRY)
        for key, value in (opt.get('train') or {}).items()
        if key.endswith('_opt') and isinstance(value, dict) and 'type' in value
    )
    yield from (
        (f'val.metrics.{key}', value, METRIC_REGISTRY)
        for key, value in ((opt.get('val') or {}).get('metrics') or {}).items()
    )


def find_component(name: Any, registry: Registry) -> Callable[..., Any] | None:
    """The component of a name as BasicSR finds it: its own doubles carry a suffix."""
    entries = dict(iter(registry))
    return entries.get(name) or entries.get(f'{name}_basicsr')
