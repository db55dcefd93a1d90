"""BasicSR's SR models for images that are too large for the memory: validation and testing in overlapping tiles."""

from collections.abc import Callable
from typing import Any

from basicsr.models.sr_model import SRModel
from basicsr.models.swinir_model import SwinIRModel
from basicsr.utils.registry import MODEL_REGISTRY
from torch import Tensor

from basicsr_distill.config.sections.base import bind
from basicsr_distill.config.sections.validation import TileOptions
from basicsr_distill.ops.tiling import apply_in_tiles

# A whole number of windows of every network here: 8 (SwinIR), 16, 24 (SRFormer), 64 (HiT-SR's largest).
_CHOP_TILE = {'size_px': 256, 'overlap_px': 32}


def _test_in_tiles(model: Any, test_whole: Callable[[], None]) -> None:
    """Fill ``model.output`` from ``model.lq``, in tiles where the options have a ``val.tile``."""
    section = (model.opt.get('val') or {}).get('tile')
    if section is None:
        test_whole()
        return
    tile = bind(TileOptions, section, 'val: tile')

    def network(lq: Tensor) -> Tensor:
        model.lq = lq
        test_whole()
        return model.output

    whole = model.lq
    model.output = apply_in_tiles(network, whole, model.opt['scale'], tile.size_px, tile.overlap_px)
    model.lq = whole


@MODEL_REGISTRY.register()
class TiledSRModel(SRModel):
    """``SRModel`` that super-resolves in tiles where ``val.tile: {size_px, overlap_px}`` (LR pixels) is given."""

    def test(self) -> None:
        """Fill ``self.output`` from ``self.lq``."""
        _test_in_tiles(self, super().test)


@MODEL_REGISTRY.register()
class TiledSwinIRModel(SwinIRModel):
    """``SwinIRModel`` in tiles, likewise; each is padded to whole windows, as BasicSR's SwinIR needs."""

    def test(self) -> None:
        """Fill ``self.output`` from ``self.lq``."""
        _test_in_tiles(self, super().test)


@MODEL_REGISTRY.register()
class HITModel(TiledSRModel):
    """The name in HiT-SR's published option files; their ``val.use_chop: true`` means tiles."""

    def __init__(self, opt: dict[str, Any]) -> None:
        val = opt.get('val') or {}
        if val.get('use_chop') and val.get('tile') is None:
            val['tile'] = dict(_CHOP_TILE)
        super().__init__(opt)
