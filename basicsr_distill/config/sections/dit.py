"""The denoiser: ``network_g`` of type MinimaxDiT and the ``train`` section of MinimaxDiTModel."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, model_validator

from basicsr_distill.config.registry import register
from basicsr_distill.config.sections.base import (
    Fraction,
    FreeSection,
    Options,
    PositiveInt,
    Precision,
    Pretrained,
    Word,
)
from basicsr_distill.config.sections.losses import (
    DiversityLossOptions,
    HighFrequencyLossOptions,
    RepresentativenessLossOptions,
)


class ScratchDiTOptions(Options):
    """A DiT with random weights: a published ``size`` or the three numbers that make one."""

    size: Literal['S', 'B', 'L', 'XL'] | None = Field(None, description='Published size, instead of the three numbers.')
    num_layers: PositiveInt | None = Field(None, description='Transformer blocks.')
    num_attention_heads: PositiveInt | None = Field(None, description='Heads of a block.')
    attention_head_dim: PositiveInt | None = Field(None, description='Channels of a head.')
    patch_size: PositiveInt = Field(2, description='Side of the latent patches that are tokens.')
    in_channels: PositiveInt = Field(4, description='Channels of the latents.')
    sample_size: PositiveInt = Field(32, description='Side of the latents; a multiple of patch_size.')
    learn_variance: bool = Field(True, description='Predict the variance as well.')

    @model_validator(mode='after')
    def _one_way(self) -> 'ScratchDiTOptions':
        numbers = [self.num_layers, self.num_attention_heads, self.attention_head_dim]
        if (self.size is None) == (None in numbers) or (self.size and any(numbers)):
            raise ValueError('give either size or all of num_layers, num_attention_heads, attention_head_dim')
        if self.sample_size % self.patch_size:
            raise ValueError(f'sample_size {self.sample_size} is not a multiple of patch_size {self.patch_size}')
        return self


@register('network')
class MinimaxDiTNetworkOptions(Options):
    """The denoiser: pretrained weights or ``from_scratch``, and which of its parameters are trained."""

    type: Literal['MinimaxDiT'] = Field('MinimaxDiT', description='Label-conditional diffusion transformer.')
    num_labels: PositiveInt = Field(description='Labels are 0 ... num_labels - 1; at least the number of clusters.')
    pretrained: Pretrained | None = Field(None, description='Hub id, local folder or file of published weights.')
    subfolder: Word | None = Field(None, description='Folder inside a pipeline, often transformer.')
    local_files_only: bool = Field(False, description='Never download.')
    from_scratch: ScratchDiTOptions | None = Field(
        None, description='Instead of pretrained: a network with random weights.'
    )
    label_init: Literal['null_row', 'rows', 'mean'] = Field(
        'null_row',
        description='How rows of a pretrained label table start: as the null label, as its first rows, as their mean.',
    )
    tuning: Literal['difffit', 'lora', 'full', 'none'] = Field(
        'difffit',
        description='What is trained: biases, norms and scales; low-rank adapters; everything; or nothing: '
        'then the stage finetune is left out and sample draws from the pretrained weights.',
    )
    lora_rank: PositiveInt = Field(8, description='Rank of the adapters of tuning: lora.')
    gradient_checkpointing: bool = Field(False, description='Trade time for memory.')

    @model_validator(mode='after')
    def _one_source(self) -> 'MinimaxDiTNetworkOptions':
        if (self.pretrained is None) == (self.from_scratch is None):
            raise ValueError('give either pretrained or from_scratch')
        if self.from_scratch and self.tuning != 'full':
            raise ValueError('random weights need tuning: full')
        return self


@register('train', 'MinimaxDiTModel')
class MinimaxDiTTrainOptions(Options):
    """The ``train`` section of MinimaxDiTModel."""

    takes_terms: ClassVar[bool] = True

    total_iter: PositiveInt = Field(description='Iterations of the whole training.')
    warmup_iter: int = Field(-1, description='Iterations in which the learning rate rises; -1 for none.')
    optim_g: FreeSection = Field(description='Optimizer: type of torch.optim, and its arguments.')
    scheduler: FreeSection = Field(description="Learning rate: type of BasicSR's schedulers, and its arguments.")
    precision: Precision = Field('fp32', description='Mixed precision of the network.')
    accumulation: PositiveInt = Field(1, description='Parts that a batch is cut into, to save memory.')
    compile: bool = Field(False, description='torch.compile the network.')
    clip_grad_norm: PositiveFloat | None = Field(None, description='Largest norm of the gradient.')
    label_dropout: Fraction = Field(0.1, description='Share of samples trained without their label.')
    max_timestep: Annotated[int, Field(ge=1, le=1000)] = Field(
        1000, description='Only timesteps below it are trained; useful when sampling starts from noised prototypes.'
    )
    min_snr_gamma: PositiveFloat | None = Field(None, description='Min-SNR weighting of L_simple.')
    vlb_weight: NonNegativeFloat = Field(
        1.0, description='Factor of the variational bound, where the variance is learned.'
    )
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.9999, description='Of the averaged weights; with 0 the average is the newest weights.'
    )
    ema_warmup: bool = Field(True, description='Let the average follow quickly at first.')
    representativeness_opt: RepresentativenessLossOptions | None = Field(None, description='The term of Eq. (3).')
    diversity_opt: DiversityLossOptions | None = Field(None, description='The term of Eq. (4).')
    high_frequency_opt: HighFrequencyLossOptions | None = Field(None, description='The term of Eq. (5).')

    @property
    def terms(self) -> dict[str, Any]:
        """The sections of the losses, by the names of their terms: ``diversity`` of ``diversity_opt``."""
        return {key.removesuffix('_opt'): value for key, value in self if key.endswith('_opt') and value is not None}
