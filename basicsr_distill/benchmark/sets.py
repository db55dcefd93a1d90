"""The rows of a benchmark, planned: which recipe stages run once, which sets are made of them, and where they lie."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from basicsr_distill.config.benchmark_file import BenchmarkFile
from basicsr_distill.config.recipe import Recipe
from basicsr_distill.config.sections.base import DEFAULT_SCALE
from basicsr_distill.config.sections.benchmark import SetOptions
from basicsr_distill.config.sections.datasets import DistilledPatchDatasetOptions
from basicsr_distill.data._pairs import find_pairs
from basicsr_distill.errors import InputError
from basicsr_distill.io.images import FoundImage, fingerprint_images
from basicsr_distill.io.manifest import HR_FOLDER, IMAGES_FOLDER, MANIFEST_NAME, STAGE_NAME
from basicsr_distill.runtime.device import resolve_num_gpu

SETS_FOLDER = 'sets'
RECIPE_NAME = 'recipe.yml'
# The images of a plain folder that a set of it consists of.
LIST_NAME = 'meta_info.txt'
# The published set within its folder, which holds its recipe and records too.
SET_FOLDER = 'set'


@dataclass(frozen=True)
class SharedRecipe:
    """Stages that several sets need, run once.

    home: folder of the option file that is written.  recipe: the file.  stages: those that are needed.
    """

    home: Path
    recipe: Recipe
    stages: tuple[str, ...]


@dataclass(frozen=True)
class PlannedSet:
    """One set to train on.

    row: its name in the benchmark file.  identity: names its files.  count: how many of its images are used, None for
    all.  seed: of choosing or drawing it; None where nothing is drawn.  is_real: real patches, a row that a drawn set
    has to beat.  is_full: the full pool.  folder: what is trained on.  home, stages, options: where its recipe lies and
    what makes it, where it is made here.  shared: the recipe of the stages before.  stages_before: those of them that
    this set needs.  listed: the images of ``folder`` that it consists of, below it; None where it is not a choice.
    """

    row: str
    identity: str
    count: int | None
    seed: int | None
    is_real: bool
    is_full: bool
    folder: Path
    stages: tuple[str, ...] = ()
    home: Path | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    shared: SharedRecipe | None = None
    stages_before: tuple[str, ...] = ()
    listed: tuple[str, ...] | None = None

    @property
    def recipe(self) -> Recipe:
        """The option file that makes it."""
        assert self.home is not None
        return Recipe.parse(self.home / RECIPE_NAME, self.options)


def stage_folder(recipe: Recipe, stage: str) -> Path:
    """Where a stage of a recipe puts what it makes."""
    if stage == 'finetune':
        return Path('experiments', recipe.name)
    return Path(getattr(recipe, stage).save_dir)


def hr_folder(planned: PlannedSet) -> Path:
    """Where the HR images of a set lie."""
    return planned.folder / HR_FOLDER if (planned.folder / HR_FOLDER).is_dir() else planned.folder


def images_of(planned: PlannedSet, scale: int) -> list[Path]:
    """The HR images that are trained on, by the rule of the data set that trains on them."""
    if planned.listed is not None:
        return [planned.folder / relative for relative in planned.listed]
    options = DistilledPatchDatasetOptions(
        name=planned.identity, dataroot_gt=str(planned.folder), num_images=planned.count
    )
    return [pair.hr for pair in find_pairs(options, scale)]


def fingerprint_contents(images: Sequence[Path]) -> str:
    """Digest of the images of a set, wherever it lies and whatever was asked for to get them."""
    return fingerprint_images([FoundImage(path, path.name) for path in images])


def plan_sets(file: BenchmarkFile, root: Path) -> list[PlannedSet]:
    """Every set of a benchmark: a row, a count and a seed each.

    Args:
        file: the benchmark file.
        root: of the benchmark, ``experiments/<name>``.

    Raises:
        InputError: a recipe or a row is wrong; names the file and the key.
    """
    recipes = _shared_recipes(file, root / SETS_FOLDER)
    planned = []
    for name, row in file.options.sets.items():
        try:
            planned += list(_planned(file, root / SETS_FOLDER, name, row, recipes.get(_origin(file, row))))
        except InputError as error:
            raise InputError(f'{file.path}: benchmark.sets.{name}: {error}') from None
    return planned


def _planned(
    file: BenchmarkFile, folder: Path, name: str, row: SetOptions, shared: SharedRecipe | None
) -> Iterator[PlannedSet]:
    if row.path is not None:
        yield from _of_folder(file, folder, name, row, Path(row.path))
        return
    assert shared is not None
    if row.full:
        shared.recipe.require(('extract',))
        images = stage_folder(shared.recipe, 'extract') / IMAGES_FOLDER
        yield PlannedSet(
            name, f'{name}__full', None, None, False, True, images, shared=shared, stages_before=('extract',)
        )
        return
    for count in file.options.counts:
        for seed in file.options.seeds:
            identity = f'{name}__{count}_s{seed}'
            options = _set_options(shared.recipe.options, row, count, seed, folder / identity / SET_FOLDER)
            if _is_trained(shared.recipe.options) and row.sample is not None:
                options = _trained_for_itself(options, f'{file.name}__{identity}', seed)
                stages: tuple[str, ...] = ('finetune', 'sample')
            else:
                stages = ('sample' if row.select is None else 'select',)
            recipe = Recipe.parse(folder / identity / RECIPE_NAME, options)
            recipe.require(stages)
            recipe.check_agreement()
            is_real = (
                row.select is not None
                and recipe.select is not None
                and recipe.select.codec is None
                and recipe.select.targets.type == 'hr'
            )
            before = tuple(stage for stage in shared.stages if row.select is None or stage != 'finetune')
            yield PlannedSet(
                name,
                identity,
                count,
                seed,
                is_real,
                False,
                folder / identity / SET_FOLDER,
                stages,
                folder / identity,
                options,
                shared,
                before,
            )


def _of_folder(file: BenchmarkFile, folder: Path, name: str, row: SetOptions, root: Path) -> Iterator[PlannedSet]:
    """The sets of a row that names a folder: a published set as it is, of any other folder a choice by seed."""
    if not root.is_dir():
        raise InputError(f'path: {root} does not exist; correct the path.')
    if root.name == HR_FOLDER and (root.parent / MANIFEST_NAME).is_file():
        root = root.parent
    is_published = (root / HR_FOLDER).is_dir() and (root / MANIFEST_NAME).is_file()
    if not is_published:
        inner = IMAGES_FOLDER if (root / STAGE_NAME).is_file() else HR_FOLDER
        root = root / inner if (root / inner).is_dir() else root
    if row.full:
        yield PlannedSet(name, f'{name}__full', None, None, row.real, True, root)
        return
    pairs = find_pairs(DistilledPatchDatasetOptions(name=name, dataroot_gt=str(root)), DEFAULT_SCALE)
    images = [pair.hr.relative_to(root.resolve()).as_posix() for pair in pairs]
    if odd := [image for image in images if not image.isprintable() or image != image.strip()]:
        raise InputError(f'path: {root}: the name {odd[0]!r} cannot stand in a list of images; rename the file.')
    for count in file.options.counts:
        if count > len(images):
            raise InputError(f'path: {root} has {len(images)} images, but counts names {count}; leave that count out.')
        # A published set is ranked: its first images are evenly of its clusters.
        if count == len(images) or is_published:
            yield PlannedSet(name, f'{name}__{count}', count, None, row.real, False, root)
            continue
        for seed in file.options.seeds:
            identity = f'{name}__{count}_s{seed}'
            listed = tuple(images[number] for number in evenly(len(images), count, seed))
            yield PlannedSet(name, identity, count, seed, row.real, False, root, home=folder / identity, listed=listed)


def evenly(available: int, count: int, seed: int) -> list[int]:
    """Draw one number of each of ``count`` equal parts of the numbers below ``available``.

    >>> [number // 10 for number in evenly(70, 7, seed=0)]
    [0, 1, 2, 3, 4, 5, 6]
    """
    draw = np.random.default_rng(seed)
    bounds = [number * available // count for number in range(count + 1)]
    return [int(draw.integers(low, high)) for low, high in pairwise(bounds)]


def _set_options(recipe: Mapping[str, Any], row: SetOptions, count: int, seed: int, folder: Path) -> dict[str, Any]:
    """A recipe that makes one set: its own section, with the row's keys, the count, the seed and the folder."""
    if row.select is not None:
        given = {**(recipe.get('select') or {}), **row.select}
        given.pop('images_per_cluster', None)
        section = 'select', {**given, 'num_images': count}
    else:
        given = {**(recipe.get('sample') or {}), **(row.sample or {})}
        # As many a label as the count needs; what is too much is left out in training, evenly.
        section = 'sample', {**given, 'images_per_cluster': -(-count // _num_labels(recipe))}
    options = {key: value for key, value in recipe.items() if key not in ('select', 'sample')}
    return options | {section[0]: {**section[1], 'seed': seed, 'save_dir': folder.as_posix()}}


def _is_trained(recipe: Mapping[str, Any]) -> bool:
    """Whether the images themselves are trained (GSDD): then every set has a training of its own."""
    return recipe.get('model_type') == 'GSDDModel'


def _trained_for_itself(options: Mapping[str, Any], name: str, seed: int) -> dict[str, Any]:
    network = {**options['network_g'], 'images_per_label': options['sample']['images_per_cluster']}
    return {**options, 'name': name, 'network_g': network, 'manual_seed': seed}


def _num_labels(recipe: Mapping[str, Any]) -> int:
    labels = (recipe.get('network_g') or {}).get('num_labels') or (recipe.get('cluster') or {}).get('num_clusters')
    return labels if isinstance(labels, int) else 1


def _origin(file: BenchmarkFile, row: SetOptions) -> tuple[str, tuple[str, ...]] | None:
    """The recipe of a row and the changes to it."""
    if row.path is not None:
        return None
    if row.recipe is not None:
        return row.recipe, tuple(row.force_yml)
    assert file.options.recipe is not None
    return file.options.recipe, tuple(row.force_yml or file.options.force_yml)


def _shared_recipes(file: BenchmarkFile, folder: Path) -> dict[tuple[str, tuple[str, ...]] | None, SharedRecipe]:
    recipes: dict[tuple[str, tuple[str, ...]] | None, SharedRecipe] = {}
    rows = {
        origin: [row for row in file.options.sets.values() if _origin(file, row) == origin]
        for origin in dict.fromkeys(_origin(file, row) for row in file.options.sets.values())
    }
    for origin, own_rows in rows.items():
        if origin is None:
            continue
        # A local job has one GPU, however many the benchmark itself sees; a training's batch depends on it.
        alone = file.options.jobs.executor == 'local' and resolve_num_gpu('auto') > 1
        path, changes = Path(origin[0]), [*origin[1], *(['num_gpu=1'] if alone else [])]
        recipe = Recipe.load(path, changes)
        number = sum(other is not None and Path(other[0]).stem == path.stem for other in recipes)
        name = f'recipe_{path.stem}{f"__{number + 1}" if number else ""}'
        stages = _stages_before(recipe, own_rows)
        recipe.require(stages)
        recipes[origin] = SharedRecipe(folder / name, recipe, stages)
    return recipes


def _stages_before(recipe: Recipe, rows: list[SetOptions]) -> tuple[str, ...]:
    """What must have run before the sets of these rows can be made."""
    drawn = any(row.sample is not None for row in rows)
    made = any(not row.full for row in rows)  # select labels its patches by the clusters, where the recipe has them
    wanted = {'extract'} | ({'cluster'} if made else set())
    wanted |= {'finetune'} if drawn and not _is_trained(recipe.options) else set()
    return tuple(stage for stage in recipe.stages if stage in wanted)
