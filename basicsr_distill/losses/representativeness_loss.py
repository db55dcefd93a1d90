"""Every generated latent resembles the real ones of its label."""

from basicsr.utils.registry import LOSS_REGISTRY
from torch import Tensor, nn

from basicsr_distill.losses.memory import LatentMemory, gather_batch, mean_extreme


@LOSS_REGISTRY.register()
class RepresentativenessLoss(nn.Module):
    """L_r = 1 - min over samples and memory of cos(x0_pred, z_m), z_m earlier real latents of the label.

    Source: Gu et al. (2024), Eq. 5; Cho et al. (2025), Eq. 3.

    Args:
        num_labels, latent_dim: of the data.
        loss_weight: factor.
        memory_size: real latents remembered per label.
        t_weight: ``alpha_bar`` multiplies a label's term by alpha_bar_t of its extreme sample.
    """

    def __init__(self, num_labels: int, latent_dim: int, loss_weight: float, memory_size: int, t_weight: str) -> None:
        super().__init__()
        self.loss_weight = loss_weight
        self.t_weight = t_weight
        self.memory = LatentMemory(num_labels, latent_dim, memory_size)

    def forward(self, x0_pred: Tensor, x0: Tensor, labels: Tensor, alpha_bar_t: Tensor) -> Tensor:
        """The weighted loss, a scalar; afterwards ``x0`` is remembered.

        Args:
            x0_pred, x0: (N, ...), float32.
            labels: (N,), int64.
            alpha_bar_t: (N,).
        """
        x0_pred, x0, labels, alpha_bar_t = gather_batch(x0_pred, x0, labels, alpha_bar_t)
        weight = alpha_bar_t if self.t_weight == 'alpha_bar' else alpha_bar_t.new_ones(len(labels))
        loss = mean_extreme(*self.memory.similarities(x0_pred, labels), labels, weight, largest=False)
        self.memory.push(x0, labels)
        return self.loss_weight * loss
