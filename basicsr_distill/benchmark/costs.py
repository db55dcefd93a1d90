"""How long the stages of a benchmark's recipes and sets took, kept beside their option files.

A record of a stage has no times, since equal work leaves equal records.
"""

from collections.abc import Iterable
from pathlib import Path

from basicsr_distill.benchmark.sets import stage_folder
from basicsr_distill.config.recipe import Recipe
from basicsr_distill.io.manifest import read_json, write_json
from basicsr_distill.stages.record import STAGE_NAME, fingerprint_stage

_NAME = 'costs.json'


def write_cost(home: Path, recipe: Recipe, stage: str, seconds: float) -> None:
    """Note what a stage took that has just finished; ``home`` is the folder of the recipe's option file."""
    made = fingerprint_stage(stage_folder(recipe, stage))
    write_json(home / _NAME, {**read_json(home / _NAME), stage: {'made': made, 'seconds': round(seconds, 1)}})


def read_cost(home: Path, recipe: Recipe, stages: Iterable[str]) -> float | None:
    """Seconds that some stages took; None where one of them was made before, or elsewhere."""
    costs, total = read_json(home / _NAME), 0.0
    for stage in stages:
        folder, cost = stage_folder(recipe, stage), costs.get(stage, {})
        if not (folder / STAGE_NAME).is_file() or cost.get('made') != fingerprint_stage(folder):
            return None
        total += cost['seconds']
    return total
