"""The trainings of a benchmark, planned: an option file for ``basicsr train`` and one for ``basicsr test`` each."""

import os
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from basicsr_distill.benchmark.sets import LIST_NAME, PlannedSet
from basicsr_distill.config.benchmark_file import BenchmarkFile
from basicsr_distill.config.recipe import Recipe
from basicsr_distill.config.sections.benchmark import METRIC_SECTIONS, BenchmarkOptions
from basicsr_distill.errors import InputError
from basicsr_distill.io.files import sha256_file, write_atomic
from basicsr_distill.stages.record import StagePlan, read_stage

CELLS_FOLDER = 'cells'
# The two parts of a cell, each a folder with its option file and its record.
TRAIN, TEST = 'train', 'test'
# Data sets of pairs, whose place a set takes by its keys.
_PAIRED = ('DistilledPatchDataset', 'PairedImageDataset', 'RealESRGANPairedDataset')
_KEPT_KEYS = (
    'gt_size',
    'use_hflip',
    'use_rot',
    'mean',
    'std',
    'color',
    'cache',
    'batch_size_per_gpu',
    'num_worker_per_gpu',
    'use_shuffle',
    'prefetch_mode',
    'num_prefetch_queue',
    'pin_memory',
    'persistent_workers',
)
# Keys that begin so name files and folders.
_PATH_KEYS = ('dataroot', 'meta_info', 'pretrain_network', 'generator_weights')
# An epoch lasts so many batches at least: small sets are gone over many times between two starts of the loader.
_MIN_EPOCH_BATCHES = 100
# Of schedulers: iterations, which are scaled with the budget.
_SCHEDULE_KEYS = ('milestones', 'periods', 'T_max', 'total_iters', 'step_size')


@dataclass(frozen=True)
class Cell:
    """One training and its test.

    set: what is trained on.  network: its name in the benchmark file.  train_seed: of the training.  total_iter: of
    the training.  own_schedule: the full pool at its own budget.  saves_images: whether the test's images are kept.
    """

    set: PlannedSet
    network: str
    train_seed: int
    total_iter: int
    own_schedule: bool
    saves_images: bool

    @property
    def identity(self) -> str:
        """Of the cell's folder and of its experiment."""
        long = f'_{self.total_iter}iter' if self.own_schedule else ''
        return f'{self.set.identity}__{self.network}_t{self.train_seed}{long}'


def plan_cells(options: BenchmarkOptions, sets: Sequence[PlannedSet]) -> list[Cell]:
    """Every training of a benchmark, the seeds outermost, so that a first answer for all rows comes early."""
    long = options.budget.full_total_iter
    cells = []
    for number, seed in enumerate(options.seeds):
        for planned in sets:
            if planned.seed not in (None, seed):
                continue
            # What is not drawn is trained on with each seed once, whatever the sets' seeds are.
            seeds = options.train_seeds or [seed]
            if planned.seed is None and options.train_seeds and number:
                continue
            for network in options.networks:
                for train_seed in seeds:
                    first = number == 0 and train_seed == seeds[0]
                    cells.append(Cell(planned, network, train_seed, options.budget.total_iter, False, first))
                    if planned.is_full and long is not None:
                        cells.append(Cell(planned, network, train_seed, long, True, first))
    return cells


def load_networks(file: BenchmarkFile) -> dict[str, Recipe]:
    """The option files of the networks, read and checked.

    Raises:
        InputError: one cannot be read, is wrong, or trains on what is no data set of pairs.
    """
    networks = {}
    for name, network in file.options.networks.items():
        where = f'{file.path}: benchmark.networks.{name}'
        recipe = Recipe.load(Path(network.opt), network.force_yml)
        if recipe.experiment is None or recipe.experiment.train is None:
            raise InputError(f'{where}: {network.opt} trains nothing; name an option file for `basicsr train`.')
        kind = dict(recipe.options['datasets'].get('train') or {}).get('type')
        if kind not in _PAIRED:
            raise InputError(
                f'{where}: {network.opt} trains on {kind}; a set takes the place of one of {", ".join(_PAIRED)} alone.'
            )
        networks[name] = recipe
    return networks


