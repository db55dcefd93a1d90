"""What a cell's or a set's folder says about itself: ``plan.json`` before it is run, ``done.json`` after.

The plan holds the options and a fingerprint of every input; ``done.json`` holds the plan it was made by and the
results. A cell whose ``done.json`` has another plan is run again.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from basicsr_distill.config.differences import describe, differences
from basicsr_distill.io.files import write_atomic
from basicsr_distill.io.manifest import json_text, read_json, write_json

PLAN_NAME = 'plan.json'
DONE_NAME = 'done.json'
# The purpose of the lock that a job holds on its folder.
JOB_LOCK = 'job'
_SHOWN = 3


def is_finished(folder: Path) -> bool:
    """Whether what lies in a folder was made by the plan that lies there."""
    plan = read_json(folder / PLAN_NAME)
    return bool(plan) and read_json(folder / DONE_NAME).get('plan') == plan


def finish(folder: Path, results: Mapping[str, Any]) -> None:
    """Write ``done.json``."""
    write_json(folder / DONE_NAME, {'plan': read_json(folder / PLAN_NAME), **results})


def write_plan(home: Path, plan: Mapping[str, Any], files: Mapping[str, Mapping[str, Any]]) -> None:
    """Make a folder with its option files, by their names, and its plan."""
    home.mkdir(parents=True, exist_ok=True)
    for name, options in files.items():
        write_atomic(home / name, yaml.safe_dump(dict(options), sort_keys=False, allow_unicode=True))
    write_json(home / PLAN_NAME, plan)


def what_changed(folder: Path, plan: Mapping[str, Any]) -> str:
    """How a plan differs from the one that lies in a folder; empty where it does not, or where there is none."""
    earlier = read_json(folder / PLAN_NAME)
    found = list(differences(earlier, json.loads(json_text(plan)))) if earlier else []
    more = f' and {len(found) - _SHOWN} more' if len(found) > _SHOWN else ''
    return describe(found[:_SHOWN]) + more
