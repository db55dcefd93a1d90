"""The third stage: ``basicsr train`` on the recipe's own root keys, always resuming."""

from pathlib import Path

from basicsr_distill.config import registry
from basicsr_distill.config.experiment import Experiment, to_experiment
from basicsr_distill.config.recipe import Recipe
from basicsr_distill.errors import InputError
from basicsr_distill.io.inputs import training_inputs
from basicsr_distill.runtime import distributed
from basicsr_distill.runtime.device import resolve_num_gpu
from basicsr_distill.runtime.interrupts import uninterrupted_imports
from basicsr_distill.stages.record import StagePlan, StageResult, fingerprint_stage
from basicsr_distill.stages.sharding import shared_stage_folder

# How often to log, save or validate does not change what is trained; what num_gpu does is in the batch.
_FREE_KEYS = {'logger', 'val', 'num_gpu'}
_CHECKPOINT = 'models/net_g_latest.pth'


def run(recipe: Recipe) -> StageResult:
    """Train the recipe's diffusion model, or its latent images (GSDD), in ``experiments/<name>``.

    Args:
        recipe: whose root keys are such a training.

    Returns:
        Its folder is the experiment's, with ``stage.json`` beside BasicSR's own files.

    Raises:
        InputError: the recipe is wrong, or the folder holds the work of other options or inputs.
    """
    experiment, asked = _plan(recipe)
    with shared_stage_folder(asked) as stage:
        if not stage.finished:
            _train(experiment)
            with distributed.broadcast_failure():
                if distributed.is_main():
                    stage.finish({'iterations': experiment.opt['train']['total_iter']}, [_CHECKPOINT])
    return stage.result


def plan(recipe: Recipe) -> StagePlan:
    """Return what the stage is asked to make.

    Raises:
        InputError: the recipe is wrong, or the stages before have not been run.
    """
    return _plan(recipe)[1]


def _plan(recipe: Recipe) -> tuple[Experiment, StagePlan]:
    experiment = to_experiment(recipe, is_train=True, root=Path.cwd(), auto_resume=True)
    opt = experiment.opt
    train_set = opt['datasets']['train']
    if train_set['type'] not in ('LatentPatchDataset', 'LabelledPatchDataset'):
        raise InputError(
            f'{recipe.path}: datasets.train.type: must be LatentPatchDataset to fine-tune a diffusion model, '
            'or LabelledPatchDataset for GSDD.'
        )
    inputs = {
        key: fingerprint_stage(Path(train_set[key]) if key == 'dataroot' else Path(train_set[key]).parent)
        for key in ('dataroot', 'labels_file')
    } | training_inputs(recipe)
    trained = {
        key: value
        for key, value in recipe.options.items()
        if key not in _FREE_KEYS and key not in registry.models('stage')
    }
    opt['num_gpu'] = resolve_num_gpu(opt['num_gpu'])
    trained['global_batch'] = train_set['batch_size_per_gpu'] * max(distributed.world_size(), opt['num_gpu'], 1)
    return experiment, StagePlan(Path(opt['path']['experiments_root']), 'finetune', trained, inputs)


def _train(experiment: Experiment) -> None:
    with uninterrupted_imports():
        from basicsr_distill.host import hooks

        hooks.require_host()
        from basicsr_distill.training.train import train

    train(experiment, as_stage=True)
