"""Sections of an option file as models, one module a family: what a key means is the description of its field."""

from basicsr_distill.config.sections.base import (
    DEFAULT_SCALE,
    Options,
    Precision,
    PsnrMetric,
    bind,
    nearest_name,
)
from basicsr_distill.config.sections.benchmark import (
    LOWER_IS_BETTER,
    METRIC_SECTIONS,
    BenchmarkFileOptions,
    BenchmarkOptions,
    BudgetOptions,
    JobOptions,
    SetOptions,
    TrainedNetworkOptions,
)
from basicsr_distill.config.sections.cluster import ClusterOptions
from basicsr_distill.config.sections.codecs import (
    AutoencoderKlCodecOptions,
    AutoencoderTinyCodecOptions,
    BlockPcaCodecOptions,
    CodecOptions,
)
from basicsr_distill.config.sections.datasets import (
    DatasetOptions,
    DistilledPatchDatasetOptions,
    LatentPatchDatasetOptions,
    LoaderOptions,
)
from basicsr_distill.config.sections.dit import MinimaxDiTNetworkOptions, MinimaxDiTTrainOptions, ScratchDiTOptions
from basicsr_distill.config.sections.encoders import EncoderOptions, OpenClipEncoderOptions, TextureEncoderOptions
from basicsr_distill.config.sections.experiment import LoggerOptions, RootOptions, ValidationOptions
from basicsr_distill.config.sections.extract import (
    BestWindows,
    ExtractOptions,
    FilterLimits,
    PoissonWindows,
    ScoreLimits,
    SourceFilterOptions,
    UpscaledLimits,
    WindowFilterOptions,
    WindowOptions,
)
from basicsr_distill.config.sections.gsdd import (
    GSDDTrainOptions,
    LabelledPatchDatasetOptions,
    LatentImagesOptions,
    RandomConvOptions,
    Vgg19Options,
)
from basicsr_distill.config.sections.losses import (
    DiversityLossOptions,
    HighFrequencyLossOptions,
    RepresentativenessLossOptions,
)
from basicsr_distill.config.sections.sample import (
    ModeGuidanceOptions,
    NoiseInitOptions,
    PrototypeInitOptions,
    RefineOptions,
    SampleOptions,
    SamplerSettings,
)
from basicsr_distill.config.sections.select import ScoreFileOptions, SelectOptions, TargetOptions
from basicsr_distill.config.sections.validation import LpipsMetricOptions, TileOptions

__all__ = [
    'DEFAULT_SCALE',
    'LOWER_IS_BETTER',
    'METRIC_SECTIONS',
    'AutoencoderKlCodecOptions',
    'AutoencoderTinyCodecOptions',
    'BenchmarkFileOptions',
    'BenchmarkOptions',
    'BestWindows',
    'BlockPcaCodecOptions',
    'BudgetOptions',
    'ClusterOptions',
    'CodecOptions',
    'DatasetOptions',
    'DistilledPatchDatasetOptions',
    'DiversityLossOptions',
    'EncoderOptions',
    'ExtractOptions',
    'FilterLimits',
    'GSDDTrainOptions',
    'HighFrequencyLossOptions',
    'JobOptions',
    'LabelledPatchDatasetOptions',
    'LatentImagesOptions',
    'LatentPatchDatasetOptions',
    'LoaderOptions',
    'LoggerOptions',
    'LpipsMetricOptions',
    'MinimaxDiTNetworkOptions',
    'MinimaxDiTTrainOptions',
    'ModeGuidanceOptions',
    'NoiseInitOptions',
    'OpenClipEncoderOptions',
    'Options',
    'PoissonWindows',
    'Precision',
    'PrototypeInitOptions',
    'PsnrMetric',
    'RandomConvOptions',
    'RefineOptions',
    'RepresentativenessLossOptions',
    'RootOptions',
    'SampleOptions',
    'SamplerSettings',
    'ScoreFileOptions',
    'ScoreLimits',
    'ScratchDiTOptions',
    'SelectOptions',
    'SetOptions',
    'SourceFilterOptions',
    'TargetOptions',
    'TextureEncoderOptions',
    'TileOptions',
    'TrainedNetworkOptions',
    'UpscaledLimits',
    'ValidationOptions',
    'Vgg19Options',
    'WindowFilterOptions',
    'WindowOptions',
    'bind',
    'nearest_name',
]
