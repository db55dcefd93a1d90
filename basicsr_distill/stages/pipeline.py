"""The stages of a recipe, run in the order of the method."""

import logging
from collections.abc import Sequence
from pathlib import Path

from basicsr_distill.config.experiment import to_experiment
from basicsr_distill.config.recipe import Recipe
from basicsr_distill.stages.record import STAGE_NAME, read_stage

log = logging.getLogger(__name__)


def distill(recipe: Recipe, stages: Sequence[str] | None = None) -> None:
    """Run stages in the order of the method; finished ones are skipped.

    Every section that will be needed is checked before the first stage starts.

    Args:
        recipe: a checked recipe.
        stages: names of stages; when None, those whose sections the recipe has.

    Raises:
        InputError: the recipe or what it points to is wrong.
    """
    stages = recipe.stages if stages is None else stages
    recipe.require(stages)
    if {'finetune', 'sample'} & set(stages):
        recipe.check_agreement()
    if 'finetune' in stages:
        _check_training(recipe)
    if 'extract' in stages and recipe.extract:
        from basicsr_distill.stages.extract import stage as extract

        _log_counts('extract', extract.run(recipe.extract))
    if 'cluster' in stages and recipe.cluster and recipe.extract:
        from basicsr_distill.stages import cluster

        _log_counts('cluster', cluster.run(recipe.cluster, Path(recipe.extract.save_dir)))
    if 'finetune' in stages:
        from basicsr_distill.stages import finetune

        _log_counts('finetune', finetune.run(recipe))
    if 'sample' in stages and recipe.sample:
        from basicsr_distill.stages.sample import stage as sample

        _log_counts('sample', sample.run(recipe.sample, to_experiment(recipe, is_train=True, root=Path.cwd()).opt))


def _check_training(recipe: Recipe) -> None:
    """Refuse misspelt keys of BasicSR's components before the first stage; a finished training is not looked at."""
    if not Path('experiments', recipe.name, STAGE_NAME).is_file():
        from basicsr_distill.host.hooks import require_host

        require_host()
        from basicsr_distill.training.keys import check_components

        check_components(recipe)


def _log_counts(stage: str, folder: Path) -> None:
    counts = {name.replace('_', ' '): count for name, count in read_stage(folder)['counts'].items() if count}
    log.info('%-8s %s: %s', stage, folder, ', '.join(f'{name} {count}' for name, count in counts.items()))
