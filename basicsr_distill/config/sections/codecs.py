"""Codecs between pixels and latents: ``codec`` of a dataset, ``pixel_codec`` of a loss."""

from typing import Annotated, Literal

from pydantic import Field

from basicsr_distill.config.sections.base import Fraction, Options, PositiveInt, Precision, Pretrained, Word


class BlockPcaCodecOptions(Options):
    """Closed-form codec: principal components of square pixel blocks, fitted to the patches."""

    type: Literal['block_pca'] = Field('block_pca', description='Principal components of pixel blocks; no download.')
    block_px: PositiveInt = Field(8, description='Side of the blocks, pixels.')
    components: PositiveInt = Field(32, description='Components kept: the channels of a latent.')
    whitening: Fraction = Field(
        0.5, description="0 keeps the components' variances, 1 makes them equal, between them std ** (1 - whitening)."
    )


class _PretrainedOptions(Options):
    """What diffusers autoencoders have in common."""

    subfolder: Word | None = Field(None, description='Folder inside a pipeline, often vae.')
    local_files_only: bool = Field(False, description='Never download.')
    precision: Precision = Field('fp32', description='In which the codec computes.')


class AutoencoderKlCodecOptions(_PretrainedOptions):
    """A diffusers AutoencoderKL."""

    type: Literal['autoencoder_kl'] = Field('autoencoder_kl', description='A variational autoencoder of diffusers.')
    pretrained: Pretrained = Field('stabilityai/sd-vae-ft-mse', description='Hub id or local folder.')


class AutoencoderTinyCodecOptions(_PretrainedOptions):
    """A diffusers AutoencoderTiny."""

    type: Literal['autoencoder_tiny'] = Field('autoencoder_tiny', description='A small, fast autoencoder of diffusers.')
    pretrained: Pretrained = Field('madebyollin/taesd', description='Hub id or local folder.')


CodecOptions = Annotated[
    BlockPcaCodecOptions | AutoencoderKlCodecOptions | AutoencoderTinyCodecOptions, Field(discriminator='type')
]
