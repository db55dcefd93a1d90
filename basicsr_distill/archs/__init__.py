"""Networks; importing this package registers them with BasicSR."""

from basicsr_distill.archs import (
    hit_arch,
    latent_images_arch,
    minimax_dit_arch,
    realsr_discriminator_arch,
    srformer_arch,
)

__all__ = ['hit_arch', 'latent_images_arch', 'minimax_dit_arch', 'realsr_discriminator_arch', 'srformer_arch']
