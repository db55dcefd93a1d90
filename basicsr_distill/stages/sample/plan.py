"""Which images are drawn: labels, indices, and the patches that they start from."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from basicsr_distill.config.sections import PrototypeInitOptions, SampleOptions
from basicsr_distill.selection.kmeans import cluster, distances


@dataclass(frozen=True)
class Draw:
    """One image to draw. prototype: index of the patch that it starts from, or None for noise."""

    label: int
    index: int
    prototype: int | None

    @property
    def name(self) -> str:
        """Of the image's file."""
        return f'label{self.label:03d}_{self.index:05d}.png'


def plan_draws(options: SampleOptions, labels: NDArray[np.int64], features: NDArray[np.float32]) -> list[Draw]:
    """Every image to draw, label after label; prototypes are used in turn.

    Args:
        labels: of the patches, (N,), int64.
        features: of the patches, (N, D), float32.
    """
    draws = []
    for label in np.unique(labels).tolist():
        starts: list[int] = []
        if isinstance(options.init, PrototypeInitOptions):
            starts = prototypes(np.flatnonzero(labels == label), features, options.images_per_cluster, options.seed)
        for index in range(options.images_per_cluster * options.oversample):
            draws.append(Draw(label, index, starts[index % len(starts)] if starts else None))
    return draws


def prototypes(members: NDArray[np.int64], features: NDArray[np.float32], count: int, seed: int) -> list[int]:
    """The members nearest to the centres of ``count`` clusters of their features; all, where there are no more."""
    if len(members) <= count:
        return members.tolist()
    centers = cluster(features[members], count, seed).centers
    chosen: list[int] = []
    for column in distances(features[members], centers).T:
        order = members[np.argsort(column, kind='stable')]
        chosen.append(next(int(member) for member in order if member not in chosen))
    return chosen
