"""Fingerprints of the files that options name: inputs of the stage that reads them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from basicsr_distill.config.named_files import experiment_files, named_files
from basicsr_distill.config.recipe import Recipe, Section
from basicsr_distill.io.files import sha256_tree

# The keys of records that earlier versions wrote.
_EARLIER_KEYS = {'targets.network': 'targets_network', 'targets.weights': 'targets_weights'}


def file_inputs(section: Section, where: str) -> dict[str, str]:
    """A digest of every file or folder that a section names to be read, by its key below the section.

    Args:
        section: a section's model, or the mapping of a stock component.
        where: name of the section, for messages.

    Raises:
        InputError: a file is not there.
    """
    return _digests(named_files(section, where))


def experiment_inputs(recipe: Recipe) -> dict[str, str]:
    """A digest of every file that the networks, the train section and the section ``path`` name, by its key.

    Those of the data sets are left out.

    Raises:
        InputError: a file is not there.
    """
    return _digests(experiment_files(recipe))


def training_inputs(recipe: Recipe) -> dict[str, str]:
    """:func:`experiment_inputs`, and a digest of every file that the training set's section names.

    Raises:
        InputError: a file is not there.
    """
    assert recipe.experiment is not None
    where = 'datasets.train'
    files = file_inputs(recipe.experiment.datasets['train'], f'{recipe.path}: {where}')
    return experiment_inputs(recipe) | {f'{where}.{key}': digest for key, digest in files.items()}


def changed_inputs(record: Mapping[str, Any], files: Mapping[str, str]) -> list[str]:
    """Keys of files that a stage's record knows with another digest; what it does not know is no difference."""
    earlier = record.get('inputs', {})
    return [key for key, digest in files.items() if earlier.get(key, digest) != digest]


def _digests(files: dict[str, Path]) -> dict[str, str]:
    return {_EARLIER_KEYS.get(key, key): sha256_tree(path) for key, path in files.items()}
