"""Models; importing this package registers them with BasicSR."""

from basicsr_distill.models import minimax_dit_model, tiled_sr_model

__all__ = ['minimax_dit_model', 'tiled_sr_model']
