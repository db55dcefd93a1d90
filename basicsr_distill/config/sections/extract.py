"""The ``extract`` stage."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema, field_validator, model_validator

from basicsr_distill.config.registry import register
from basicsr_distill.config.sections.base import (
    DEFAULT_SCALE,
    OFF,
    Count,
    DataFolder,
    NamedFile,
    Options,
    OutputFolder,
    PositiveInt,
    PsnrMetric,
    Threshold,
    Word,
)

_ONE_OR_MORE = {'anyOf': [{'type': 'string'}, {'type': 'array', 'items': {'type': 'string'}, 'minItems': 1}]}


class FilterLimits(Options):
    """Of what an image is measured to be."""

    min: Threshold | None = Field(None, description='Less is set aside: a number, or qNN of all images.')
    max: Threshold | None = Field(None, description='More is set aside: a number, or qNN of all images.')

    @model_validator(mode='after')
    def _one_at_least(self) -> 'FilterLimits':
        if self.min is None and self.max is None:
            raise ValueError('give min, max, or both')
        return self

    @property
    def is_relative(self) -> bool:
        """Whether a limit is a quantile."""
        return isinstance(self.min, str) or isinstance(self.max, str)


class UpscaledLimits(FilterLimits):
    """Of the factor by which an image was enlarged."""

    reduce: bool = Field(False, description='Reduce images over max by the factor found instead of setting them aside.')

    @model_validator(mode='after')
    def _reduced_over_a_number(self) -> 'UpscaledLimits':
        if self.reduce and not isinstance(self.max, float):
            raise ValueError('reduce needs max, in numbers')
        return self


class SourceFilterOptions(Options):
    """Filters of whole photographs; each is off when absent."""

    min_side: FilterLimits | None = Field(None, description='Of the shorter side, pixels, such as {min: 720}.')
    aspect: FilterLimits | None = Field(None, description='Longer side over the shorter one, such as {max: 4}.')
    grey: FilterLimits | None = Field(
        None,
        description='Mean difference between the strongest and the weakest channel, of 255; {min: 2} leaves out '
        'grey pictures.',
    )
    blockiness: FilterLimits | None = Field(
        None,
        description="DiverSeg's measure of JPEG's blocks: photographs of quality 95 have about 6, of 90 15, of "
        '70 90; {max: 30} is what BHI cuts at.',
    )
    upscaled: UpscaledLimits | None = Field(
        None, description='Factor by which an image was enlarged, 1 where no trace of it is found, such as {max: 1.2}.'
    )
    noise: FilterLimits | None = Field(
        None,
        description='Standard deviation of noise in the quietest fifth of an image, of the green channel, of '
        '255, such as {max: 12}.',
    )


class ScoreLimits(FilterLimits):
    """Of a score of every photograph, read from a file or computed by pyiqa."""

    file: NamedFile | None = Field(
        None,
        description='CSV file with a header, or lines of a name and a number. Names are paths below dataroot, '
        'file names, or those without their suffix.',
    )
    column: Word = Field('score', description='Column of a CSV file with the numbers.')
    name_column: Word = Field('name', description='Column of a CSV file with the names.')
    metric: Word | None = Field(
        None,
        description='A no-reference metric of pyiqa in place of a file, such as hyperiqa, topiq_nr, musiq; needs '
        'pip install basicsr-distill[iqa].',
    )
    weights: NamedFile | None = Field(
        None, description="File of the metric's weights; downloaded by pyiqa when absent."
    )
    batch_size: PositiveInt = Field(8, description='Photographs of one size that are scored at once.')

    @model_validator(mode='after')
    def _one_origin(self) -> 'ScoreLimits':
        if (self.file is None) == (self.metric is None):
            raise ValueError('give file or metric')
        if self.weights is not None and self.metric is None:
            raise ValueError('weights are those of a metric')
        return self

    @property
    def name(self) -> str:
        """What the score is called in quarantine.csv and scores.csv."""
        assert self.file is not None or self.metric is not None
        return self.metric or (
            self.column if Path(self.file or '').suffix.lower() == '.csv' else Path(self.file or '').stem
        )


class WindowFilterOptions(Options):
    """Filters of single windows; each is off when absent."""

    flat: FilterLimits | None = Field(
        None,
        description='Share of a window without texture, such as {max: 0.5}: a window that is half sky is left out.',
    )
    saturated: FilterLimits | None = Field(
        None, description='Share of a window that is white or black, such as {max: 0.25}.'
    )
    noise: FilterLimits | None = Field(
        None, description='Standard deviation of noise in the quietest fifth of a window, of 255.'
    )
    halftone: FilterLimits | None = Field(
        None,
        description='Height of the highest peak of the spectrum over its surroundings, dB: screens of print, '
        'moire and rows of small type have some 20, photographs less than 10.',
    )


class BestWindows(Options):
    """Windows where most detail is, one after the other, at whole LR pixels."""

    type: Literal['best'] = Field('best', description='The kind.')
    by: Literal['psnr', 'laplacian'] = Field(
        'psnr', description='psnr: where bicubic loses most; laplacian: of the highest mean absolute Laplacian.'
    )
    max_overlap: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0, description='Share of its area that a window may have in common with a better one.'
    )


class PoissonWindows(Options):
    """Random windows that keep a distance (Poisson disk sampling), drawn with extract.seed."""

    type: Literal['poisson'] = Field('poisson', description='The kind.')
    min_distance: PositiveInt | None = Field(
        None, description="Of two windows' corners, pixels; the patch size when absent."
    )


def _named_windows(value: Any) -> Any:
    """A bare name is a kind without options; the grid is what no entry means."""
    value = {'type': value} if isinstance(value, str) else value
    return None if value == {'type': 'grid'} else value


WindowOptions = Annotated[BestWindows | PoissonWindows, Field(discriminator='type')]
_NamedWindows = Annotated[
    WindowOptions | None,
    BeforeValidator(_named_windows, json_schema_input_type=Literal['grid', 'best', 'poisson'] | WindowOptions | None),
]


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, dict) else value


@register('stage', 'extract')
class ExtractOptions(Options):
    """Patches of photographs that lose much when they are shrunk and enlarged again."""

    dataroot: Annotated[list[DataFolder], Field(min_length=1), WithJsonSchema(_ONE_OR_MORE)] = Field(
        description='One folder of images or a list of them, searched recursively.'
    )
    save_dir: OutputFolder = Field(description='Folder that the stage makes: images/, manifest.csv, meta_info.txt.')
    patch_size: PositiveInt = Field(256, description='Side of the square patches, pixels; a multiple of scale.')
    stride: PositiveInt | None = Field(None, description='Of the grid of windows, pixels; the patch size when absent.')
    windows: _NamedWindows = Field(
        None,
        description='Where windows lie: grid (when absent), best (those with most detail, one after the other), '
        'poisson (random ones at a least distance), or {type: best, ...} with options.',
    )
    reduce: PositiveInt | None = Field(
        None,
        description='Shrink every photograph by this factor, antialiased, before windows are cut: 2 for large '
        'soft ones.',
    )
    scale: Annotated[int, Field(ge=2)] = Field(
        DEFAULT_SCALE, description='Factor of the bicubic resizing that is scored.'
    )
    metric: PsnrMetric = Field(
        'matlab_rgb', description="How psnr_db is taken: MATLAB's bicubic on RGB or luma, or OpenCV's on grey."
    )
    threshold: Threshold = Field(
        'median',
        description='Patches below it are kept: decibels, median, or qNN (NN per cent of all scored patches'
        ' lie below it).',
    )
    drop_hardest: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0, description='Share of the scored patches, lowest psnr_db first, that is left out.'
    )
    deduplicate: Annotated[Literal['off', 'exact', 'perceptual'], OFF] = Field(
        'off', description='Drop patches equal to an earlier one, or (perceptual) nearly so.'
    )
    source_filters: SourceFilterOptions = Field(
        SourceFilterOptions(), description='Photographs that are set aside, with the reason in quarantine.csv.'
    )
    scores: Annotated[
        list[ScoreLimits] | None,
        BeforeValidator(_listed, json_schema_input_type=ScoreLimits | list[ScoreLimits] | None),
    ] = Field(
        None,
        description='Scores of photographs with limits, one or a list of them; photographs beyond a limit, or '
        'without a score in a file, are set aside.',
    )
    window_filters: WindowFilterOptions = Field(
        WindowFilterOptions(), description='Windows that are left out before the threshold is taken.'
    )
    leak_check: list[DataFolder] = Field(
        [], description='Folders of test images; images that show the same scene are left out.'
    )
    max_per_image: PositiveInt | None = Field(
        None,
        description='At most so many patches of an image: of a grid those that bicubic loses most, else those '
        'taken first.',
    )
    max_patches: PositiveInt | None = Field(None, description='At most so many patches, drawn with seed.')
    seed: Count = Field(0, description='Of the draws of max_patches and of windows: poisson.')
    thresholds: Annotated[Literal['apply', 'suggest'], Field(exclude=True)] = Field(
        'apply',
        description='suggest prints the limits that would keep 50, 75 and 95 % of up to 1,000 photographs and '
        'of their windows, and makes nothing.',
    )
    strict: bool = Field(False, description='Refuse broken images instead of setting them aside.')
    png_level: Annotated[int, Field(ge=0, le=12)] = Field(
        0,
        description='0 stores the patches as they are, which is fastest to write and to read; 1 (fast) to 12 '
        '(small) deflate them, to six tenths of the size and less.',
    )
    lmdb: bool = Field(False, description='Pack the patches into images.lmdb as well.')
    num_workers: Annotated[PositiveInt | None, Field(exclude=True)] = Field(
        None, description='Threads, one a core when absent; the result does not depend on it.'
    )

    @field_validator('dataroot', mode='before')
    @classmethod
    def _one_root(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @model_validator(mode='after')
    def _whole_lr_pixels(self) -> 'ExtractOptions':
        if self.patch_size % self.scale:
            raise ValueError(f'patch_size {self.patch_size} is not a multiple of scale {self.scale}')
        return self

    @model_validator(mode='after')
    def _scores_of_different_names(self) -> 'ExtractOptions':
        names = [score.name for score in self.scores or ()]
        if twice := [name for name in names if names.count(name) > 1]:
            raise ValueError(f'two scores are called {twice[0]}; name their columns or files apart')
        return self

    @model_validator(mode='after')
    def _stride_of_a_grid(self) -> 'ExtractOptions':
        if self.stride is not None and self.windows is not None:
            raise ValueError(f'stride is of windows: grid, not of {self.windows.type}')
        return self
