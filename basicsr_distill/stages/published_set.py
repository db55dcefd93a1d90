"""What every published set holds, whoever made it: pairs, tables and a montage that BasicSR and people can read."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from basicsr_distill.io.figures import save_montage
from basicsr_distill.io.images import write_png
from basicsr_distill.io.manifest import (
    HR_FOLDER,
    MANIFEST_NAME,
    META_INFO_NAME,
    write_meta_info,
    write_metadata,
    write_table,
)
from basicsr_distill.ops.bicubic import make_lr
from basicsr_distill.selection.distances import distance_to_others, nearest

CARD_NAME = 'README.md'
_MONTAGE_COLUMNS = 10
# Patches whose nearest other patch is sought, for comparison.
_PROBES = 128


def write_set(
    folder: Path,
    images: Sequence[NDArray[np.uint8]],
    rows: Sequence[Any],
    row_type: Any,
    scale: int,
    targets: Sequence[NDArray[np.uint8]] | None = None,
) -> None:
    """Write HR/, LR_bicubic/X<scale>/, manifest.csv, meta_info.txt and metadata.csv.

    Args:
        folder: of the set.
        images: HR, (H, W, 3), uint8, RGB, of one size.
        rows: of the manifest, one an image; ``name`` is the name of its file.
        row_type: their class.
        scale: factor between HR and LR images.
        targets: HR images in place of ``images``, of which the LR images are made in any case.
    """
    lr_folder = folder / 'LR_bicubic' / f'X{scale}'
    for path in (folder / HR_FOLDER, lr_folder):
        path.mkdir(parents=True, exist_ok=True)
    for row, rgb, hr in zip(rows, images, images if targets is None else targets):
        write_png(folder / HR_FOLDER / row.name, hr)
        write_png(lr_folder / row.name, make_lr(rgb, scale))
    write_table(folder / MANIFEST_NAME, rows, row_type)
    write_meta_info(folder / META_INFO_NAME, [row.name for row in rows], images[0].shape)
    write_metadata(folder, rows, lr_folder)


def write_montage(folder: Path, images: Sequence[NDArray[np.uint8]], labels: Sequence[int]) -> None:
    """montage.png: a row a label, its first images."""
    save_montage(
        folder / 'montage.png',
        [[rgb for rgb, own in zip(images, labels) if own == label][:_MONTAGE_COLUMNS] for label in sorted(set(labels))],
    )


def coverage_facts(features: NDArray[np.float32], pool: NDArray[np.float32], seed: int) -> dict[str, dict[str, float]]:
    """Quantiles of feature distances, for stage.json and the card.

    Args:
        features: of the set, (N, D).
        pool: of the patches, (M, D).
        seed: of the patches at random that the set's coverage is compared with.

    Returns:
        ``nearest_patch``: of an image to the patch most like it.  ``patches_nearest_patch``: of a patch to the patch
        most like it.  ``coverage``: of a patch to the image most like it.  ``patches_coverage``: the same for as many
        patches at random.
    """
    probes = np.arange(0, len(pool), -(-len(pool) // _PROBES))
    as_many = np.random.default_rng(seed).permutation(len(pool))[: len(features)]
    return {
        'nearest_patch': quantiles(nearest(features, pool)[1]),
        'patches_nearest_patch': quantiles(distance_to_others(pool, probes)),
        'coverage': quantiles(nearest(pool, features)[1]),
        'patches_coverage': quantiles(nearest(pool, pool[as_many])[1]),
    }


def quantiles(values: Sequence[float] | NDArray[Any]) -> dict[str, float]:
    """5 %, median and 95 %."""
    return {
        name: round(float(np.quantile(values, q)), 4) for name, q in (('q05', 0.05), ('median', 0.5), ('q95', 0.95))
    }
