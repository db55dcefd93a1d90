"""The training of ``basicsr train`` and of the finetune stage: everything up to the loop.

It drives BasicSR's datasets, models, losses, metrics and loggers, and corrects what its own ``train.py`` does to small
sets: training lasts exactly ``total_iter`` iterations, a batch that cannot be filled is refused, resuming continues the
very stream that was interrupted, and nothing on disk is touched before the inputs are known to be right.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from basicsr.data import build_dataloader
from basicsr.utils import get_root_logger, init_tb_logger, init_wandb_logger
from basicsr.utils.options import dict2str

from basicsr_distill.config.experiment import Experiment
from basicsr_distill.errors import InputError
from basicsr_distill.runtime import distributed
from basicsr_distill.training import preflight
from basicsr_distill.training.edits import check_edits, options_record
from basicsr_distill.training.folders import check_writable, experiment_folder
from basicsr_distill.training.image_names import NamedImages
from basicsr_distill.training.loader import build_train_loader
from basicsr_distill.training.loop import TrainingLoop
from basicsr_distill.training.resume import restore_generators, resume_state, resume_training
from basicsr_distill.training.run import locked_experiment, prepare_run, start_log


def train(experiment: Experiment, as_stage: bool = False) -> None:
    """Train an experiment; ``experiments/<name>`` is made in its ``root_path``.

    Args:
        experiment: of :func:`basicsr_distill.config.experiment.to_experiment`.
        as_stage: as the finetune stage of a recipe: BasicSR's log goes to its file alone, the terminal shows the
            progress.

    Raises:
        InputError: the options or what they point to are wrong; nothing has been written then.
    """
    path, opt = experiment.path, experiment.opt
    text = path.read_text(encoding='utf-8')  # before the folder that may hold it is moved aside
    prepare_run(experiment, quiet=as_stage)
    preflight.check_schedule(experiment)
    with locked_experiment(opt['path']['experiments_root']):
        check_writable(path, opt['path']['experiments_root'])
        state = resume_state(path, opt)
        datasets = _checked_datasets(experiment)
        record = options_record(experiment, len(datasets['train']))
        if state is not None:
            check_edits(experiment, state, record)
            if _is_finished(path, opt, state, as_stage):
                return
        dump = dict2str(opt)
        # The model reads its weights and writes nothing: what it refuses leaves the earlier experiment where it is.
        model = preflight.build_checked_model(experiment)
        if state is not None:
            resume_training(path, opt, model, state)
        with experiment_folder(opt, fresh=state is None and not opt['auto_resume']):
            start_log(path, text, opt, dump, 'train')
            _run(opt, _Prepared(datasets, model, state, record), as_stage)


@dataclass(frozen=True)
class _Prepared:
    """What is at hand before anything is written."""

    datasets: dict[str, Any]
    model: Any
    state: dict[str, Any] | None  # the checkpoint to go on from
    record: dict[str, Any]  # of the options, for the next checkpoints


def _checked_datasets(experiment: Experiment) -> dict[str, Any]:
    """Every data set, built, once what it and the networks read is known to be right."""
    preflight.check_labels(experiment)
    preflight.check_pretrained(experiment)
    datasets = {name: preflight.build_checked_dataset(experiment, name) for name in experiment.opt['datasets']}
    preflight.check_batch(experiment, len(datasets['train']))
    preflight.check_data(experiment, datasets)
    return datasets


def _is_finished(path: Path, opt: dict[str, Any], state: dict[str, Any], as_stage: bool) -> bool:
    """Whether nothing is left to do; a command of its own says so.

    Raises:
        InputError: ``total_iter`` lies before the checkpoint, whose weights would be taken for those of ``total_iter``.
    """
    total, latest = opt['train']['total_iter'], Path(opt['path']['models'], 'net_g_latest.pth')
    if state['iter'] >= total and latest.is_file() and not state.get('validation_due'):
        if not as_stage and distributed.is_main():
            print(f'{latest}: already trained for {state["iter"]} iterations; nothing to do.')
        return True
    if state['iter'] > total:
        raise InputError(
            f'{path}: train.total_iter: {total} lies before the checkpoint at iteration {state["iter"]}; set at '
            'least that.'
        )
    return False


def _run(opt: dict[str, Any], run: '_Prepared', as_stage: bool) -> None:
    """Prepare the data sets' files, and train."""
    tb_logger = _tensorboard(opt)
    for dataset in run.datasets.values():
        if hasattr(dataset, 'prepare'):
            dataset.prepare()
    first = run.state['iter'] if run.state else 0
    train_loader = build_train_loader(
        run.datasets['train'],
        opt['datasets']['train'],
        opt['manual_seed'],
        (first, opt['train']['total_iter']),
        opt['num_gpu'],
        opt['rank'],
        opt['world_size'],
    )
    val_loaders = [
        NamedImages(
            build_dataloader(
                run.datasets[name], section, num_gpu=opt['num_gpu'], dist=opt['dist'], seed=opt['manual_seed']
            )
        )
        for name, section in opt['datasets'].items()
        if section['phase'] == 'val'
    ]
    if run.state:
        get_root_logger().info('Resuming training from iteration %d.', first)
        restore_generators(run.state, opt['rank'])
    loop = TrainingLoop(opt, run.model, train_loader, val_loaders, tb_logger, run.record, as_stage)
    loop.run(first, validation_due=bool(run.state and run.state.get('validation_due')))
    if tb_logger:
        tb_logger.close()


def _tensorboard(opt: dict[str, Any]) -> Any:
    if not opt['logger'].get('use_tb_logger') or 'debug' in opt['name']:
        return None
    if (opt['logger'].get('wandb') or {}).get('project'):
        init_wandb_logger(opt)  # before tensorboard, whose scalars it then copies
    return init_tb_logger(log_dir=os.path.join(opt['root_path'], 'tb_logger', opt['name']))
