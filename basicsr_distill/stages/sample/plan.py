"""Which images are drawn: labels, indices, and the patches that they start from."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from basicsr_distill.config.sections.sample import PrototypeInitOptions, SampleOptions
from basicsr_distill.data.latent_patch_dataset import LatentPatchDataset
from basicsr_distill.selection.medoids import choose_medoids
from basicsr_distill.stages.sample.source import Source

# Latents of a label, or of all for their range, are looked at up to this many, evenly chosen.
_MAX_LATENTS = 2048


@dataclass(frozen=True)
class Draw:
    """One image to draw."""

    label: int
    index: int
    prototype: int | None  # index of the patch that it starts from; noise when absent

    @property
    def name(self) -> str:
        """Of the image's file."""
        return f'label{self.label:03d}_{self.index:05d}.png'


def plan_draws(options: SampleOptions, source: Source) -> list[Draw]:
    """Every image to draw, label after label; prototypes are used in turn."""
    draws = []
    for label in np.unique(source.labels).tolist():
        starts = _prototypes(options, source, label) if isinstance(options.init, PrototypeInitOptions) else [None]
        draws += [
            Draw(label, index, starts[index % len(starts)])
            for index in range(options.images_per_cluster * options.oversample)
        ]
    return draws


def some_latents(
    patches: LatentPatchDataset, members: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Mean latents of members of the patches, of 2,048 of them where there are more: which, (M,), and (M, C, h, w)."""
    chosen = members[:: -(-len(members) // _MAX_LATENTS)]
    return chosen, np.stack([patches.latent_mean(int(member)).numpy() for member in chosen])


def _prototypes(options: SampleOptions, source: Source, label: int) -> list[int | None]:
    """The patches nearest to the centres of a label's clusters, one an image; again from the first where they are few.

    Clusters are of the features, but of the latents where images are pulled to modes: those of the modes, so that an
    image is pulled to the mode of the cluster that it starts from.
    """
    members = np.flatnonzero(source.labels == label)
    if options.mode_guidance is None:
        points = source.features[members]
    else:
        assert isinstance(source.patches, LatentPatchDataset)
        members, latents = some_latents(source.patches, members)
        points = latents.reshape(len(latents), -1)
    nearest = choose_medoids(points, min(options.images_per_cluster, len(members)), options.seed)
    return members[np.resize(nearest, options.images_per_cluster)].tolist()
