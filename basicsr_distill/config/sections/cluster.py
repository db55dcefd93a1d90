"""The ``cluster`` stage."""

from typing import Annotated, Literal

from pydantic import Field

from basicsr_distill.config.registry import register
from basicsr_distill.config.sections.base import Count, Options, OutputFolder, PositiveInt
from basicsr_distill.config.sections.encoders import EncoderOptions, OpenClipEncoderOptions


@register('stage', 'cluster')
class ClusterOptions(Options):
    """Features of the patches and a label for each."""

    save_dir: OutputFolder = Field(description='Folder that the stage makes: labels.csv, features.npy, centers.npy.')
    encoder: EncoderOptions = Field(OpenClipEncoderOptions(), description='What turns a patch into features.')
    num_clusters: PositiveInt | Literal['auto'] = Field(7, description='k of k-means, or auto: the best silhouette.')
    balance: bool = Field(
        False, description='Make all clusters of equal size (within one patch) by moving the patches that lose least.'
    )
    seed: Count = Field(0, description='Of k-means.')
    num_workers: Annotated[PositiveInt | None, Field(exclude=True)] = Field(
        None, description='Threads that decode patches, one a core when absent; the result does not depend on it.'
    )
