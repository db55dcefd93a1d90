"""Sections of GSDD: the latents, the patches they are matched to, and the ``train`` section of GSDDModel."""

from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeFloat, PositiveInt

from basicsr_distill.config.options import DatasetOptions, Options


class LabelledPatchDatasetOptions(DatasetOptions):
    """Patches of the extract stage with the labels of the cluster stage."""

    type: Literal['LabelledPatchDataset'] = 'LabelledPatchDataset'
    dataroot: str = Field(description='Folder of the extract stage.')
    labels_file: str = Field(description='labels.csv of the cluster stage.')


class RandomConvOptions(Options):
    """A frozen network with random weights."""

    type: Literal['random_conv'] = Field('random_conv', description='Needs no weights.')
    seed: Annotated[int, Field(ge=0)] = Field(0, description='Of its weights.')
    width: PositiveInt = Field(128, description='Channels of its layers.')
    depth: PositiveInt = Field(3, description='Its layers.')


class Vgg19Options(Options):
    """torchvision's VGG19, of the weights that perceptual losses use."""

    type: Literal['vgg19'] = Field('vgg19', description='Features of ImageNet.')
    layer: str = Field('relu4_4', description="Layer that is matched, by BasicSR's name.")


class GSDDTrainOptions(Options):
    """The ``train`` section of GSDDModel."""

    total_iter: PositiveInt = Field(description='Iterations of the whole training.')
    warmup_iter: int = Field(-1, description='Iterations in which the learning rate rises; -1 for none.')
    optim_g: dict[str, Any] = Field(description='Optimizer: type of torch.optim, and its arguments.')
    scheduler: dict[str, Any] = Field(description="Learning rate: type of BasicSR's schedulers, and its arguments.")
    generator: dict[str, Any] | None = Field(
        None, description='The frozen SR network: type and arguments, such as RRDBNet; bicubic when absent.')
    generator_weights: str | None = Field(None, description='File of its weights; needed where there is a generator.')
    extractor: Annotated[RandomConvOptions | Vgg19Options, Field(discriminator='type')] = Field(
        RandomConvOptions(), description='The frozen network whose features are matched.')
    diversity_weight: NonNegativeFloat = Field(0.1, description="Factor of the mean cosine of a label's latents.")
    synthetic_batch: PositiveInt | None = Field(
        None, description='Latents of a label that take part in an iteration, drawn anew each time; all when absent.')
    cutout: bool = Field(True, description='Black out a square in the augmentation.')
