"""Losses of the diffusion training."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat

from basicsr_distill.config.registry import register
from basicsr_distill.config.sections.base import DEFAULT_SCALE, OFF, Options, PositiveInt
from basicsr_distill.config.sections.codecs import AutoencoderTinyCodecOptions


class _MinimaxLossOptions(Options):
    """What the two minimax terms have in common."""

    memory_size: PositiveInt = Field(64, description='Latents remembered for each label.')
    t_weight: Literal['none', 'alpha_bar'] = Field(
        'none', description="alpha_bar weights a label's term by how reliable the x0_pred of its extreme sample is."
    )


@register('loss')
class RepresentativenessLossOptions(_MinimaxLossOptions):
    """Eq. (3): a generated latent resembles every real one of its label."""

    type: Literal['RepresentativenessLoss'] = Field('RepresentativenessLoss', description='Eq. (3).')
    loss_weight: NonNegativeFloat = Field(0.002, description='Factor of the term; 0 switches it off.')


@register('loss')
class DiversityLossOptions(_MinimaxLossOptions):
    """Eq. (4): generated latents of a label differ from earlier ones."""

    type: Literal['DiversityLoss'] = Field('DiversityLoss', description='Eq. (4).')
    loss_weight: NonNegativeFloat = Field(0.008, description='Factor of the term; 0 switches it off.')


@register('loss')
class HighFrequencyLossOptions(Options):
    """Eq. (5): generated latents keep what bicubic resizing would lose."""

    type: Literal['HighFrequencyLoss'] = Field('HighFrequencyLoss', description='Eq. (5) and its bounded forms.')
    loss_weight: NonNegativeFloat = Field(0.05, description='Factor of the term; 0 switches it off.')
    mode: Annotated[Literal['off', 'latent', 'pixel', 'literal'], OFF] = Field(
        'latent', description='Energies compared in latents, in decoded pixels, or the formula to the letter.'
    )
    scale: PositiveInt = Field(DEFAULT_SCALE, description='Factor of the bicubic resizing.')
    pixel_max_timestep: PositiveInt = Field(
        300, description='pixel decodes samples below this timestep; others count as zero.'
    )
    pixel_codec: AutoencoderTinyCodecOptions | None = Field(
        None, description="Decoder that pixel looks through; the data's own codec when absent."
    )
