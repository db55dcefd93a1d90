"""The examples in docstrings are true, and every public function of the rooms of maths has one."""

import doctest
import inspect
import pkgutil
from collections.abc import Callable
from importlib import import_module

import pytest

ROOMS = ('ops', 'selection', 'losses', 'diffusion')
# Rooms in which an example is asked of every public function and class.
COMPLETE = ('ops', 'selection', 'losses', 'diffusion')
# Without an example: what has its meaning inside a training (its functions have theirs), and what needs files.
EXCEPTIONS = {
    'BatchGradient',
    'MinimaxLoss',
    'Objective',
    'NoisedBatch',
    'Prediction',
    'training_cost',
    'Codec',
    'Denoiser',
    'build_codec',
    'save_fitted',
    'load_dit',
    'convert_original',
    'export_dit',
    'noise_errors',
    'sample_grid',
    'save_grid',
}


def modules(room: str) -> list[str]:
    package = import_module(f'basicsr_distill.{room}')
    return [info.name for info in pkgutil.walk_packages(package.__path__, f'{package.__name__}.')]


def public(name: str) -> list[Callable[..., object]]:
    """Functions and classes that a module defines under a name without underscore."""
    return [
        member
        for key, member in vars(import_module(name)).items()
        if not key.startswith('_')
        and (inspect.isclass(member) or inspect.isfunction(inspect.unwrap(member)))
        and member.__module__ == name
    ]


@pytest.mark.parametrize('name', [name for room in ROOMS for name in modules(room)])
def test_examples_are_true(name: str) -> None:
    assert doctest.testmod(import_module(name)).failed == 0


@pytest.mark.parametrize('name', [name for room in COMPLETE for name in modules(room)])
def test_public_functions_have_an_example(name: str) -> None:
    without = {member.__name__ for member in public(name) if '>>>' not in (inspect.getdoc(member) or '')}
    assert without <= EXCEPTIONS


def test_decorated_functions_are_seen() -> None:
    assert 'psnr_after_bicubic' in [member.__name__ for member in public('basicsr_distill.ops.psnr')]
