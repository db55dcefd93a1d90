"""What ``val`` may hold beside BasicSR's own: tiles and LPIPS."""

from typing import Literal

from pydantic import Field, model_validator

from basicsr_distill.config.registry import register
from basicsr_distill.config.sections.base import Count, NamedFile, Options, PositiveInt

# Models that know val.tile.
TILED_MODELS = ('TiledSRModel', 'TiledSwinIRModel', 'HITModel')


class TileOptions(Options):
    """``val.tile``: large images are super-resolved in overlapping tiles."""

    size_px: PositiveInt = Field(description='Side of the tiles, LR pixels; more than twice overlap_px.')
    overlap_px: Count = Field(description='Pixels on each side of a tile that only serve as context, LR pixels.')

    @model_validator(mode='after')
    def _something_is_kept(self) -> 'TileOptions':
        if self.size_px <= 2 * self.overlap_px:
            raise ValueError(f'size_px {self.size_px} is not more than twice overlap_px {self.overlap_px}')
        return self


@register('metric')
class LpipsMetricOptions(Options):
    """A metric of type ``calculate_lpips``."""

    type: Literal['calculate_lpips'] = Field('calculate_lpips', description='LPIPS 0.1; lower is better.')
    net: Literal['alex', 'vgg', 'squeeze'] = Field('alex', description='The backbone.')
    weights: NamedFile | None = Field(
        None,
        description="A local file, either torchvision's weights of the backbone or a whole LPIPS network; when "
        "absent, the backbone is looked for in experiments/pretrained_models and in torch's cache, "
        'then downloaded.',
    )
    crop_border: Count = Field(0, description='HR pixels cut off each side.')
    input_order: Literal['HWC', 'CHW'] = Field('HWC', description="Order of the axes; BasicSR's validation gives HWC.")
    better: Literal['lower'] = Field('lower', description='Which way is better.')
