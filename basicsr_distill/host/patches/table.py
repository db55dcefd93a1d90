"""The table of patches to BasicSR 1.4.2: where it breaks, why, and what stands there instead.

Each entry makes a replacement from the host's function, which stays reachable as ``replacement.host_original``.
Paths in ``where`` are relative to the host's folder, lines are those of the 1.4.2 sdist.
"""

import functools
import importlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

HostFunction = Callable[..., Any]


@dataclass(frozen=True)
class HostPatch:
    """One patch."""

    target: str  # 'module:function' or 'module:Class.method'
    where: str  # file:line of the defect in the host
    cause: str  # what changed, or was always wrong
    breaks: str  # the command that fails, or errs in silence, without it
    make: Callable[[HostFunction], HostFunction]  # the replacement, given what it replaces

    @property
    def name(self) -> str:
        """The target without its module."""
        return self.target.split(':')[1]

    def resolve(self) -> tuple[Any, str]:
        """The module or class that holds the target, and the target's name there.

        Raises:
            ImportError: the host lacks it.
        """
        module_name, qualified_name = self.target.split(':')
        *class_name, name = qualified_name.split('.')
        owner: Any = importlib.import_module(module_name)
        for attribute in class_name:
            owner = getattr(owner, attribute, None)
        if not hasattr(owner, name):
            raise ImportError(f'it lacks {self.target}', name=module_name)
        return owner, name

    def apply(self) -> None:
        """Put the replacement in place, also where the host's modules imported the function by name; once only."""
        owner, name = self.resolve()
        original = getattr(owner, name)
        if hasattr(original, 'host_original'):
            return
        replacement = functools.update_wrapper(self.make(original), original)
        vars(replacement)['host_original'] = original
        setattr(owner, name, replacement)
        if isinstance(owner, ModuleType):
            for module in _host_modules():
                for alias in [key for key, value in vars(module).items() if value is original]:
                    setattr(module, alias, replacement)


def _host_modules() -> Iterator[ModuleType]:
    for name, module in list(sys.modules.items()):
        if name.split('.')[0] == 'basicsr' and isinstance(module, ModuleType):
            yield module


PATCHES: list[HostPatch] = []


def patch(target: str, where: str, cause: str, breaks: str) -> Callable[[Callable[[HostFunction], HostFunction]], Any]:
    """Add the decorated maker to the table."""

    def add(make: Callable[[HostFunction], HostFunction]) -> Callable[[HostFunction], HostFunction]:
        PATCHES.append(HostPatch(target, where, cause, breaks, make))
        return make

    return add


def apply_all() -> list[HostPatch]:
    """Patch the host; a second call changes nothing.

    Returns:
        The patches in force.

    Raises:
        ImportError: the host lacks a function of the table; then nothing is changed.
    """
    for patch in PATCHES:
        patch.resolve()
    for patch in PATCHES:
        patch.apply()
    return PATCHES
