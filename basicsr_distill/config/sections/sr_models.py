"""What the SR models of BasicSR, and ours that are made of them, read: the section ``train`` and more root keys."""

from typing import Annotated, ClassVar

from pydantic import Field, NonNegativeFloat

from basicsr_distill.config.registry import register
from basicsr_distill.config.sections.base import Count, Fraction, FreeSection, NumberRange, PositiveInt
from basicsr_distill.config.sections.experiment import RootOptions, TrainOptions

_ThreeWeights = Annotated[list[NonNegativeFloat], Field(min_length=3, max_length=3)]


@register('train', 'SRModel', 'SwinIRModel', 'RealESRNetModel', 'TiledSRModel', 'TiledSwinIRModel', 'HITModel')
class SRTrainOptions(TrainOptions):
    """The ``train`` section of an SR model."""

    ema_decay: Fraction = Field(0, description='Of the averaged weights; 0 for none.')
    pixel_opt: FreeSection | None = Field(None, description='Pixel loss: type and its arguments.')
    perceptual_opt: FreeSection | None = Field(None, description='Perceptual loss: type and its arguments.')


@register('train', 'SRGANModel', 'ESRGANModel', 'RealESRGANModel')
class GANTrainOptions(SRTrainOptions):
    """The ``train`` section of an SR model with a discriminator."""

    optim_d: FreeSection = Field(description='Optimizer of the discriminator: type of torch.optim, and its arguments.')
    gan_opt: FreeSection = Field(description='Adversarial loss: type and its arguments.')
    ldl_opt: FreeSection | None = Field(None, description='Loss of locally discriminative learning; needs ema_decay.')
    net_d_iters: PositiveInt = Field(1, description='Iterations of the discriminator for one of the generator.')
    net_d_init_iters: Count = Field(0, description='Iterations in which the discriminator alone is trained.')


@register('root', 'SRGANModel', 'ESRGANModel')
class GANRootOptions(RootOptions, strict=True):
    """Root keys of a model with a discriminator."""

    looked_up: ClassVar[tuple[str, ...]] = ('network_d',)

    network_d: FreeSection | None = Field(None, description='The discriminator: type and its arguments.')


class DegradationRootOptions(RootOptions, strict=True):
    """Root keys of a model that makes its LR images itself: two rounds of blur, resizing, noise and JPEG."""

    high_order_degradation: bool = Field(True, description='Make LR images; false trains on those of the data set.')
    gt_size: PositiveInt | None = Field(None, description='Side of the HR crops, pixels; a multiple of scale.')
    queue_size: PositiveInt = Field(180, description='Degraded images kept for mixing; a multiple of the batch size.')
    resize_prob: _ThreeWeights | None = Field(None, description='Of enlarging, reducing and keeping the size.')
    resize_range: NumberRange | None = Field(None, description='Factors of the first resizing: from, to.')
    gaussian_noise_prob: Fraction | None = Field(None, description='Of Gaussian noise; else it is Poisson noise.')
    noise_range: NumberRange | None = Field(None, description='Gaussian noise, of 255: from, to.')
    poisson_scale_range: NumberRange | None = Field(None, description='Factor of the Poisson noise: from, to.')
    gray_noise_prob: Fraction | None = Field(None, description='Of noise that is the same in all channels.')
    jpeg_range: NumberRange | None = Field(None, description='Quality of the first JPEG compression: from, to.')
    second_blur_prob: Fraction | None = Field(None, description='Of a second blur.')
    resize_prob2: _ThreeWeights | None = Field(None, description='As resize_prob, in the second round.')
    resize_range2: NumberRange | None = Field(None, description='As resize_range, in the second round.')
    gaussian_noise_prob2: Fraction | None = Field(None, description='As gaussian_noise_prob, in the second round.')
    noise_range2: NumberRange | None = Field(None, description='As noise_range, in the second round.')
    poisson_scale_range2: NumberRange | None = Field(None, description='As poisson_scale_range, in the second round.')
    gray_noise_prob2: Fraction | None = Field(None, description='As gray_noise_prob, in the second round.')
    jpeg_range2: NumberRange | None = Field(None, description='As jpeg_range, in the second round.')

    def missing_to_train(self) -> list[str]:
        """Return what is missing of the degradation too, where there is one."""
        own = [name for name in type(self).model_fields if name not in RootOptions.model_fields]
        return (
            [name for name in own if getattr(self, name) is None]
            if self.high_order_degradation
            else super().missing_to_train()
        )


@register('root', 'RealESRNetModel')
class RealESRNetRootOptions(DegradationRootOptions):
    """Root keys of RealESRNetModel."""

    gt_usm: bool | None = Field(None, description='Sharpen the HR images.')


@register('root', 'RealESRGANModel')
class RealESRGANRootOptions(GANRootOptions, DegradationRootOptions):
    """Root keys of RealESRGANModel."""

    looked_up: ClassVar[tuple[str, ...]] = ('network_d', 'l1_gt_usm', 'percep_gt_usm', 'gan_gt_usm')

    l1_gt_usm: bool | None = Field(None, description='Compare pixels with sharpened HR images.')
    percep_gt_usm: bool | None = Field(None, description='Compare features with those of sharpened HR images.')
    gan_gt_usm: bool | None = Field(None, description='Show the discriminator sharpened HR images.')
