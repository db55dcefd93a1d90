"""Real patches chosen from the pool and published as a set, in the format of a drawn one."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from basicsr_distill.config.recipe import Recipe
from basicsr_distill.io.arrays import read_arrays
from basicsr_distill.io.inputs import file_inputs
from basicsr_distill.runtime import distributed
from basicsr_distill.runtime.parallel import one_thread_per_operation
from basicsr_distill.stages.record import StagePlan, StageResult, StageRun, photo_folders, refuse_overlap
from basicsr_distill.stages.select.choose import choose, read_scores
from basicsr_distill.stages.select.pool import Pool, encode_pool, open_pool, read_features
from basicsr_distill.stages.select.publish import publish
from basicsr_distill.stages.select.small_network import measure_losses
from basicsr_distill.stages.sharding import save_part, shared_stage_folder

_LOSSES_NAME = 'losses.npz'


def run(recipe: Recipe) -> StageResult:
    """Choose and publish real patches.

    Returns:
        Its folder, ``select.save_dir``, holds HR/, LR_bicubic/X<scale>/, manifest.csv, meta_info.txt, metadata.csv,
        README.md, montage.png and stage.json.

    Raises:
        InputError: the stages before have not been run, more patches are asked for than there are, or the folder holds
            the work of other options or inputs.
        OSError: the disk is full.
    """
    options = recipe.select
    assert options is not None
    pool = _open_pool(recipe)
    # What can be refused at once is, before features are computed.
    scores = read_scores(options.scores, pool) if options.scores else None
    with shared_stage_folder(_plan(recipe, pool)) as stage:
        if not stage.finished:
            with one_thread_per_operation():
                _select(recipe, pool, scores, stage)
    return stage.result


def plan(recipe: Recipe) -> StagePlan:
    """Return what the stage is asked to make.

    Raises:
        InputError: the stages before have not been run, or the folder cannot be used.
    """
    return _plan(recipe, _open_pool(recipe))


def _open_pool(recipe: Recipe) -> Pool:
    assert recipe.extract is not None and recipe.select is not None
    patches = Path(recipe.extract.save_dir)
    refuse_overlap(recipe.select.save_dir, photo_folders(patches), 'select.save_dir')
    return open_pool(patches, Path(recipe.cluster.save_dir) if recipe.cluster else None)


def _plan(recipe: Recipe, pool: Pool) -> StagePlan:
    options = recipe.select
    assert options is not None
    return StagePlan(
        Path(options.save_dir),
        'select',
        options.model_dump(mode='json'),
        {**pool.fingerprints(), **file_inputs(options, 'select')},
    )


def _select(recipe: Recipe, pool: Pool, scores: NDArray[np.float64] | None, stage: StageRun) -> None:
    """Encode on every rank; rank 0 chooses and publishes."""
    options = recipe.select
    assert options is not None
    stage.parts.mkdir(exist_ok=True)
    with distributed.broadcast_failure():
        encode_pool(options, pool, stage.parts)
    with distributed.broadcast_failure():
        if distributed.is_main():
            if options.method == 'loss':
                scores = _losses(recipe, pool, stage.parts / _LOSSES_NAME)
            features = read_features(options, pool, stage.parts)
            chosen = choose(options, pool, list(features.values())[-1], scores)
            publish(options, recipe.name, pool, chosen, features, stage)


def _losses(recipe: Recipe, pool: Pool, path: Path) -> NDArray[np.float64]:
    """Losses of a small network, kept for a run that was interrupted after them."""
    assert recipe.select is not None
    if not path.is_file():
        losses = measure_losses(
            len(pool.rows), pool.image, recipe.select.scale, recipe.select.loss_iter, recipe.select.seed
        )
        save_part(path, {'losses': losses})
    return read_arrays(path)['losses']
