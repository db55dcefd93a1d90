"""Models; importing this package registers them with BasicSR."""

from basicsr_distill.models import gsdd_model, minimax_dit_model, tiled_sr_model

__all__ = ['gsdd_model', 'minimax_dit_model', 'tiled_sr_model']
