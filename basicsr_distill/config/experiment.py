"""The one place that makes the dictionary that BasicSR's components expect from a checked option file.

Does what ``basicsr.utils.options.parse_options`` does, without its unsafe loader, ``eval`` and ``exec``; fills in the
keys whose absence BasicSR answers with a KeyError long after the start, and every default of components of our own.
"""

import os
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from basicsr_distill.config import registry
from basicsr_distill.config.recipe import ExperimentSections, Recipe, Section
from basicsr_distill.config.sections.base import HostOptions, Options
from basicsr_distill.config.sections.datasets import LoaderOptions
from basicsr_distill.config.sections.experiment import ValidationOptions
from basicsr_distill.errors import InputError

_DEBUG_FREQ = 8


@dataclass(frozen=True)
class Experiment:
    """A training or a test about to run.

    recipe: the file it comes from, checked.  opt: BasicSR's dictionary, which BasicSR changes as it goes.
    """

    recipe: Recipe
    opt: dict[str, Any]

    @property
    def path(self) -> Path:
        """Of the option file, for messages."""
        return self.recipe.path


def to_experiment(
    recipe: Recipe, is_train: bool, root: Path, debug: bool = False, auto_resume: bool = False
) -> Experiment:
    """Make BasicSR's option dictionary of an option file.

    Args:
        recipe: the file; not changed.
        is_train: ``basicsr train`` or ``basicsr test``.
        root: experiments/, results/ and tb_logger/ are made in this folder.
        debug: log every iteration and validate early, as BasicSR's ``--debug``.
        auto_resume: go on from the newest whole checkpoint.

    Raises:
        InputError: a key is missing or wrong, or a folder or checkpoint that the file names does not exist.
    """
    sections = recipe.experiment
    if sections is None:
        raise InputError(
            f"{recipe.path}: key 'model_type' is missing: this file has stages alone, no experiment of "
            'BasicSR (model_type, datasets, network_g, train).'
        )
    opt: dict[str, Any] = deepcopy(
        {
            key: value
            for key, value in recipe.options.items()
            if key not in registry.models('stage') and value is not None
        }
    )
    opt.update(
        name=recipe.name, is_train=is_train, auto_resume=auto_resume, root_path=str(root), num_gpu=sections.root.num_gpu
    )
    if recipe.options.get('scale') is not None:
        opt['scale'] = recipe.scale
    # BasicSR draws one; a fixed one lets an interrupted run resume exactly.
    opt['manual_seed'] = sections.root.manual_seed or 0
    if debug and not recipe.name.startswith('debug'):
        opt['name'] = f'debug_{recipe.name}'
    opt.update({key: _plain(section) for key, section in sections.networks.items()})
    opt['path'] = _paths(recipe, opt['name'], is_train, root)
    opt['datasets'] = _datasets(recipe, opt, is_train)
    if is_train and not (recipe.is_untuned and sections.train is None):
        opt['train'] = _train(recipe.path, sections)
        opt['logger'] = sections.logger.model_dump()
    if (val := _validation(sections, is_train)) is not None:
        opt['val'] = val
    if debug and is_train:
        opt['logger'].update(print_freq=1, save_checkpoint_freq=_DEBUG_FREQ)
        if val is not None:
            val['val_freq'] = _DEBUG_FREQ
    return Experiment(recipe, opt)


def _plain(section: Section) -> dict[str, Any]:
    """A section with the defaults of its model, where it has one, as plain values."""
    return section.to_plain() if isinstance(section, Options) else deepcopy(dict(section))


def _paths(recipe: Recipe, name: str, is_train: bool, root: Path) -> dict[str, Any]:
    paths = dict(recipe.options.get('path') or {})
    for key, value in paths.items():
        if isinstance(value, str) and ('pretrain_network' in key or 'resume_state' in key):
            paths[key] = os.path.expanduser(value)
            if not Path(paths[key]).is_file():
                raise InputError(
                    f'{recipe.path}: path.{key}: {value} does not exist; put the checkpoint there or '
                    f'correct the path{_variables(value)}.'
                )
    folder = root / ('experiments' if is_train else 'results') / name
    if is_train:
        paths.update(
            experiments_root=str(folder), models=str(folder / 'models'), training_states=str(folder / 'training_states')
        )
    else:
        paths['results_root'] = str(folder)
    return {**paths, 'log': str(folder), 'visualization': str(folder / 'visualization')}


def _variables(value: str) -> str:
    return ' (variables of the shell are not replaced in option files; ~ is)' if '$' in value else ''


def _datasets(recipe: Recipe, opt: Mapping[str, Any], is_train: bool) -> dict[str, Any]:
    phases = ('train', 'val') if is_train else ('test', 'val')
    assert recipe.experiment is not None
    datasets = {}
    for name, section in recipe.experiment.datasets.items():
        dataset = {**LoaderOptions().model_dump(), **_plain(section), 'phase': name.split('_')[0]}
        if dataset['phase'] not in phases:
            raise InputError(f'{recipe.path}: datasets.{name}: this command takes the phases {" and ".join(phases)}.')
        if 'scale' in opt or not isinstance(section, (HostOptions, Mapping)):
            dataset['scale'] = recipe.scale
        if dataset['type'] == 'LatentPatchDataset' and is_train:
            dataset['latents_dir'] = os.path.join(opt['path']['experiments_root'], 'latents')
        _resolve_roots(recipe.path, name, dataset)
        datasets[name] = dataset
    if is_train and 'train' not in datasets:
        raise InputError(f"{recipe.path}: datasets: section 'train' is missing.")
    return datasets


def _resolve_roots(path: Path, name: str, dataset: dict[str, Any]) -> None:
    # A distilled set brings its own list and LR images, so that these keys may still name another set's.
    optional = {'dataroot_lq', 'meta_info_file'} if dataset['type'] == 'DistilledPatchDataset' else set()
    for key, value in dataset.items():
        if not isinstance(value, str) or not (key.startswith('dataroot') or key == 'meta_info_file'):
            continue
        dataset[key] = os.path.expanduser(value)
        if key not in optional and not os.path.exists(dataset[key]):
            raise InputError(
                f'{path}: datasets.{name}.{key}: {value} does not exist; correct the path{_variables(value)}.'
            )


def _train(path: Path, sections: ExperimentSections) -> dict[str, Any]:
    if sections.train is None:
        raise InputError(f"{path}: section 'train' is missing.")
    return {'warmup_iter': -1, **sections.train.to_plain()}


def _validation(sections: ExperimentSections, is_train: bool) -> dict[str, Any] | None:
    if sections.val is None:
        return None if is_train else ValidationOptions().model_dump()
    val = sections.val.model_dump()
    # Metrics that are switched off are left out; BasicSR asks each other one whether more is better.
    val['metrics'] = {name: _plain(section) for name, section in sections.metrics.items()} or None
    if val['val_freq'] is None:
        val['val_freq'] = sections.logger.save_checkpoint_freq
    return val
