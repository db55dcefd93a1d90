"""The one place that knows the host's age: BasicSR 1.4.2 (2022) on today's Python and libraries.

:func:`install` puts two finders on ``sys.meta_path`` and imports nothing. When somebody imports ``basicsr``, modules
that have since disappeared are answered for, and once the host is there it is checked, patched (``host.patches``) and
given the plugin's components: what lies in its component packages under BasicSR's file names.
"""

import importlib
import importlib.util
import logging
import pkgutil
import sys
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING

from basicsr_distill.errors import InputError

if TYPE_CHECKING:
    from basicsr_distill.host.patches.table import HostPatch

HOST = 'basicsr'
HOST_VERSION = '1.4.2'
# Named, not imported: a module run with -m must not be imported before.
_BUILD = 'python -m basicsr_distill.host.build'
# A package, and how the names of its modules of components end.
COMPONENT_PACKAGES = {
    'basicsr_distill.archs': '_arch',
    'basicsr_distill.data': '_dataset',
    'basicsr_distill.losses': '_loss',
    'basicsr_distill.metrics': '_metric',
    'basicsr_distill.models': '_model',
}
_FORKED_ARCHS = ('SRFormer', 'HiT_SIR', 'HiT_SNG', 'HiT_SRF')
# The patches in force; none before the host is imported.
HOST_PATCHES: list['HostPatch'] = []
_LOGGER = logging.getLogger('basicsr_distill')


class HostError(ImportError):
    """The module that answers to ``basicsr`` is missing or is not BasicSR 1.4.2."""


def install() -> None:
    """Prepare for the host's import, whoever makes it; a host imported before is completed at once.

    Costs microseconds and may be called again.

    Raises:
        HostError: a wrong ``basicsr`` is imported already.
    """
    if any(isinstance(finder, _HostHook) for finder in sys.meta_path):
        return
    sys.meta_path.insert(0, _HostHook())
    sys.meta_path.append(_AliasFinder())  # last, so that a real module always wins
    if HOST in sys.modules:
        _complete_host(sys.modules[HOST])


def require_host() -> None:
    """Import the host for a command that needs it.

    Raises:
        InputError: BasicSR is not installed, or a fork stands in its place; the message holds the remedy.
    """
    if importlib.util.find_spec(HOST) is None:
        raise InputError(host_missing_message())
    try:
        importlib.import_module(HOST)
    except HostError as error:
        raise InputError(str(error)) from error


def host_missing_message() -> str:
    """Say how to get BasicSR: by the command that builds it on every Python."""
    return f'BasicSR is not installed: run `{_BUILD}` (it builds BasicSR {HOST_VERSION}, on Python 3.13 and newer too).'


def fix_main_spec(module: str = 'basicsr_distill.cli') -> None:
    """Let spawned data workers start with the plugin in place.

    A spawned worker first imports the parent's main module, then unpickles the dataset, which imports ``basicsr``. But
    for ``python -m package`` and ``python -c`` multiprocessing imports no main module at all (``_fixup_main_from_name``
    skips ``*.__main__``), so the host would be imported without its patches, and the worker would die.

    Args:
        module: imported by the workers instead; must be safe to import.
    """
    main = sys.modules['__main__']
    spec = getattr(main, '__spec__', None)
    if spec.name.endswith('__main__') if spec is not None else not hasattr(main, '__file__'):
        main.__spec__ = importlib.util.find_spec(module)


def _complete_host(host: ModuleType) -> None:
    """Check the freshly executed host, patch it and register the plugin's components."""
    _check_host(host)
    try:
        from basicsr_distill.host.patches import table

        HOST_PATCHES[:] = table.apply_all()
    except ImportError as error:
        if not (error.name or '').startswith(f'{HOST}.'):
            raise
        raise HostError(_wrong_host(host, str(error)), name=HOST) from error
    _LOGGER.debug('host: BasicSR %s at %s', HOST_VERSION, host.__file__)
    _register_components()


def _register_components() -> None:
    """Import every ``*_arch.py``, ``*_dataset.py``, ... of the plugin, which registers what is in it with BasicSR."""
    for name, suffix in COMPONENT_PACKAGES.items():
        for module in sorted(found.name for found in pkgutil.iter_modules(importlib.import_module(name).__path__)):
            if module.endswith(suffix):
                importlib.import_module(f'{name}.{module}')


