"""Names for the images that a validation saves."""

import os
from collections import Counter
from collections.abc import Iterator
from typing import Any


def distinct_paths(paths: list[str]) -> dict[str, str]:
    """A path for each image whose last part, without its suffix, no other has.

    BasicSR saves an image under that part alone, so that ``A/p0.png``, ``B/p0.png`` and ``A/p0.jpg`` would overwrite
    each other. Where none does, names stay as they are; else the folders in which they differ are put in front, then
    the suffix behind, then a number.

    >>> distinct_paths(['set/A/p0.png', 'set/B/p0.png'])
    {'set/A/p0.png': 'set/A/A_p0.png', 'set/B/p0.png': 'set/B/B_p0.png'}
    """
    paths = list(dict.fromkeys(paths))
    split = [os.path.splitext(path) for path in paths]
    stems = [os.path.basename(stem) for stem, _ in split]
    if not _are_distinct(stems):
        common = os.path.commonpath([os.path.dirname(path) for path in paths])
        stems = [os.path.relpath(stem, common).replace(os.sep, '_') for stem, _ in split]
    if not _are_distinct(stems):
        stems = [f'{stem}_{suffix.removeprefix(".")}' for stem, (_, suffix) in zip(stems, split)]
    if not _are_distinct(stems):
        stems = [f'{stem}_{number}' for number, stem in enumerate(stems)]
    return {
        path: os.path.join(os.path.dirname(path), f'{stem}{suffix}')
        for path, stem, (_, suffix) in zip(paths, stems, split)
    }


def _are_distinct(stems: list[str]) -> bool:
    return max(Counter(stems).values(), default=1) == 1


class NamedImages:
    """A validation loader whose images have ``lq_path`` of :func:`distinct_paths`, by which BasicSR names results."""

    def __init__(self, loader: Any) -> None:
        self.loader = loader
        self.dataset = loader.dataset
        entries = getattr(self.dataset, 'paths', [])
        listed = [entry.get('lq_path') if isinstance(entry, dict) else entry for entry in entries]
        self._paths = distinct_paths([path for path in listed if isinstance(path, str)])

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        for batch in self.loader:
            if isinstance(batch, dict) and 'lq_path' in batch:
                batch = {**batch, 'lq_path': [self._paths.get(path, path) for path in batch['lq_path']]}
            yield batch
