"""The ``select`` stage: real patches as a set."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from basicsr_distill.config.registry import register
from basicsr_distill.config.sections.base import (
    DEFAULT_SCALE,
    Count,
    Fraction,
    FreeSection,
    NamedFile,
    Options,
    OutputFolder,
    PositiveInt,
    Threshold,
    Word,
)
from basicsr_distill.config.sections.codecs import CodecOptions
from basicsr_distill.config.sections.encoders import EncoderOptions, TextureEncoderOptions

SelectMethod = Literal['random', 'threshold', 'band', 'uniform', 'medoids', 'herding', 'k_center', 'loss', 'file']


class TargetOptions(Options):
    """The HR partners of the LR images."""

    type: Literal['hr', 'teacher', 'mix'] = Field(
        'hr',
        description='hr: the images themselves; teacher: what a trained SR network makes of the LR images; mix: '
        'the mean of both.',
    )
    network: FreeSection | NamedFile | None = Field(
        None,
        description='The SR network: a section like network_g (type and its arguments), or an option file that '
        'has one.',
    )
    weights: NamedFile | None = Field(None, description='File of its weights.')

    @model_validator(mode='after')
    def _a_teacher_is_named(self) -> 'TargetOptions':
        if self.type != 'hr' and (self.network is None or self.weights is None):
            raise ValueError(f'type {self.type} needs network and weights')
        return self

    @property
    def idle(self) -> frozenset[str]:
        """Of ``hr``, the network."""
        return frozenset({'network', 'weights'} if self.type == 'hr' else ())


class ScoreFileOptions(Options):
    """Scores that were computed elsewhere."""

    path: NamedFile = Field(
        description='CSV file with a header, or lines of a name and a number; the highest are chosen.'
    )
    name_column: Word = Field('name', description='Column of a CSV file with the names of the patches.')
    score_column: Word = Field('score', description='Column of a CSV file with the numbers.')
    lowest_first: bool = Field(False, description='Choose the lowest.')


@register('stage', 'select')
class SelectOptions(Options):
    """Real patches chosen as a training set: what a drawn set has to beat."""

    method: SelectMethod = Field(
        'medoids',
        description='medoids: nearest to the centres of k-means with k = count. random. threshold: random under the '
        'threshold. band: random in the band. uniform: equal share per cluster. herding. k_center. loss: '
        'hardest for a small SR network. file: by scores from a file.',
    )
    num_images: PositiveInt | None = Field(None, description='Patches chosen in all.')
    images_per_cluster: PositiveInt | None = Field(
        None, description='Patches chosen within each cluster of the cluster stage, in place of num_images.'
    )
    save_dir: OutputFolder = Field(
        description='Folder that the stage makes: HR/, LR_bicubic/, manifest.csv, README.md.'
    )
    band: tuple[Fraction, Fraction] | None = Field(
        (0.05, 0.5),
        description="Quantiles of the patches' psnr_db between which patches are chosen, so that the "
        'hardest are left out; null for all. random and threshold choose from all anyway.',
    )
    threshold: Threshold = Field('median', description='Of method threshold: decibels, median or qNN.')
    encoder: EncoderOptions | list[EncoderOptions] = Field(
        TextureEncoderOptions(),
        description='What turns a patch into features; a list of several joins theirs with an equal say.',
    )
    outliers: Fraction = Field(
        0.0, description='Of method k_center: share of the patches, oddest first, that is left uncovered.'
    )
    skip_hardest: Fraction = Field(0.05, description='Of method loss: share of the largest losses that is left out.')
    loss_iter: PositiveInt = Field(500, description='Of method loss: iterations of the small SR network.')
    scores: ScoreFileOptions | None = Field(None, description='Of method file.')
    codec: CodecOptions | None = Field(
        None, description="Send the chosen patches through a codec, so that its loss and sampling's can be compared."
    )
    targets: TargetOptions = Field(TargetOptions(), description='What the HR partners are.')
    scale: PositiveInt = Field(DEFAULT_SCALE, description='Factor between HR and LR images.')
    seed: Count = Field(0, description='Of every choice that is random.')
    num_workers: Annotated[PositiveInt | None, Field(exclude=True)] = Field(
        None, description='Threads that decode patches, one a core when absent; the result does not depend on it.'
    )

    @model_validator(mode='after')
    def _keys_agree(self) -> 'SelectOptions':
        if (self.num_images is None) == (self.images_per_cluster is None):
            raise ValueError('give one of num_images and images_per_cluster')
        if self.method == 'uniform' and self.images_per_cluster is not None:
            raise ValueError('method uniform takes equal shares of all clusters by itself; give num_images')
        if self.band is not None and self.band[0] >= self.band[1]:
            raise ValueError(f'band {list(self.band)} must rise')
        if (self.method == 'file') != (self.scores is not None):
            raise ValueError('method file and the section scores go with each other')
        if isinstance(self.encoder, list) and not self.encoder:
            raise ValueError('encoder: name at least one')
        return self

    @property
    def encoders(self) -> list[Any]:
        """One or several encoders."""
        return self.encoder if isinstance(self.encoder, list) else [self.encoder]