def train_options(cell: Cell, network: Recipe, num_images: int) -> dict[str, Any]:
    """The option file of a cell's training; its paths are relative to the working folder.

    Args:
        cell: the cell.
        network: its network's option file.
        num_images: how many images are trained on.
    """
    options = _without_data(network.options)
    given = network.options['datasets']['train']
    batch = given['batch_size_per_gpu']
    dataset = {
        'name': cell.set.identity,
        'type': 'DistilledPatchDataset',
        'dataroot_gt': cell.set.folder.as_posix(),
        **{key: given[key] for key in _KEPT_KEYS if key in given},
        'dataset_enlarge_ratio': max(1, -(-_MIN_EPOCH_BATCHES * batch // num_images)),
    }
    if cell.set.listed is not None and cell.set.home is not None:
        dataset['meta_info_file'] = (cell.set.home / LIST_NAME).as_posix()
    elif cell.set.count is not None:
        dataset['num_images'] = cell.set.count
    train = deepcopy(network.options['train'])
    scale_schedule(train, cell.total_iter)
    path = {key: value for key, value in (options.get('path') or {}).items() if key != 'resume_state'}
    logger = {**(options.get('logger') or {}), 'use_tb_logger': False}
    logger.pop('wandb', None)
    logger['save_checkpoint_freq'] = min(int(logger.get('save_checkpoint_freq', 5000)), cell.total_iter)
    return options | {
        'name': cell.identity,
        'manual_seed': cell.train_seed,
        'datasets': {'train': dataset},
        'path': path,
        'train': train,
        'logger': logger,
    }


def test_options(cell: Cell, network: Recipe, options: BenchmarkOptions, home: Path) -> dict[str, Any]:
    """Return the option file of the test of the cell in ``home``; paths are relative to the working folder."""
    own = {
        key: value
        for key, value in _without_data(network.options).items()
        if key not in ('train', 'path', 'logger', 'network_d')
    }
    averaged = bool(network.options['train'].get('ema_decay'))
    weights = {
        'pretrain_network_g': (home / TRAIN / weights_path(cell.identity)).as_posix(),
        'strict_load_g': True,
        'param_key_g': 'params_ema' if averaged else 'params',
    }
    datasets = {
        f'test_{number}': {'name': name, 'type': 'DistilledPatchDataset', 'dataroot_gt': folder, 'cache': 'none'}
        for number, (name, folder) in enumerate(options.tests.items(), 1)
    }
    val = {key: value for key, value in (network.options.get('val') or {}).items() if key == 'tile'}
    return own | {
        'name': cell.identity,
        'manual_seed': cell.train_seed,
        'datasets': datasets,
        'path': weights,
        'val': {
            **val,
            'save_img': cell.saves_images,
            'suffix': None,
            'metrics': {name: metric_section(name, network.scale) for name in options.metrics},
        },
    }


def weights_path(name: str) -> str:
    """Where a training leaves its network, below the folder that it runs in."""
    return f'experiments/{name}/models/net_g_latest.pth'


def metric_section(name: str, scale: int) -> dict[str, Any]:
    """BasicSR's section of a metric of a benchmark; the border of ``scale`` pixels is cut."""
    return {**METRIC_SECTIONS[name], 'crop_border': scale}


def scale_schedule(train: dict[str, Any], total_iter: int) -> None:
    """Set the iterations of a train section, and scale those of its schedule with them.

    >>> train = {'total_iter': 1000, 'scheduler': {'milestones': [500, 750], 'gamma': 0.5}}
    >>> scale_schedule(train, 100)
    >>> train['scheduler']['milestones']
    [50, 75]
    """
    factor = total_iter / train['total_iter']
    train['total_iter'] = total_iter
    for key in _SCHEDULE_KEYS:
        value = train['scheduler'].get(key)
        if isinstance(value, list):
            train['scheduler'][key] = [max(1, round(number * factor)) for number in value]
        elif value is not None:
            train['scheduler'][key] = max(1, round(value * factor))
    if isinstance(train.get('warmup_iter'), int) and train['warmup_iter'] > 0:
        train['warmup_iter'] = max(1, round(train['warmup_iter'] * factor))


def plan_part(home: Path, part: str, options: Mapping[str, Any], inputs: Mapping[str, str]) -> StagePlan:
    """Return the plan of a cell's training or test.

    Args:
        home: folder of the cell.
        part: :data:`TRAIN` or :data:`TEST`.
        options: of :func:`train_options` or :func:`test_options`.
        inputs: fingerprints of what it reads.
    """
    folder = home / part
    # Paths of a record lead from its folder, whatever the working folder is, so that a benchmark may be moved.
    recorded = _change_paths(options, lambda path: os.path.relpath(os.path.realpath(path), os.path.realpath(folder)))
    return StagePlan(folder, part, recorded, inputs)


def begin_part(plan: StagePlan) -> None:
    """Write the record of a part that is about to run, and its option file, whose paths are absolute."""
    plan.begin()
    options = _change_paths(plan.header['options'], lambda path: str((plan.folder / path).resolve()))
    write_atomic(option_file(plan.folder), yaml.safe_dump(options, sort_keys=False, allow_unicode=True))


def _change_paths(section: Mapping[str, Any], change: Callable[[str], str]) -> dict[str, Any]:
    """Return a copy of options in which every path is changed."""

    def changed(key: str, value: Any) -> Any:
        if isinstance(value, Mapping):
            return _change_paths(value, change)
        return change(value) if isinstance(value, str) and key.startswith(_PATH_KEYS) else value

    return {key: changed(key, value) for key, value in section.items()}


def is_measured(training: StagePlan, test: StagePlan) -> bool:
    """Whether a cell was trained and tested as planned, the test with the weights of that training."""
    return (
        training.is_done
        and test.is_done
        and (read_stage(training.folder)['weights_sha256'] == read_stage(test.folder)['weights_sha256'])
    )


def weights_changed(training: StagePlan) -> str:
    """What happened to the weights of a finished training; empty where they are as they were, or it is not finished."""
    record = read_stage(training.folder)
    if not record:
        return ''
    weights = training.folder / weights_path(record['options']['name'])
    if weights.is_file() and sha256_file(weights) == record['weights_sha256']:
        return ''
    return f'{weights.name} was changed or removed after the training'


def option_file(folder: Path) -> Path:
    """The option file of a part, in its folder."""
    return folder / f'{folder.name}.yml'


def _without_data(options: Mapping[str, Any]) -> dict[str, Any]:
    left_out = ('datasets', 'val', 'name', 'manual_seed', 'extract', 'cluster', 'select', 'sample')
    return {key: deepcopy(value) for key, value in options.items() if key not in left_out and value is not None}
