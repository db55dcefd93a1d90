"""Tests among what is trained on: identical files are refused, pictures of the same scene reported."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from basicsr_distill.benchmark.sets import PlannedSet, hr_folder
from basicsr_distill.config.benchmark_file import BenchmarkFile
from basicsr_distill.errors import InputError
from basicsr_distill.io.files import sha256_file
from basicsr_distill.io.images import (
    FoundImage,
    UnreadableImageError,
    file_bytes,
    find_images,
    fingerprint_images,
    read_rgb,
)
from basicsr_distill.io.manifest import read_json, write_json
from basicsr_distill.runtime.parallel import default_workers, ordered_map
from basicsr_distill.runtime.progress import progress
from basicsr_distill.selection.scenes import SceneIndex

_NAME = 'leaks.json'
_NAMED = 5
_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Pool:
    """Images that rows are trained on.  rows: their names.  folder: for messages.  tests: those that the images are
    held against; of the others the extraction has left out the scenes itself."""

    rows: tuple[str, ...]
    folder: str
    images: Sequence[FoundImage]
    tests: dict[str, Sequence[FoundImage]]
    left_out: tuple[str, ...]


def refuse_identical(file: BenchmarkFile, sets: Sequence[PlannedSet]) -> None:
    """Refuse tests whose very files are trained on.

    Raises:
        InputError: names the test's file and that of the pool.
    """
    for pool in _pools(file, sets):
        by_size: dict[int, list[Path]] = {}
        for image in pool.images:
            by_size.setdefault(file_bytes(image.path), []).append(image.path)
        for name, tests in pool.tests.items():
            for test in tests:
                for path in by_size.get(file_bytes(test.path), ()):
                    if sha256_file(path) == sha256_file(test.path):
                        raise InputError(
                            f'{file.path}: benchmark.tests.{name}: {test.path} is the same file as {path}, which is in '
                            f'the pool of {", ".join(pool.rows)}; test on other photographs, or leave it out of the '
                            'pool by extract.leak_check.'
                        )


def find_scenes(file: BenchmarkFile, root: Path, sets: Sequence[PlannedSet]) -> list[str]:
    """Look for the scenes of the tests in the pools; sentences for the report, and warnings in the log.

    What was found is kept in ``root`` for the next run on the same images.
    """
    known = read_json(root / _NAME)
    kept: dict[str, list[list[str]]] = {}
    lines = []
    for pool in _pools(file, sets):
        tests = [test for images in pool.tests.values() for test in images]
        found: list[list[str]] = []
        if tests:
            key = f'{fingerprint_images(tests)} {fingerprint_images(pool.images)}'
            if key not in kept:
                kept[key] = known[key] if key in known else _same_scenes(pool)
            found = kept[key]
        line = _sentence(pool, found)
        if found:
            _LOGGER.warning('%s', line)
        lines.append(line)
    write_json(root / _NAME, kept)
    return lines


def _pools(file: BenchmarkFile, sets: Sequence[PlannedSet]) -> Iterator[_Pool]:
    """The folders of photographs behind the recipes, and those that rows name."""
    tests = {name: find_images([Path(folder)]) for name, folder in file.options.tests.items()}
    rows: dict[tuple[tuple[str, ...], tuple[str, ...]], dict[str, None]] = {}
    for planned in sets:
        extract = planned.shared.recipe.extract if planned.shared else None
        if planned.shared and not extract:
            continue  # photographs of a stage that was run elsewhere
        folders = tuple(extract.dataroot) if extract else (str(hr_folder(planned)),)
        rows.setdefault((folders, tuple(extract.leak_check) if extract else ()), {})[planned.row] = None
    for (folders, checked), names in rows.items():
        covered = {Path(folder).resolve() for folder in checked}
        left_out = tuple(
            name
            for name, folder in file.options.tests.items()
            if covered & {Path(folder).resolve(), *Path(folder).resolve().parents}
        )
        try:
            images = find_images([Path(folder) for folder in folders])
        except InputError as error:
            raise InputError(f'{file.path}: benchmark.sets.{next(iter(names))}: {error}') from None
        yield _Pool(
            tuple(names),
            ' and '.join(folders),
            images,
            {name: own for name, own in tests.items() if name not in left_out},
            left_out,
        )


def _same_scenes(pool: _Pool) -> list[list[str]]:
    """Pairs of an image of the pool and the test image whose scene it shows."""
    tests = {f'{name}/{test.relative}': test.path for name, images in pool.tests.items() for test in images}
    index = SceneIndex(list(tests), [read_rgb(path) for path in tests.values()])
    found = []

    def scene(image: FoundImage) -> str | None:
        try:
            return index.find(read_rgb(image.path))
        except UnreadableImageError:  # the extraction sets it aside
            return None

    scenes = ordered_map(scene, pool.images, default_workers())
    with progress(len(pool.images), 'benchmark: scenes of the tests', 'image') as bar:
        for image, test in zip(pool.images, scenes):
            if test is not None:
                found.append([image.relative, test])
            bar.update()
    return found


def _sentence(pool: _Pool, found: Sequence[Sequence[str]]) -> str:
    parts = []
    if pool.tests:
        listed = '; '.join(f'{image} shows {test}' for image, test in found[:_NAMED])
        more = f' and {len(found) - _NAMED} more' if len(found) > _NAMED else ''
        result = (
            f'{len(found)} show one of their scenes: {listed}{more}; extract.leak_check leaves them out'
            if found
            else 'none shows a scene of theirs'
        )
        parts.append(f'held against {", ".join(pool.tests)}: {result}')
    if pool.left_out:
        parts.append(f'scenes of {", ".join(pool.left_out)} were left out by extract.leak_check')
    return f'{", ".join(pool.rows)}: {len(pool.images)} images of {pool.folder}, {"; ".join(parts)}.'
