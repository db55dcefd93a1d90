"""The second stage: patches get pseudo-labels, the clusters of what an image encoder sees in them."""

import io
import logging
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from threadpoolctl import threadpool_limits

from basicsr_distill.config.recipe import Recipe
from basicsr_distill.config.sections.cluster import ClusterOptions
from basicsr_distill.errors import InputError
from basicsr_distill.io.arrays import read_array
from basicsr_distill.io.figures import save_feature_map, save_montage
from basicsr_distill.io.files import write_atomic
from basicsr_distill.io.images import read_rgb
from basicsr_distill.io.inputs import file_inputs
from basicsr_distill.io.manifest import IMAGES_FOLDER, MANIFEST_NAME, PatchRow, read_labels, read_table, write_csv
from basicsr_distill.runtime import distributed
from basicsr_distill.runtime.parallel import one_thread_per_operation
from basicsr_distill.selection.distances import paired_distances
from basicsr_distill.selection.kmeans import Clusters, choose_num_clusters, cluster
from basicsr_distill.stages.features import encode_own_parts, join_parts
from basicsr_distill.stages.record import (
    StagePlan,
    StageResult,
    StageRun,
    fingerprint_stage,
    photo_folders,
    refuse_overlap,
)
from basicsr_distill.stages.sharding import shared_stage_folder

LABELS_NAME = 'labels.csv'
FEATURES_NAME = 'features.npy'
CENTERS_NAME = 'centers.npy'
_MONTAGE_COLUMNS = 8
_MONTAGE_SIZE_PX = 128
# The map is fitted to and drawn from at most so many patches.
_MAP_POINTS = 20_000

log = logging.getLogger(__name__)


def run(recipe: Recipe) -> StageResult:
    """Cluster the patches of the extract stage.

    Returns:
        Its folder, ``cluster.save_dir``, holds labels.csv (name, label), features.npy (N, D), float32, in the order of
        the patches' manifest, centers.npy (k, D), montage.png (the patches nearest each centre), map.png, stage.json.

    Raises:
        InputError: the patches are not there or cannot be read, the encoder's weights cannot be loaded, or k is larger
            than the number of patches.
        OSError: the disk is full.
    """
    asked, options, patches = plan(recipe), *_sections(recipe)
    names = [row.name for row in read_table(patches / MANIFEST_NAME, PatchRow)]
    if isinstance(options.num_clusters, int) and options.num_clusters > len(names):
        raise InputError(
            f'cluster.num_clusters: {options.num_clusters} clusters of {len(names)} patches; ask for at '
            f'most {len(names)}, or extract more patches.'
        )
    with shared_stage_folder(asked) as stage:
        if not stage.finished:
            paths = [patches / IMAGES_FOLDER / name for name in names]
            with distributed.broadcast_failure(), one_thread_per_operation():
                encode_own_parts(options.encoder, paths, stage.parts, options.num_workers, 'cluster')
            with distributed.broadcast_failure():
                if distributed.is_main():
                    _publish(options, names, paths, stage)
    return stage.result


def plan(recipe: Recipe) -> StagePlan:
    """Return what the stage is asked to make.

    Raises:
        InputError: the patches are not there, or the folder cannot be used.
    """
    options, patches = _sections(recipe)
    refuse_overlap(options.save_dir, photo_folders(patches), 'cluster.save_dir')
    return StagePlan(
        Path(options.save_dir),
        'cluster',
        options.model_dump(mode='json'),
        {'patches': fingerprint_stage(patches), **file_inputs(options, 'cluster')},
    )


def _sections(recipe: Recipe) -> tuple[ClusterOptions, Path]:
    """Return the options of the stage, and the folder of the stage before."""
    assert recipe.cluster is not None and recipe.extract is not None
    return recipe.cluster, Path(recipe.extract.save_dir)


def read_features(folder: Path, names: Sequence[str]) -> NDArray[np.float32]:
    """Features of patches, by name, (N, D), from a finished stage's folder; mapped into memory where all are asked for.

    Raises:
        InputError: a table is missing or damaged.
    """
    places = {name: place for place, name in enumerate(read_labels(folder / LABELS_NAME))}
    features = read_array(folder / FEATURES_NAME, mapped=True)
    return features if list(names) == list(places) else features[[places[name] for name in names]]


def _publish(options: ClusterOptions, names: Sequence[str], paths: Sequence[Path], stage: StageRun) -> None:
    """Join the features, cluster them and write everything."""
    folder = stage.folder
    features = join_parts(stage.parts, folder / FEATURES_NAME, len(names))
    num_clusters = (
        choose_num_clusters(features, options.seed) if options.num_clusters == 'auto' else options.num_clusters
    )
    clusters = cluster(features, num_clusters, options.seed, options.balance)
    if len(clusters.centers) < num_clusters:
        log.warning(
            'Only %d distinct clusters of %d: the features of many patches are identical.',
            len(clusters.centers),
            num_clusters,
        )
    write_csv(folder / LABELS_NAME, ('name', 'label'), zip(names, clusters.labels.tolist()))
    centers = io.BytesIO()
    np.save(centers, clusters.centers, allow_pickle=False)
    write_atomic(folder / CENTERS_NAME, centers.getvalue())
    _save_montage(folder / 'montage.png', features, clusters, paths)
    _save_map(folder / 'map.png', features, clusters.labels, options.seed)
    stage.finish(
        {'patches': len(names), 'clusters': len(clusters.centers)},
        [LABELS_NAME, FEATURES_NAME, CENTERS_NAME],
        figures=['montage.png', 'map.png'],
        cluster_sizes=clusters.sizes,
        feature_size=features.shape[1],
    )


def _save_montage(path: Path, features: NDArray[np.float32], clusters: Clusters, paths: Sequence[Path]) -> None:
    """The patches nearest each centre, a row a cluster."""
    own = paired_distances(features, clusters.centers, clusters.labels)
    rows = []
    for label in range(len(clusters.centers)):
        members = np.flatnonzero(clusters.labels == label)
        nearest = members[np.argsort(own[members], kind='stable')[:_MONTAGE_COLUMNS]]
        pictures = [read_rgb(paths[member]) for member in nearest]
        rows.append(
            [
                cv2.resize(picture, (_MONTAGE_SIZE_PX, _MONTAGE_SIZE_PX), interpolation=cv2.INTER_AREA)
                for picture in pictures
            ]
        )
    save_montage(path, rows)


def _save_map(path: Path, features: NDArray[np.float32], labels: NDArray[np.int64], seed: int) -> None:
    """Two principal components of the features."""
    sample = np.sort(np.random.default_rng(seed).permutation(len(features))[:_MAP_POINTS])
    chosen = np.asarray(features[sample])
    # One patch, or one number a patch, still gets its map.
    padded = np.pad(chosen - chosen.mean(axis=0), ((0, max(0, 2 - len(chosen))), (0, max(0, 2 - chosen.shape[1]))))
    with threadpool_limits(1):
        positions = PCA(2, random_state=seed).fit(padded).transform(padded[: len(chosen)])
    save_feature_map(path, positions, labels[sample])
