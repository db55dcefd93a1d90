"""Which patches are chosen: a method's pure function on the patches that are allowed, in all or cluster by cluster."""

from collections.abc import Callable
from pathlib import Path

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

# Methods that look at features.
FEATURE_METHODS = frozenset({'medoids', 'herding', 'k_center'})
# Methods that choose from all patches, whatever the band.
METHODS_WITHOUT_BAND = frozenset({'random', 'threshold'})

# From indices of the patches allowed and a count to numbers among them.
Method = Callable[[Indices, int], Indices]


def choose(
    options: SelectOptions, pool: Pool, features: NDArray[np.float32] | None, scores: NDArray[np.float64] | None
) -> list[int]:
    """Indices of the patches of the set, in the order chosen; cluster after cluster with ``images_per_cluster``.

    Args:
        features: (N, D), for the methods that look at them.
        scores: (N,), for ``loss`` (losses) and ``file`` (the highest are chosen).

    Raises:
        InputError: more patches are asked for than there are, or a cluster is empty.
    """
    allowed = np.arange(len(pool.rows))
    if options.band is not None and options.method not in METHODS_WITHOUT_BAND:
        allowed = np.flatnonzero(in_band(pool.psnr_db, *options.band))
    method = _method(options, pool, features, scores)
    if options.num_images is not None:
        return _pick(options, method, allowed, options.num_images, 'select.num_images')
    assert options.images_per_cluster is not None
    return [
        pick
        for label in range(pool.labels.max() + 1)
        for pick in _pick(
            options,
            method,
            allowed[pool.labels[allowed] == label],
            options.images_per_cluster,
            f'select.images_per_cluster: cluster {label}',
        )
    ]


def _pick(options: SelectOptions, method: Method, allowed: Indices, count: int, where: str) -> list[int]:
    try:
        return allowed[method(allowed, count)].tolist()
    except ValueError as error:
        band = '' if options.band is None or options.method in METHODS_WITHOUT_BAND else ', widen select.band'
        raise InputError(f'{where}: {error}; ask for fewer{band} or extract more patches.') from error


def _method(
    options: SelectOptions, pool: Pool, features: NDArray[np.float32] | None, scores: NDArray[np.float64] | None
) -> Method:
    """The function of ``selection`` that the options name."""
    seed = options.seed

    def of(values: NDArray[np.float32] | NDArray[np.float64] | None, allowed: Indices) -> NDArray[np.float32]:
        assert values is not None
        return np.asarray(values[allowed])

    methods: dict[str, Method] = {
        'random': lambda allowed, count: choose_random(len(allowed), count, seed),
        'band': lambda allowed, count: choose_random(len(allowed), count, seed),
        'threshold': lambda allowed, count: choose_under_threshold(
            pool.psnr_db[allowed], options.threshold, count, seed
        ),
        'uniform': lambda allowed, count: choose_per_cluster(pool.labels[allowed], count, seed),
        'medoids': lambda allowed, count: choose_medoids(of(features, allowed), count, seed),
        'herding': lambda allowed, count: choose_by_herding(of(features, allowed), count),
        'k_center': lambda allowed, count: choose_k_center(of(features, allowed), count, options.outliers),
        'loss': lambda allowed, count: choose_hardest(of(scores, allowed), count, options.skip_hardest),
        'file': lambda allowed, count: choose_highest(of(scores, allowed), count),
    }
    return methods[options.method]


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
