"""Every generated latent resembles the real ones of its label."""

from basicsr.utils.registry import LOSS_REGISTRY
from torch import Tensor

from basicsr_distill.losses.memory import gather_batch
from basicsr_distill.losses.minimax_loss import MinimaxLoss


@LOSS_REGISTRY.register()
class RepresentativenessLoss(MinimaxLoss):
    """L_r = 1 - min over samples and memory of cos(x0_pred, z_m), z_m earlier real latents of the label.

    Source: Gu et al. (2024), Eq. 5; Cho et al. (2025), Eq. 3.

    Args:
        num_labels, latent_dim: of the data.
        loss_weight: factor.
        memory_size: real latents remembered per label.
        t_weight: ``alpha_bar`` multiplies a label's term by alpha_bar_t of its extreme sample.

    >>> import torch
    >>> loss = RepresentativenessLoss(num_labels=1, latent_dim=2, loss_weight=0.002, memory_size=64, t_weight='none')
    >>> z, label = torch.tensor([[0.0, 1.0]]), torch.tensor([0])
    >>> loss(z, z, label, torch.ones(1)), loss.commit(), loss(-z, z, label, torch.ones(1))
    (tensor(0.), None, tensor(0.0040))
    """

    def forward(self, x0_pred: Tensor, x0: Tensor, labels: Tensor, alpha_bar_t: Tensor) -> Tensor:
        """The weighted loss, a scalar; ``commit()`` then remembers ``x0``.

        Args:
            x0_pred, x0: (N, ...), float32.
            labels: (N,), int64.
            alpha_bar_t: (N,).
        """
        x0_pred, x0, labels, alpha_bar_t = gather_batch(x0_pred, x0, labels, alpha_bar_t)
        return self.extreme(x0_pred, x0, labels, alpha_bar_t, largest=False)
