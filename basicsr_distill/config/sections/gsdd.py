"""GSDD: ``network_g`` of type LatentImages, its data set, and the ``train`` section of GSDDModel."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, model_validator

from basicsr_distill.config.registry import register
from basicsr_distill.config.sections.base import Count, DataFolder, FreeSection, NamedFile, Options, PositiveInt
from basicsr_distill.config.sections.datasets import DatasetOptions


@register('network')
class LatentImagesOptions(Options):
    """Small images that are themselves what is trained."""

    type: Literal['LatentImages'] = Field('LatentImages', description='LR images of every label, each a parameter.')
    num_labels: PositiveInt = Field(description='Labels are 0 ... num_labels - 1; the number of clusters.')
    images_per_label: PositiveInt = Field(description='Images that the set will have of each label.')
    size_px: PositiveInt = Field(description='Side of a latent: that of a patch divided by scale.')


@register('dataset')
class LabelledPatchDatasetOptions(DatasetOptions):
    """Patches with their labels."""

    type: Literal['LabelledPatchDataset'] = Field('LabelledPatchDataset', description='Patches with their labels.')
    dataroot: DataFolder = Field(description='Folder of the extract stage.')
    labels_file: DataFolder = Field(description='labels.csv of the cluster stage.')


class RandomConvOptions(Options):
    """A frozen convolutional network with random weights."""

    type: Literal['random_conv'] = Field('random_conv', description='Random weights: nothing to download.')
    seed: Count = Field(0, description='Of its weights.')
    width: PositiveInt = Field(128, description='Channels of its layers.')
    depth: PositiveInt = Field(3, description='Number of its layers.')


class Vgg19Options(Options):
    """torchvision's VGG19 with the weights that perceptual losses use."""

    type: Literal['vgg19'] = Field('vgg19', description="torchvision's VGG19, trained on ImageNet.")
    layer: Literal['relu1_2', 'relu2_2', 'relu3_4', 'relu4_4', 'relu5_4'] = Field(
        'relu4_4', description='Layer whose output is matched.'
    )


ExtractorOptions = Annotated[RandomConvOptions | Vgg19Options, Field(discriminator='type')]


@register('train', 'GSDDModel')
class GSDDTrainOptions(Options):
    """The ``train`` section of GSDDModel."""

    total_iter: PositiveInt = Field(description='Iterations of the whole training.')
    warmup_iter: int = Field(-1, description='Iterations in which the learning rate rises; -1 for none.')
    optim_g: FreeSection = Field(description='Optimizer: type of torch.optim, and its arguments.')
    scheduler: FreeSection = Field(description="Learning rate: type of BasicSR's schedulers, and its arguments.")
    generator: FreeSection | None = Field(
        None,
        description='The frozen SR network between latents and images, such as RRDBNet: type and its arguments; '
        'bicubic interpolation when absent.',
    )
    generator_weights: NamedFile | None = Field(None, description='File of its weights.')
    extractor: ExtractorOptions = Field(
        RandomConvOptions.model_validate({}), description='The frozen network whose features are matched.'
    )
    diversity_weight: NonNegativeFloat = Field(0.1, description="Factor of the mean cosine of a label's latents.")
    synthetic_batch: PositiveInt | None = Field(
        None, description='Latents of a label that an iteration takes, drawn anew each time; all when absent.'
    )
    cutout: bool = Field(True, description='Let a black square be one of the changes that the augmentation draws from.')

    @model_validator(mode='after')
    def _generator_has_weights(self) -> 'GSDDTrainOptions':
        if (self.generator is None) != (self.generator_weights is None):
            raise ValueError('give both generator and generator_weights, or neither for bicubic interpolation')
        if self.generator is not None and not isinstance(self.generator.get('type'), str):
            raise ValueError("generator needs the key 'type', such as RRDBNet")
        return self
