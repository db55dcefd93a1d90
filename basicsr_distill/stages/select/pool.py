"""What is chosen from: the patches of the extract stage, their clusters and their features."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from basicsr_distill.config.sections.cluster import ClusterOptions
from basicsr_distill.config.sections.select import SelectOptions
from basicsr_distill.errors import InputError
from basicsr_distill.features.joined import join_features
from basicsr_distill.io.images import read_rgb
from basicsr_distill.io.inputs import file_inputs
from basicsr_distill.io.manifest import IMAGES_FOLDER, MANIFEST_NAME, PatchRow, labels_of, read_table
from basicsr_distill.stages.cluster import LABELS_NAME
from basicsr_distill.stages.cluster import read_features as read_cluster_features
from basicsr_distill.stages.features import encode_own_parts, join_parts
from basicsr_distill.stages.record import fingerprint_stage, read_stage


@dataclass(frozen=True)
class Pool:
    """Patches to choose from."""

    folder: Path  # of the extract stage
    rows: Sequence[PatchRow]  # its manifest
    psnr_db: NDArray[np.float32]  # (N,)
    clusters: Path | None  # folder of the cluster stage, if the recipe has one
    labels: NDArray[np.int64]  # (N,), clusters; zeros without them

    def paths(self) -> list[Path]:
        """Files of the patches."""
        return [self.folder / IMAGES_FOLDER / row.name for row in self.rows]

    def image(self, number: int) -> NDArray[np.uint8]:
        """A patch, (H, W, 3), uint8, RGB."""
        return read_rgb(self.folder / IMAGES_FOLDER / self.rows[number].name)

    def fingerprints(self) -> dict[str, str]:
        """Checksums of what the choice depends on."""
        inputs = {'patches': fingerprint_stage(self.folder)}
        return inputs if self.clusters is None else {**inputs, 'clusters': fingerprint_stage(self.clusters)}


def open_pool(patches: Path, clusters: Path | None) -> Pool:
    """Read the tables.

    Raises:
        InputError: a stage has not been run, or the clusters are not those of the patches.
    """
    rows = read_table(patches / MANIFEST_NAME, PatchRow)
    if not rows:
        raise InputError(f'{patches / MANIFEST_NAME}: lists no patches; extract some first.')
    labels: NDArray[np.int64] = np.zeros(len(rows), np.int64)
    if clusters is not None:
        labels = np.array(labels_of(rows, patches, clusters / LABELS_NAME))
    return Pool(patches, rows, np.array([row.psnr_db for row in rows], np.float32), clusters, labels)


def encode_pool(options: SelectOptions, pool: Pool, parts: Path) -> None:
    """This rank's features of every encoder that the cluster stage has not used already."""
    for number, encoder in enumerate(options.encoders):
        if not _is_clusters_encoder(encoder, pool):
            encode_own_parts(encoder, pool.paths(), parts / str(number), options.num_workers, 'select')


def read_features(options: SelectOptions, pool: Pool, parts: Path) -> dict[str, NDArray[np.float32]]:
    """Features (N, D), float32, by encoder: each by its type, and ``joined`` where there are several."""
    found: dict[str, NDArray[np.float32]] = {}
    for number, encoder in enumerate(options.encoders):
        if _is_clusters_encoder(encoder, pool):
            assert pool.clusters is not None
            features = read_cluster_features(pool.clusters, [row.name for row in pool.rows])
        else:
            features = join_parts(parts / str(number), parts / f'{number}.npy', len(pool.rows))
        found[encoder.type if encoder.type not in found else f'{encoder.type}_{number}'] = features
    if len(found) > 1:
        found['joined'] = join_features(list(found.values()))
    return found


def _is_clusters_encoder(encoder: Any, pool: Pool) -> bool:
    """Return whether the clusters' features are this encoder's, made with the files that its options lead to now."""
    if pool.clusters is None:
        return False
    record = read_stage(pool.clusters)
    made_with = {key: digest for key, digest in record.get('inputs', {}).items() if key.startswith('encoder.')}
    files = {f'encoder.{key}': digest for key, digest in file_inputs(encoder, 'select.encoder').items()}
    return ClusterOptions(**record['options']).encoder == encoder and made_with == files
