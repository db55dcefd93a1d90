"""Where two sets of options differ."""

from collections.abc import Iterator
from typing import Any


def differences(old: Any, new: Any, name: str = '') -> Iterator[tuple[str, Any, Any]]:
    """The keys at which two nested dictionaries differ; an absent key, and an absent section, is null.

    Yields:
        The dotted key, the old value, the new value; in the order of the keys.
    """
    if isinstance(old, dict) or isinstance(new, dict):
        old, new = (value if isinstance(value, dict) else {} if value is None else {'': value} for value in (old, new))
        for key in sorted(old.keys() | new.keys()):
            yield from differences(old.get(key), new.get(key), '.'.join(part for part in (name, key) if part))
    elif old != new:
        yield name, old, new


def describe(found: list[tuple[str, Any, Any]]) -> str:
    """Return the edits as ``key: was old, now new; ...``."""
    return '; '.join(f'{name}: was {old!r}, now {new!r}' for name, old, new in found)
