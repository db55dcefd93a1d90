"""Fingerprints of the files that options name: inputs of the stage that reads them."""

from pathlib import Path

from basicsr_distill.config.named_files import experiment_files, named_files
from basicsr_distill.config.recipe import Recipe, Section
from basicsr_distill.io.files import sha256_tree


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
    """A digest of every file that a training reads beside its data sets, by its key in the option file.

    These are the files named by its networks, its train section and its section ``path``.

    Raises:
        InputError: a file is not there.
    """
    return _digests(experiment_files(recipe))


def _digests(files: dict[str, Path]) -> dict[str, str]:
    return {key: sha256_tree(path) for key, path in files.items()}
