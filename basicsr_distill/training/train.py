"""The training loop of ``basicsr train``.

It drives BasicSR's datasets, models, losses, metrics and loggers, and corrects what its own ``train.py`` does to small sets:
training lasts exactly ``total_iter`` iterations, a batch that cannot be filled is refused, resuming continues the very
stream that was interrupted, and nothing on disk is touched before the inputs are known to be right.
"""

import math
import os
from pathlib import Path
from typing import Any

import torch
from basicsr.data import build_dataloader
from basicsr.data.prefetch_dataloader import CPUPrefetcher, CUDAPrefetcher
from basicsr.utils import (
    AvgTimer,
    MessageLogger,
    get_root_logger,
    init_tb_logger,
    init_wandb_logger,
    mkdir_and_rename,
)

from basicsr_distill.config.experiment import Experiment
from basicsr_distill.errors import InputError
from basicsr_distill.runtime import distributed
from basicsr_distill.runtime.rng import capture_rng, restore_rng
from basicsr_distill.training import preflight
from basicsr_distill.training.image_names import NamedImages
from basicsr_distill.training.loader import build_train_loader
from basicsr_distill.training.resume import restore_generators, resume_state
from basicsr_distill.training.run import locked_experiment, settle_run, start_log
from basicsr_distill.training.signals import stop_requests


def train(experiment: Experiment) -> None:
    """Train an experiment; ``experiments/<name>`` is made in its ``root_path``.

    Args:
        experiment: of :func:`basicsr_distill.config.experiment.to_experiment`.

    Raises:
        InputError: the options or what they point to are wrong; nothing has been written then.
    """
    path, opt = experiment.path, experiment.opt
    text = path.read_text(encoding='utf-8')  # before the folder that may hold it is moved aside
    settle_run(experiment)
    total_iterations = opt['train']['total_iter']
    with locked_experiment(opt['path']['experiments_root']):
        state = resume_state(opt)
        if state is not None and state['iter'] >= total_iterations and (latest := _latest(opt)).is_file():
            print(f'{latest}: already trained for {state["iter"]} iterations; nothing to do.')
            return
        preflight.check_labels(experiment)
        preflight.check_pretrained(experiment)
        datasets = {name: preflight.build_checked_dataset(experiment, name) for name in opt['datasets']}
        preflight.check_batch(experiment, len(datasets['train']))
        preflight.check_data(experiment, datasets)
        model = preflight.build_checked_model(experiment)

        _make_folders(opt, fresh=state is None and not opt['auto_resume'])
        logger = start_log(path, text, opt, 'train')
        tb_logger = _tensorboard(opt)
        for dataset in datasets.values():
            if hasattr(dataset, 'prepare'):
                dataset.prepare()
        first = 0
        if state is not None:
            model.resume_training(state)
            first = state['iter']
            logger.info('Resuming training from iteration %d.', first)
        section = opt['datasets']['train']
        loader = build_train_loader(datasets['train'], section, opt['manual_seed'], (first, total_iterations),
                                    opt['num_gpu'], opt['rank'], opt['world_size'])
        val_loaders = [NamedImages(build_dataloader(datasets[name], value, num_gpu=opt['num_gpu'], dist=opt['dist'],
                                                    seed=opt['manual_seed']))
                       for name, value in opt['datasets'].items() if value['phase'] == 'val']
        if state is not None:
            restore_generators(state, opt['rank'])
        _train_loop(opt, model, loader, val_loaders, first, tb_logger)
        if tb_logger:
            tb_logger.close()


