"""Where the weights behind a set come from, and under which licence; what is not known is said to be unknown."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from basicsr_distill.config.sections.codecs import (
    AutoencoderKlCodecOptions,
    AutoencoderTinyCodecOptions,
    BlockPcaCodecOptions,
)
from basicsr_distill.config.sections.encoders import OpenClipEncoderOptions, TextureEncoderOptions
from basicsr_distill.diffusion.export import original_weights

# Hub id or file name -> licence, as the Hugging Face hub spells it. As published by their authors.
_LICENCES = {
    'facebook/DiT-XL-2-256': 'cc-by-nc-4.0',
    'facebook/DiT-XL-2-512': 'cc-by-nc-4.0',
    'DiT-XL-2-256x256.pt': 'cc-by-nc-4.0',
    'DiT-XL-2-512x512.pt': 'cc-by-nc-4.0',
    'stabilityai/sd-vae-ft-mse': 'mit',
    'stabilityai/sd-vae-ft-ema': 'mit',
    'madebyollin/taesd': 'mit',
}
# How open_clip's tags begin -> licence.
_CLIP_LICENCES = {'openai': 'mit', 'laion': 'mit'}
_SPELT = {'cc-by-nc-4.0': 'CC BY-NC 4.0', 'mit': 'MIT'}
UNKNOWN = 'unknown'
NON_COMMERCIAL = 'cc-by-nc-4.0'


@dataclass(frozen=True)
class Weights:
    """Weights that had a part in a set."""

    part: str  # what they do there
    name: str | None  # hub id, file or folder; None where nobody else's weights are in it
    licence: str | None  # as the hub spells it, or ``unknown``; None without a name

    def line(self) -> str:
        """A sentence for the card."""
        if self.name is None:
            return f'- {self.part}: no published weights; what it is was learned from the patches or made by hand.'
        if self.licence == UNKNOWN:
            return f'- {self.part}: {self.name}. Its licence is not known here; ask whoever published it.'
        also = '; images made with it are for non-commercial use' if self.licence == NON_COMMERCIAL else ''
        return f'- {self.part}: {self.name}, {_SPELT[self.licence or UNKNOWN]}{also}.'


def denoiser_weights(network: dict[str, Any]) -> Weights:
    """Return the weights of a ``network_g`` section; a folder of our own export says itself what it was made from.

    >>> denoiser_weights({'pretrained': 'facebook/DiT-XL-2-256'}).licence
    'cc-by-nc-4.0'
    """
    name = original_weights(network.get('pretrained'))
    return Weights('Denoiser', name, None if name is None else _published(name))


def codec_weights(codec: BlockPcaCodecOptions | AutoencoderKlCodecOptions | AutoencoderTinyCodecOptions) -> Weights:
    """Return the weights of a ``codec`` section."""
    if isinstance(codec, BlockPcaCodecOptions):
        return Weights('Codec', None, None)
    return Weights('Codec', codec.pretrained, _published(codec.pretrained))


def encoder_weights(encoder: OpenClipEncoderOptions | TextureEncoderOptions) -> Weights:
    """Return the weights of an ``encoder`` section."""
    if isinstance(encoder, TextureEncoderOptions):
        return Weights('Encoder', None, None)
    tag = encoder.pretrained or ''
    known = (
        [] if Path(tag).exists() else [licence for start, licence in _CLIP_LICENCES.items() if tag.startswith(start)]
    )
    name = f'open_clip {encoder.name}' + (f', {tag}' if tag else '')
    return Weights('Encoder', name, known[0] if known else UNKNOWN)


def teacher_weights(path: str) -> Weights:
    """Return the weights of the SR network whose output the HR images are."""
    return Weights('Targets', path, UNKNOWN)


def generator_weights(section: dict[str, Any] | None, path: str | None) -> Weights:
    """Return the weights of the frozen generator of a GSDD training; bicubic interpolation has none."""
    if section is None or path is None:
        return Weights('Generator (bicubic interpolation)', None, None)
    return Weights('Generator', f'{section["type"]}, {path}', UNKNOWN)


def _published(name: str) -> str:
    path = Path(name)
    if path.is_dir():  # whatever its name is, its content may be anything
        return UNKNOWN
    return _LICENCES.get(path.name if path.suffix == '.pt' else name, UNKNOWN)
