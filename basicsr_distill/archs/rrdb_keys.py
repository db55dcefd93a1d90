"""Old names of RRDBNet's weights, as in the official ESRGAN and RealSR checkpoints."""

import re
from collections.abc import Mapping
from typing import TypeVar

T = TypeVar('T')

_RENAMES = (
    (re.compile(r'\bRRDB_trunk\.(\d+)\.RDB(\d)\.'), r'body.\1.rdb\2.'),
    (re.compile(r'\btrunk_conv\.'), 'conv_body.'),
    (re.compile(r'\bupconv([12])\.'), r'conv_up\1.'),
    (re.compile(r'\bHRconv\.'), 'conv_hr.'),
)


def convert_rrdb_state_dict(state_dict: Mapping[str, T]) -> dict[str, T]:
    """Rename old-style RRDBNet keys to BasicSR's; keys of today's style (and foreign ones) stay as they are.

    Args:
        state_dict: Weights by name.

    Returns:
        A new dict with the same values in the same order.
    """
    converted = {}
    for key, value in state_dict.items():
        for pattern, name in _RENAMES:
            key = pattern.sub(name, key)
        converted[key] = value
    return converted
