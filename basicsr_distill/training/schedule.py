"""Learning-rate schedules that would end in a traceback, some of them days later."""

from pathlib import Path
from typing import Any

from basicsr_distill.errors import InputError


def check_schedule(path: Path, opt: dict[str, Any]) -> None:
    """Refuse a ``train.scheduler`` whose lists do not fit each other or the length of the training.

    Raises:
        InputError: names the key.
    """
    section = opt['train']['scheduler']
    where = f'{path}: train.scheduler'
    if section['type'] == 'CosineAnnealingRestartLR':
        _check_numbers(section, where, 'periods', lowest=1)
        _check_numbers(section, where, 'restart_weights', lowest=0)
        _check_lengths(section, where, 'periods', default=None)
        total = opt['train']['total_iter']
        # The last step of the scheduler is that of iteration total - 1.
        if sum(section['periods']) < total - 1:
            raise InputError(
                f'{where}.periods: {section["periods"]} end at iteration {sum(section["periods"])}, before '
                f'total_iter: {total}; let them add up to {total}.'
            )
    else:
        for key in ('milestones', 'restarts', 'restart_weights'):
            _check_numbers(section, where, key, lowest=0)
        _check_lengths(section, where, 'restarts', default=[0])


def _check_numbers(section: dict[str, Any], where: str, key: str, lowest: int) -> None:
    values = section.get(key, [])
    if not isinstance(values, (list, tuple)) or not all(
        isinstance(value, (int, float)) and not isinstance(value, bool) and value >= lowest for value in values
    ):
        raise InputError(f'{where}.{key}: {values!r} is not a list of numbers of at least {lowest}.')


def _check_lengths(section: dict[str, Any], where: str, key: str, default: list[int] | None) -> None:
    values, weights = section.get(key, default), section.get('restart_weights', [1])
    if not values or len(values) != len(weights):
        raise InputError(f'{where}.restart_weights: {weights!r} must have one number for each of {key}: {values!r}.')