def _check_host(host: ModuleType) -> None:
    """Refuse another release, and the changed copies named ``basicsr`` inside the SRFormer and HiT-SR repositories."""
    version = getattr(host, '__version__', 'unknown')
    if version != HOST_VERSION:
        raise HostError(_wrong_host(host, f'its version is {version}'), name=HOST)
    from basicsr.utils.registry import ARCH_REGISTRY

    own = [
        name
        for name in _FORKED_ARCHS
        if name in ARCH_REGISTRY and ARCH_REGISTRY.get(name).__module__.startswith(f'{HOST}.')
    ]
    if own:
        raise HostError(_wrong_host(host, f'it brings its own {own[0]}'), name=HOST)


def _wrong_host(host: ModuleType, reason: str) -> str:
    place = getattr(host, '__file__', None) or list(host.__path__)
    return (
        f'{place} is not BasicSR {HOST_VERSION} ({reason}). The SRFormer and HiT-SR repositories ship a changed '
        f'copy under the same name: run from another folder, or uninstall the copy and '
        f'run `{_BUILD}`.'
    )


class _HostHook(MetaPathFinder):
    """Completes the host after its import, and has it imported before the plugin's own components.

    The latter breaks a circle: a component that imports the host first, half-way through itself, would be asked for
    again by :func:`_register_components`.
    """

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Wrap the loader that the other finders agree on."""
        if name != HOST and name not in COMPONENT_PACKAGES:
            return None
        specs = (finder.find_spec(name, path, target) for finder in sys.meta_path if finder is not self)
        spec = next((spec for spec in specs if spec is not None), None)
        if spec is not None and spec.loader is not None:
            spec.loader = _HostLoader(spec.loader) if name == HOST else _ComponentLoader(spec.loader)
        return spec


class _WrappedLoader(Loader):
    """Stands in for a module's loader until the module is executed."""

    def __init__(self, loader: Loader):
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """As the loader does."""
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """Give the module its loader back, for tools that read sources and resources, and execute it."""
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._loader.exec_module(module)


class _HostLoader(_WrappedLoader):
    def exec_module(self, module: ModuleType) -> None:
        """Execute the host, then complete it."""
        try:
            super().exec_module(module)
        except ModuleNotFoundError as error:
            if not (error.name or '').startswith(f'{HOST}.'):
                raise
            # A fork that was never installed lacks the generated version.py.
            raise HostError(_wrong_host(module, str(error)), name=HOST) from error
        _complete_host(module)


class _ComponentLoader(_WrappedLoader):
    def exec_module(self, module: ModuleType) -> None:
        """Import the host, then execute the component."""
        try:
            importlib.import_module(HOST)
        except ModuleNotFoundError as error:
            if error.name != HOST:
                raise
            raise HostError(host_missing_message(), name=HOST) from error
        super().exec_module(module)


def _functional_tensor() -> dict[str, object]:
    """Stand in for a module that torchvision 0.17 removed; basicsr/data/degradations.py:8 imports a function of it."""
    from torchvision.transforms.functional import rgb_to_grayscale

    return {'rgb_to_grayscale': rgb_to_grayscale}


def _distutils() -> dict[str, object]:
    """Python 3.12 removed the package (setuptools, where installed, still brings it)."""
    return {}


def _distutils_version() -> dict[str, object]:
    """basicsr/archs/arch_util.py:6 imports LooseVersion, to compare torchvision's version with 0.9."""
    from torch.torch_version import TorchVersion

    return {'LooseVersion': TorchVersion}


ALIASES: dict[str, Callable[[], dict[str, object]]] = {
    'torchvision.transforms.functional_tensor': _functional_tensor,
    'distutils': _distutils,
    'distutils.version': _distutils_version,
}


class _AliasFinder(MetaPathFinder):
    """Answers for modules that are gone."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """A module of :data:`ALIASES`, filled when it is imported."""
        contents = ALIASES.get(name)
        return None if contents is None else ModuleSpec(name, _AliasLoader(contents), is_package=name == 'distutils')


class _AliasLoader(Loader):
    def __init__(self, contents: Callable[[], dict[str, object]]):
        self._contents = contents

    def exec_module(self, module: ModuleType) -> None:
        """Fill the module."""
        vars(module).update(self._contents())
