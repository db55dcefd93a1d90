"""Scores of photographs from elsewhere: a file that is joined by name, or a metric of pyiqa."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from basicsr_distill.config.sections.base import nearest_name
from basicsr_distill.config.sections.extract import ExtractOptions, ScoreLimits
from basicsr_distill.errors import InputError
from basicsr_distill.io.arrays import read_array
from basicsr_distill.io.files import replacing
from basicsr_distill.io.images import FoundImage, UnreadableImageError, read_rgb
from basicsr_distill.io.manifest import write_csv
from basicsr_distill.io.score_files import read_score_file
from basicsr_distill.runtime.parallel import ordered_map
from basicsr_distill.runtime.progress import progress
from basicsr_distill.stages.extract.filters import refuse_by_score
from basicsr_distill.stages.extract.layout import num_parts, own_images

SCORES_NAME = 'scores.csv'

# Reason and detail of images that their scores set aside, by number.
SetAside = dict[int, tuple[str, str]]


class Scores:
    """The scores of all photographs: a column for every entry of ``extract.scores``."""

    def __init__(self, options: ExtractOptions, images: Sequence[FoundImage], folder: Path) -> None:
        self.entries = options.scores or []
        self.images = images
        self.folder = folder
        self.columns: dict[str, NDArray[np.float32]] = {}

    def compute_own(self, num_workers: int) -> None:
        """Compute this rank's share of what pyiqa scores, but for the parts that an earlier run saved.

        Raises:
            InputError: pyiqa is not there, does not know the metric, or cannot load its weights.
        """
        for entry in self.entries:
            pending = [
                (number, part)
                for number, part in own_images(len(self.images))
                if not self._part_path(entry, number).is_file()
            ]
            if entry.metric is None or not pending:
                continue
            score = _metric(entry)
            with progress(sum(len(part) for _, part in pending), f'extract: {entry.metric}', 'image') as bar:
                for number, part in pending:
                    paths = [self.images[index].path for index in part]
                    values = _score_images(score, paths, entry.batch_size, num_workers)
                    with replacing(self._part_path(entry, number)) as temp, temp.open('wb') as file:
                        np.save(file, values)
                    bar.update(len(part))

    def read(self) -> SetAside:
        """Read all columns, and say which images they set aside.

        Raises:
            InputError: a file cannot be read, or has no score of any photograph.
        """
        aside: SetAside = {}
        for entry in self.entries:
            column = self.columns[entry.name] = self._column(entry)
            for number, (value, detail) in enumerate(zip(column.tolist(), refuse_by_score(entry, column))):
                if entry.file is not None and np.isnan(value):
                    detail = f'no score in {Path(entry.file).name}'
                if detail:
                    aside.setdefault(number, (entry.name, detail))
        return aside

    def publish(self, folder: Path) -> list[str]:
        """Write ``scores.csv``, which ``extract.scores.file`` takes as well; nothing without scores.

        Returns:
            Names of the files written.
        """
        if not self.columns:
            return []
        cells = [['' if np.isnan(value) else f'{value:.9g}' for value in column] for column in self.columns.values()]
        write_csv(folder / SCORES_NAME, ('name', *self.columns), zip((image.relative for image in self.images), *cells))
        return [SCORES_NAME]

    def _part_path(self, entry: ScoreLimits, number: int) -> Path:
        return self.folder / f'{entry.name}_{number:06d}.npy'

    def _column(self, entry: ScoreLimits) -> NDArray[np.float32]:
        if entry.file is None:
            return np.concatenate(
                [read_array(self._part_path(entry, number)) for number in range(num_parts(len(self.images)))]
            )
        return _joined_column(entry.file, entry, self.images)


def file_scores(options: ExtractOptions, images: Sequence[FoundImage]) -> dict[str, NDArray[np.float32]]:
    """The scores that files have of some images, by name, (N,), NaN where there is none.

    Raises:
        InputError: as :meth:`Scores.read`.
    """
    return {
        entry.name: _joined_column(entry.file, entry, images)
        for entry in options.scores or ()
        if entry.file is not None
    }


def _joined_column(file: str, entry: ScoreLimits, images: Sequence[FoundImage]) -> NDArray[np.float32]:
    where = f'extract.scores.file: {file}'
    by_name = read_score_file(Path(file), entry.name_column, entry.column, where)
    column = np.array([_joined(image, by_name) for image in images], np.float32)
    if np.isnan(column).all():
        raise InputError(
            f'{where}: has a score of none of the {len(column)} photographs; its first name is '
            f'{next(iter(by_name), "")!r}, the first photograph is {images[0].relative!r}.'
        )
    return column


def _joined(image: FoundImage, by_name: dict[str, float]) -> float:
    """The score of an image by its path, its file name, or these without the suffix; NaN without one."""
    path = Path(image.relative)
    names = (image.relative, path.name, path.with_suffix('').as_posix(), path.stem)
    return next((by_name[name] for name in names if name in by_name), float('nan'))


def _score_images(
    score: Callable[[Tensor], Tensor], paths: Sequence[Path], batch_size: int, num_workers: int
) -> NDArray[np.float32]:
    """Scores of images, (N,), float32, batches of one size at a time; NaN for one that cannot be read."""
    values = np.full(len(paths), np.nan, np.float32)
    waiting: dict[tuple[int, ...], list[tuple[int, Tensor]]] = {}

    def finish(batch: list[tuple[int, Tensor]]) -> None:
        numbers = [number for number, _ in batch]
        values[numbers] = score(torch.stack([pixels for _, pixels in batch])).float().reshape(-1).cpu().numpy()
        batch.clear()

    for number, pixels in enumerate(ordered_map(_pixels, paths, num_workers)):
        if pixels is not None:
            batch = waiting.setdefault(tuple(pixels.shape), [])
            batch.append((number, pixels))
            if len(batch) == batch_size:
                finish(batch)
    for batch in waiting.values():
        if batch:
            finish(batch)
    return values


def _pixels(path: Path) -> Tensor | None:
    """An image, (3, H, W), in [0, 1]; None where the first pass will say what is wrong with it."""
    try:
        rgb = read_rgb(path)
    except UnreadableImageError:
        return None
    return torch.from_numpy(rgb).permute(2, 0, 1).float() / 255


def _metric(entry: ScoreLimits) -> Callable[[Tensor], Tensor]:
    """A metric of pyiqa as a function of (N, 3, H, W) in [0, 1].

    Raises:
        InputError: see :meth:`Scores.compute_own`.
    """
    try:
        import pyiqa
    except ImportError as error:
        raise InputError(
            f'extract.scores.metric: {entry.metric} needs the package pyiqa ({error}); run `pip install '
            'basicsr-distill[iqa]`.'
        ) from error
    known = pyiqa.list_models(metric_mode='NR')
    if entry.metric not in known:
        raise InputError(
            f'extract.scores.metric: pyiqa has no metric {entry.metric!r} without a reference; did you '
            f'mean {nearest_name(entry.metric or "", known)!r}?'
        )
    device = torch.device('cuda', torch.cuda.current_device()) if torch.cuda.is_available() else torch.device('cpu')
    keys: dict[str, Any] = {} if entry.weights is None else {'pretrained_model_path': entry.weights}
    try:
        with _plain_weights():
            metric = pyiqa.create_metric(entry.metric, device=device, **keys)
    except Exception as error:  # a download, a broken file, an argument that this metric does not take
        raise InputError(
            f'extract.scores.metric: pyiqa cannot make {entry.metric} ({str(error).splitlines()[0]}); '
            'give its weights as a local file.'
        ) from error
    return partial(_scored_by, metric, device)


def _scored_by(metric: Callable[[Tensor], Tensor], device: torch.device, pixels: Tensor) -> Tensor:
    # Some metrics look at random crops: an image's score must not depend on those before it.
    with torch.random.fork_rng([device] if device.type == 'cuda' else []), torch.inference_mode():
        torch.manual_seed(0)
        return metric(pixels.to(device))


@contextmanager
def _plain_weights() -> Iterator[None]:
    """Have torch refuse weights that hold more than tensors: pyiqa reads its files with everything in them."""
    name = 'TORCH_FORCE_WEIGHTS_ONLY_LOAD'
    before = os.environ.get(name)
    os.environ[name] = '1'
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