def _train_loop(opt: dict[str, Any], model: Any, loader: Any, val_loaders: list[Any], first: int, tb_logger: Any) -> None:
    logger = get_root_logger()
    message_logger = MessageLogger(opt, first + 1, tb_logger)
    section = opt['datasets']['train']
    total_iterations = opt['train']['total_iter']
    epoch_size = len(loader.dataset.dataset) * section['dataset_enlarge_ratio']
    samples_per_iteration = loader.batch_size * opt['world_size']
    use_cuda_prefetch = section['prefetch_mode'] == 'cuda' and torch.cuda.is_available()
    prefetcher = CUDAPrefetcher(loader, opt) if use_cuda_prefetch else CPUPrefetcher(loader)
    data_timer, iteration_timer = AvgTimer(), AvgTimer()
    val_freq = opt['val']['val_freq'] if opt.get('val') else None
    iteration = first
    logger.info('Training from iteration %d to %d, %d samples, batch %d.', first, total_iterations,
                len(loader.dataset.dataset), samples_per_iteration)

    with stop_requests() as stop:
        while iteration < total_iterations:
            batch = _next_batch(prefetcher)
            data_timer.record()
            iteration += 1
            epoch = (iteration - 1) * samples_per_iteration // epoch_size
            model.update_learning_rate(iteration, warmup_iter=opt['train']['warmup_iter'])
            model.feed_data(batch)
            model.optimize_parameters(iteration)
            iteration_timer.record()
            must_save = iteration % opt['logger']['save_checkpoint_freq'] == 0 and iteration < total_iterations
            if iteration % opt['logger']['print_freq'] == 0:
                log = model.get_current_log()
                _check_finite(log, iteration)
                message_logger({'epoch': epoch, 'iter': iteration, 'lrs': model.get_current_learning_rate(),
                                'time': iteration_timer.get_avg_time(), 'data_time': data_timer.get_avg_time(), **log})
            # Validation comes before the checkpoint, so that no interruption can leave it out.
            if val_freq and iteration % val_freq == 0 and iteration < total_iterations:
                _validate(opt, model, val_loaders, iteration, tb_logger)
            signum = stop.agreed(opt['dist'])
            if must_save or signum:
                _check_finite(model.get_current_log(), iteration)
                _check_weights(model, iteration)
                logger.info('Saving models and training state at iteration %d.', iteration)
                model.save(epoch, iteration)
            if signum:
                logger.info('Stopped by signal %d after a checkpoint; continue with --auto_resume.', signum)
                raise SystemExit(128 + signum)
            data_timer.start()
            iteration_timer.start()

        if first < total_iterations:
            _check_finite(model.get_current_log(), iteration)
            _check_weights(model, iteration)
        if val_freq:
            _validate(opt, model, val_loaders, iteration, tb_logger)
        model.save(epoch=-1, current_iter=-1)  # BasicSR's way to write net_*_latest.pth
        # The training state is the last file written: where it stands, the experiment is complete.
        model.save(math.ceil(total_iterations * samples_per_iteration / epoch_size), total_iterations)
        logger.info('End of training at iteration %d.', iteration)


def _validate(opt: dict[str, Any], model: Any, val_loaders: list[Any], iteration: int, tb_logger: Any) -> None:
    """Validate without moving the generators that training draws from."""
    state = capture_rng()
    for loader in val_loaders:
        model.validation(loader, iteration, tb_logger, opt['val']['save_img'])
    restore_rng(state)


def _check_finite(log: dict[str, float], iteration: int) -> None:
    bad = [name for name, value in log.items() if not math.isfinite(float(value))]
    if bad:
        raise FloatingPointError(f'Iteration {iteration}: {bad[0]} is {float(log[bad[0]])}. No checkpoint was written from it; '
                                 'lower the learning rate and go on with --auto_resume.')


def _check_weights(model: Any, iteration: int) -> None:
    """The loss came before the update; what is saved came after it."""
    groups = (group for optimizer in model.optimizers for group in optimizer.param_groups)
    if not all(bool(torch.isfinite(parameter).all()) for group in groups for parameter in group['params']):
        raise FloatingPointError(f'Iteration {iteration}: a weight is not finite. No checkpoint was written from it; lower the '
                                 'learning rate and go on with --auto_resume.')


def _next_batch(prefetcher: Any) -> Any:
    try:
        return prefetcher.next()
    except InputError as error:
        # From a worker process the message comes wrapped in that worker's traceback.
        raise InputError(str(error).strip().splitlines()[-1].split('Error: ', 1)[-1]) from None


def _latest(opt: dict[str, Any]) -> Path:
    return Path(opt['path']['models'], 'net_g_latest.pth')


def _make_folders(opt: dict[str, Any], fresh: bool) -> None:
    """Make the experiment's folders; a fresh start moves an earlier experiment of this name aside, as BasicSR does."""
    if distributed.is_main():
        root = Path(opt['path']['experiments_root'])
        if fresh and root.exists():
            mkdir_and_rename(str(root))
            if opt['logger'].get('use_tb_logger') and (log := Path(opt['root_path'], 'tb_logger', opt['name'])).exists():
                mkdir_and_rename(str(log))
        for key in ('models', 'training_states', 'visualization'):
            Path(opt['path'][key]).mkdir(parents=True, exist_ok=True)
    distributed.barrier()


def _tensorboard(opt: dict[str, Any]) -> Any:
    if not opt['logger'].get('use_tb_logger') or 'debug' in opt['name']:
        return None
    if (opt['logger'].get('wandb') or {}).get('project'):
        init_wandb_logger(opt)  # before tensorboard, whose scalars it then copies
    return init_tb_logger(log_dir=os.path.join(opt['root_path'], 'tb_logger', opt['name']))
