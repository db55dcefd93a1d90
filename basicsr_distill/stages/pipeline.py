"""A recipe: one option file that holds a whole distillation, and the stages run from it."""

import difflib
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from basicsr_distill.config.experiment import check_own_sections, read_option_file, to_experiment
from basicsr_distill.config.sections.base import ClusterOptions, ExtractOptions, SampleOptions, bind
from basicsr_distill.errors import InputError
from basicsr_distill.stages.record import read_stage


def distill(path: Path, stages: Sequence[str], force_yml: Sequence[str] = ()) -> None:
    """Run the stages named, in the order of the method; finished ones are skipped.

    Every section that will be needed is checked before the first stage starts.

    Raises:
        InputError: the recipe or what it points to is wrong.
    """
    options = read_option_file(path, force_yml)

    def section(name: str) -> object:
        if name not in options:
            nearest = difflib.get_close_matches(name, options, n=1)
            raise InputError(f'{path}: section {name!r} is missing{f"; is {nearest[0]!r} meant to be it?" if nearest else "."}')
        return options[name]

    extract_options = bind(ExtractOptions, section('extract'), f'{path}: extract')
    cluster_options = (bind(ClusterOptions, section('cluster'), f'{path}: cluster')
                       if {'cluster', 'sample'} & set(stages) else None)
    sample_options = bind(SampleOptions, section('sample'), f'{path}: sample') if 'sample' in stages else None

    if {'finetune', 'sample'} & set(stages):
        check_own_sections(path, options, is_train=True)
        _check_agreement(path, options)

    if 'extract' in stages:
        from basicsr_distill.stages.extract import stage as extract

        _tell('extract', extract.run(extract_options))
    if 'cluster' in stages and cluster_options:
        from basicsr_distill.stages import cluster

        _tell('cluster', cluster.run(cluster_options, Path(extract_options.save_dir)))
    if 'finetune' in stages:
        from basicsr_distill.stages import finetune

        _tell('finetune', finetune.run(path, options))
    if sample_options:
        from basicsr_distill.stages.sample import stage as sample

        _tell('sample', sample.run(sample_options, to_experiment(path, options, is_train=True, root=Path.cwd())))


def _check_agreement(path: Path, options: dict[str, Any]) -> None:
    """The sections of a recipe are one experiment: refuse one that trains on another's patches or mixes scales.

    Raises:
        InputError: names both keys.
    """
    train_set = options['datasets'].get('train') or {}
    made = {'dataroot': options['extract']['save_dir'], 'labels_file': f'{options["cluster"]["save_dir"]}/labels.csv'} if (
        'cluster' in options) else {'dataroot': options['extract']['save_dir']}
    for key, expected in made.items():
        if key in train_set and os.path.normpath(train_set[key]) != os.path.normpath(expected):
            raise InputError(f'{path}: datasets.train.{key}: is {train_set[key]}, but this recipe makes {expected}; '
                             'let them agree.')
    scales = {name: int((options.get(section) or {}).get('scale', 4)) for name, section in (
        ('extract.scale', 'extract'), ('sample.scale', 'sample'))} | {'scale': int(options.get('scale', 4))}
    if len(set(scales.values())) > 1:
        raise InputError(f'{path}: {", ".join(f"{name} is {value}" for name, value in scales.items())}; let them agree.')


def _tell(stage: str, folder: Path) -> None:
    counts = ', '.join(f'{name.replace("_", " ")} {count}' for name, count in read_stage(folder)['counts'].items() if count)
    logging.getLogger(__name__).info('%-8s %s: %s', stage, folder, counts)
