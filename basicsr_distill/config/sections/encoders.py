"""Image encoders of the cluster stage."""

from typing import Annotated, Literal

from pydantic import Field

from basicsr_distill.config.sections.base import Options, PositiveInt, Precision, Source, Text

# open_clip's own way of naming a folder.
LocalModel = Annotated[str, Text('pretrained', prefix='local-dir:')]


class OpenClipEncoderOptions(Options):
    """An image tower of open_clip."""

    type: Literal['open_clip'] = Field('open_clip', description='CLIP and its kin.')
    name: LocalModel = Field(
        'ViT-B-32',
        description='As open_clip knows it, or local-dir:FOLDER (its configuration and weights), or hf-hub:...',
    )
    pretrained: Source | None = Field(
        'openai', description="open_clip's tag, or a file of weights; null for a local-dir: or hf-hub: model."
    )
    batch_size: PositiveInt = Field(64, description='Images encoded at once.')
    precision: Precision | Literal['auto'] = Field('auto', description='auto is bf16 on a GPU and fp32 on a CPU.')


class TextureEncoderOptions(Options):
    """Hand-made texture and colour statistics: no weights."""

    type: Literal['texture'] = Field('texture', description='Texture and colour statistics; no download.')


EncoderOptions = Annotated[OpenClipEncoderOptions | TextureEncoderOptions, Field(discriminator='type')]
