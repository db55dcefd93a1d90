"""Which patches are chosen: a method's pure function on the patches that are allowed, in all or cluster by cluster."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from basicsr_distill.config.sections.select import ScoreFileOptions, SelectOptions
from basicsr_distill.errors import InputError
from basicsr_distill.io.score_files import read_score_file
from basicsr_distill.selection.choices import Indices
from basicsr_distill.selection.core_sets import choose_by_herding, choose_k_center
from basicsr_distill.selection.medoids import choose_medoids
from basicsr_distill.selection.random_choice import choose_per_cluster, choose_random, choose_under_threshold, in_band
from basicsr_distill.selection.ranked import choose_hardest, choose_highest
from basicsr_distill.stages.select.pool import Pool


@dataclass(frozen=True)
class Candidates:
    """The patches that a method may choose from: all of the band, or those of one cluster."""

    options: SelectOptions
    psnr_db: NDArray[np.float32]  # (N,)
    labels: NDArray[np.int64]  # (N,), clusters
    features: NDArray[np.float32] | None  # (N, D), for methods that use them
    scores: NDArray[np.float64] | None  # (N,): losses, or those of a file

    def __len__(self) -> int:
        return len(self.psnr_db)


@dataclass(frozen=True)
class Method:
    """A way of choosing, and what the stage and the dataset card say of it."""

    choose: Callable[[Any, int], Indices]  # from Candidates and a count to numbers among them
    uses_features: bool = False
    uses_band: bool = True  # or chooses from all patches, whatever the band
    is_nested: bool = True  # the first n of m > n patches chosen are the n patches chosen


METHODS = {
    'random': Method(lambda pool, count: choose_random(len(pool), count, pool.options.seed), uses_band=False),
    'threshold': Method(
        lambda pool, count: choose_under_threshold(pool.psnr_db, pool.options.threshold, count, pool.options.seed),
        uses_band=False,
    ),
    'band': Method(lambda pool, count: choose_random(len(pool), count, pool.options.seed)),
    'uniform': Method(lambda pool, count: choose_per_cluster(pool.labels, count, pool.options.seed)),
    # k-means with another k has other centres.
    'medoids': Method(
        lambda pool, count: choose_medoids(pool.features, count, pool.options.seed), uses_features=True, is_nested=False
    ),
    'herding': Method(lambda pool, count: choose_by_herding(pool.features, count), uses_features=True),
    'k_center': Method(
        lambda pool, count: choose_k_center(pool.features, count, pool.options.outliers), uses_features=True
    ),
    'loss': Method(lambda pool, count: choose_hardest(pool.scores, count, pool.options.skip_hardest)),
    'file': Method(lambda pool, count: choose_highest(pool.scores, count)),
}


def choose(
    options: SelectOptions, pool: Pool, features: NDArray[np.float32] | None, scores: NDArray[np.float64] | None
) -> list[int]:
    """Choose the patches of a set: indices in the order chosen, cluster after cluster with ``images_per_cluster``.

    Args:
        options: of the stage.
        pool: the patches.
        features: (N, D), for the methods that look at them.
        scores: (N,), for ``loss`` (losses) and ``file`` (the highest are chosen).

    Raises:
        InputError: more patches are asked for than there are, or a cluster is empty.
    """
    allowed: Indices = np.arange(len(pool.rows))
    method = METHODS[options.method]
    if options.band is not None and method.uses_band:
        allowed = np.flatnonzero(in_band(pool.psnr_db, *options.band))

    def pick(allowed: Indices, count: int, where: str) -> list[int]:
        candidates = Candidates(
            options,
            pool.psnr_db[allowed],
            pool.labels[allowed],
            np.asarray(features[allowed]) if features is not None and method.uses_features else None,
            None if scores is None else scores[allowed],
        )
        try:
            return allowed[method.choose(candidates, count)].tolist()
        except ValueError as error:
            band = ', widen select.band' if options.band is not None and method.uses_band else ''
            raise InputError(f'{where}: {error}; ask for fewer{band} or extract more patches.') from error

    if options.num_images is not None:
        return pick(allowed, options.num_images, 'select.num_images')
    assert options.images_per_cluster is not None
    return [
        index
        for label in range(pool.labels.max() + 1)
        for index in pick(
            allowed[pool.labels[allowed] == label],
            options.images_per_cluster,
            f'select.images_per_cluster: cluster {label}',
        )
    ]


def read_scores(options: ScoreFileOptions, pool: Pool) -> NDArray[np.float64]:
    """A score of every patch, higher is better, (N,).

    The file is CSV with a header, or holds a name and a number a line. Names are those of the patches, with or without
    ``.png``.

    Raises:
        InputError: the file cannot be read, has no such column, a patch has no score, or one is not a finite number.
    """
    path = Path(options.path)
    where = f'select.scores.path: {path}'
    by_name = {
        name.removesuffix('.png'): score
        for name, score in read_score_file(path, options.name_column, options.score_column, where).items()
    }
    unknown = [row.name for row in pool.rows if row.name.removesuffix('.png') not in by_name]
    if unknown:
        raise InputError(
            f'{where}: no score for {unknown[0]} ({len(unknown)} of {len(pool.rows)} patches); names are '
            f'those of {pool.folder / "manifest.csv"}.'
        )
    scores = np.array([by_name[row.name.removesuffix('.png')] for row in pool.rows])
    return -scores if options.lowest_first else scores
