"""The ``sample`` stage, and how a denoiser is sampled."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, model_validator

from basicsr_distill.config.registry import register
from basicsr_distill.config.sections.base import (
    DEFAULT_SCALE,
    Count,
    Fraction,
    Options,
    OutputFolder,
    PositiveInt,
    Precision,
)
from basicsr_distill.config.sections.select import TargetOptions


class SamplerSettings(Options):
    """How to draw latents from a denoiser."""

    num_steps: PositiveInt = Field(
        20, description='Steps over the whole noise range; a prototype of strength s takes s of them.'
    )
    guidance_scale: NonNegativeFloat = Field(
        1.5, description='Of classifier-free guidance; 1 is none, 0 ignores the label.'
    )
    guidance_interval: tuple[Fraction, Fraction] = Field(
        (0.0, 1.0), description='Part of the noise range (0 clean, 1 noise) in which guidance acts.'
    )
    guidance_channels: PositiveInt | None = Field(
        None, description='How many latent channels guidance moves; all when absent.'
    )
    scheduler: Literal['dpmsolver++', 'unipc', 'ddim', 'ddpm'] = Field(
        'dpmsolver++', description='Solver: dpmsolver++ (second order, multistep), unipc, ddim or ddpm.'
    )

    @model_validator(mode='after')
    def _intervals_have_a_length(self) -> 'SamplerSettings':
        for name in ('guidance_interval', 'psnr_band'):
            interval = getattr(self, name, None)
            if interval is not None and interval[0] >= interval[1]:
                raise ValueError(f'{name} {list(interval)} must rise')
        return self

    def steps_from(self, strength: float) -> int:
        """How many steps, the last ones, start at or below a share of the noise range."""
        return max(1, round(self.num_steps * strength))


class NoiseInitOptions(Options):
    """Sampling starts from pure noise."""

    type: Literal['noise'] = Field('noise', description='Start from pure noise.')


class PrototypeInitOptions(Options):
    """Sampling starts from real latents of the label (D4M)."""

    type: Literal['prototype'] = Field(
        'prototype', description='Start from noised latents of real patches of the label.'
    )
    strength: Annotated[float, Field(gt=0, le=1)] = Field(
        description='How far they are noised, as a share of the whole way.'
    )


InitOptions = Annotated[NoiseInitOptions | PrototypeInitOptions, Field(discriminator='type')]


class ModeGuidanceOptions(Options):
    """Images are pulled to modes of their label's latents while they are drawn (MGD3)."""

    scale: NonNegativeFloat = Field(
        0.1,
        description="Strength of the pull; 0 is none, the paper's is 0.1. With scheduler ddpm the pull is that of "
        'the released code, which grows with num_steps (the paper has 50).',
    )
    stop: Fraction = Field(0.5, description='Share of the noise range (0 clean, 1 noise) at which it stops.')
    modes: Literal['centers', 'medoids'] = Field(
        'centers',
        description="Of k-means of a label's latents with k = images_per_cluster: the centres, or the real "
        'latents nearest to them.',
    )
    manifold: bool = Field(
        False,
        description='Pull along the data alone (ManifoldGD): the part of the pull that is normal to the real '
        'latents nearby is left out.',
    )


class RefineOptions(Options):
    """Images are noised a little and denoised again after they were drawn."""

    strength: Annotated[float, Field(gt=0, le=1)] = Field(
        description='How far they are noised, as a share of the whole way.'
    )
    steps: PositiveInt = Field(10, description='Steps of denoising them.')


@register('stage', 'sample')
class SampleOptions(SamplerSettings):
    """Images drawn for every label and published as a distilled set."""

    images_per_cluster: PositiveInt = Field(description='Images kept for each label.')
    save_dir: OutputFolder = Field(
        description='Folder that the stage makes: HR/, LR_bicubic/, manifest.csv, README.md.'
    )
    init: InitOptions = Field(NoiseInitOptions(), description='What sampling starts from.')
    weights: Literal['params_ema', 'params'] = Field(
        'params_ema', description="The checkpoint's averaged or newest weights."
    )
    seed: Count = Field(0, description='Of every draw, with label and index.')
    batch_size: PositiveInt = Field(8, description='Images drawn at once.')
    precision: Precision = Field('fp32', description='In which the denoiser computes.')
    scale: PositiveInt = Field(DEFAULT_SCALE, description='Factor between HR and LR images.')
    oversample: PositiveInt = Field(1, description='Images drawn for each one kept.')
    psnr_band: tuple[Fraction, Fraction] | None = Field(
        None,
        description="Quantiles of the patches' psnr_db between which drawn images are kept; [0, 1] is from the "
        'lowest to the highest patch.',
    )
    select: Literal['first', 'k_center', 'herding', 'own_error'] = Field(
        'herding',
        description="How images_per_cluster are chosen among those: by the encoder's features, or those that "
        'the denoiser knows best.',
    )
    mode_guidance: ModeGuidanceOptions | None = Field(None, description='Pull images to modes of their label.')
    clip_x0: Annotated[float, Field(ge=0, lt=0.5)] | None = Field(
        None,
        description='Keep predictions of the clean latents within the range of real ones but for this share of '
        'their numbers on either side, such as 0.001; against overshooting from pure noise.',
    )
    refine: RefineOptions | None = Field(None, description='Noise images a little and denoise them again.')
    targets: TargetOptions | None = Field(None, description='What the HR partners are; the images when absent.')

    @model_validator(mode='after')
    def _modes_pull(self) -> 'SampleOptions':
        guidance = self.mode_guidance
        if guidance is None or (self.refine is not None and self.refine.strength > guidance.stop):
            return self
        strength = self.init.strength if isinstance(self.init, PrototypeInitOptions) else 1.0
        # The first of 1,000 timesteps; ddim and ddpm start a little lower.
        first = round(999 * self.steps_from(strength) / self.num_steps)
        if first <= guidance.stop * 1000:
            raise ValueError(
                f'mode_guidance.stop {guidance.stop:g} leaves no step to pull in, as drawing starts at '
                f'{first / 1000:g} of the noise; lower it, raise init.strength, or remove mode_guidance'
            )
        return self
