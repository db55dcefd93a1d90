"""Generated latents of a label differ from earlier ones."""

from basicsr.utils.registry import LOSS_REGISTRY
from torch import Tensor

from basicsr_distill.losses.memory import gather_batch
from basicsr_distill.losses.minimax_loss import MinimaxLoss


@LOSS_REGISTRY.register()
class DiversityLoss(MinimaxLoss):
    """L_d = max over samples and memory of cos(x0_pred, zhat_n), zhat_n earlier predictions for the label.

    Source: Gu et al. (2024), Eq. 6; Cho et al. (2025), Eq. 4.

    Args:
        num_labels, latent_dim: of the data.
        loss_weight: factor.
        memory_size: predictions remembered per label.
        t_weight: ``alpha_bar`` multiplies a label's term by alpha_bar_t of its extreme sample.

    >>> import torch
    >>> loss = DiversityLoss(num_labels=1, latent_dim=2, loss_weight=0.008, memory_size=64, t_weight='none')
    >>> z, label = torch.tensor([[3.0, 4.0]]), torch.tensor([0])
    >>> loss(z, label, torch.ones(1)), loss.commit(), loss(z, label, torch.ones(1))
    (tensor(0.), None, tensor(0.0080))
    """

    def forward(self, x0_pred: Tensor, labels: Tensor, alpha_bar_t: Tensor) -> Tensor:
        """The weighted loss, a scalar; ``commit()`` then remembers ``x0_pred``.

        Args:
            x0_pred: (N, ...), float32.
            labels: (N,), int64.
            alpha_bar_t: (N,).
        """
        x0_pred, labels, alpha_bar_t = gather_batch(x0_pred, labels, alpha_bar_t)
        return self.extreme(x0_pred, x0_pred, labels, alpha_bar_t, largest=True)
