"""The one table of components whose sections have a model: ``type`` in an option file -> the model of its keys.

A component that is in it takes its keys without defaults of its own; they are written once, in the model. Components
that are not (networks of SR, everything of BasicSR) are checked against their signatures, see ``training.keys``.
"""

from collections.abc import Mapping
from typing import Any

from basicsr_distill.config.sections import (
    AutoencoderKlCodecOptions,
    AutoencoderTinyCodecOptions,
    BlockPcaCodecOptions,
    ClusterOptions,
    DistilledPatchDatasetOptions,
    DiversityLossOptions,
    ExtractOptions,
    GSDDTrainOptions,
    HighFrequencyLossOptions,
    LabelledPatchDatasetOptions,
    LatentImagesOptions,
    LatentPatchDatasetOptions,
    LpipsMetricOptions,
    MinimaxDiTNetworkOptions,
    MinimaxDiTTrainOptions,
    OpenClipEncoderOptions,
    Options,
    RepresentativenessLossOptions,
    SampleOptions,
    SelectOptions,
    TextureEncoderOptions,
    bind,
)
from basicsr_distill.config.sections.base import type_names

Models = Mapping[str, type[Options]]


def _by_type(*models: type[Options]) -> Models:
    return {name: model for model in models for name in type_names(model)}


# Sections of a recipe beside BasicSR's root keys.
STAGES: Models = {
    'extract': ExtractOptions,
    'cluster': ClusterOptions,
    'select': SelectOptions,
    'sample': SampleOptions,
}

DATASETS = _by_type(DistilledPatchDatasetOptions, LatentPatchDatasetOptions, LabelledPatchDatasetOptions)
NETWORKS = _by_type(MinimaxDiTNetworkOptions, LatentImagesOptions)
LOSSES = _by_type(RepresentativenessLossOptions, DiversityLossOptions, HighFrequencyLossOptions)
METRICS = _by_type(LpipsMetricOptions)
CODECS = _by_type(BlockPcaCodecOptions, AutoencoderKlCodecOptions, AutoencoderTinyCodecOptions)
ENCODERS = _by_type(OpenClipEncoderOptions, TextureEncoderOptions)
# The train section of a model; other models' are checked against their sources.
TRAIN_SECTIONS: Models = {'MinimaxDiTModel': MinimaxDiTTrainOptions, 'GSDDModel': GSDDTrainOptions}
# Models that know val.tile.
TILED_MODELS = ('TiledSRModel', 'TiledSwinIRModel', 'HITModel')


def bind_dataset(opt: Mapping[str, Any]) -> Any:
    """Options of a dataset of ours from the section that BasicSR builds it with, which has ``phase`` and ``scale`` too.

    Raises:
        InputError: a key is unknown, missing or wrong.
    """
    own = {key: value for key, value in opt.items() if key not in ('phase', 'scale')}
    return bind(DATASETS[opt['type']], own, f'datasets.{opt.get("name")}')
