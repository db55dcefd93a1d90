"""Paths in option files: ``~/`` is the home folder in whatever key it stands."""

import os
import re
from typing import Any

from basicsr_distill.errors import InputError

# Values may carry a prefix, as open_clip's ``local-dir:``.
_HOME = re.compile(r'^(local-dir:)?(~[^/\s]*)(?=/|$)')
_VARIABLE = re.compile(r'\$\w+|\$\{\w+\}')


def expand_paths(value: Any, where: str) -> Any:
    """Copy an option file's content with ``~/`` replaced in every text.

    Args:
        value: the content, or a part of it.
        where: how messages name the place; keys are added to it.

    Raises:
        InputError: a text looks like a path with a shell variable, which nothing would replace.
    """
    if isinstance(value, dict):
        return {
            key: expand_paths(entry, f'{where}: {key}' if ': ' not in where else f'{where}.{key}')
            for key, entry in value.items()
        }
    if isinstance(value, list):
        return [expand_paths(entry, where) for entry in value]
    if not isinstance(value, str):
        return value
    if '/' in value and (variable := _VARIABLE.search(value)):
        raise InputError(
            f'{where}: {value}: variables such as {variable[0]} are not replaced; write the whole path, or '
            '~/ for the home folder.'
        )
    if home := _HOME.match(value):
        return (home[1] or '') + os.path.expanduser(value[home.end(1) if home[1] else 0 :])
    return value
