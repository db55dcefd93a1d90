"""Generated latents of a label differ from earlier ones."""

from basicsr.utils.registry import LOSS_REGISTRY
from torch import Tensor, nn

from basicsr_distill.losses.memory import LatentMemory, gather_batch, mean_extreme


@LOSS_REGISTRY.register()
class DiversityLoss(nn.Module):
    """L_d = max over samples and memory of cos(x0_pred, zhat_n), zhat_n earlier predictions for the label.

    Source: Gu et al. (2024), Eq. 6; Cho et al. (2025), Eq. 4.

    Args:
        num_labels, latent_dim: of the data.
        loss_weight: factor.
        memory_size: predictions remembered per label.
        t_weight: ``alpha_bar`` multiplies a label's term by alpha_bar_t of its extreme sample.
    """

    def __init__(self, num_labels: int, latent_dim: int, loss_weight: float, memory_size: int, t_weight: str) -> None:
        super().__init__()
        self.loss_weight = loss_weight
        self.t_weight = t_weight
        self.memory = LatentMemory(num_labels, latent_dim, memory_size)

    def forward(self, x0_pred: Tensor, labels: Tensor, alpha_bar_t: Tensor) -> Tensor:
        """The weighted loss, a scalar; afterwards ``x0_pred`` is remembered.

        Args:
            x0_pred: (N, ...), float32.
            labels: (N,), int64.
            alpha_bar_t: (N,).
        """
        x0_pred, labels, alpha_bar_t = gather_batch(x0_pred, labels, alpha_bar_t)
        weight = alpha_bar_t if self.t_weight == 'alpha_bar' else alpha_bar_t.new_ones(len(labels))
        loss = mean_extreme(*self.memory.similarities(x0_pred, labels), labels, weight, largest=True)
        self.memory.push(x0_pred, labels)
        return self.loss_weight * loss
