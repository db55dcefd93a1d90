"""The two minimax losses: the extreme cosine of a batch to a memory of latents of the same label."""

from basicsr.utils.registry import LOSS_REGISTRY
from torch import Tensor, nn

from basicsr_distill.diffusion.training_step import NoisedBatch, Prediction
from basicsr_distill.losses.memory import LatentMemory, gather_batch, mean_extreme


class MinimaxLoss(nn.Module):
    """An extreme of cos(x0_pred, memory of the label) over the batch.

    Computing the loss leaves the memory as it is, so that it may be computed again for the same step (after running out
    of GPU memory, say); :meth:`commit` ends the step.

    Args:
        num_labels: labels are 0 ... num_labels - 1.
        latent_dim: numbers in a flattened latent.
        loss_weight: factor.
        memory_size: latents remembered per label.
        t_weight: ``alpha_bar`` multiplies a label's term by alpha_bar_t of its extreme sample.
    """

    needs_whole_batch = True

    def __init__(self, num_labels: int, latent_dim: int, loss_weight: float, memory_size: int, t_weight: str) -> None:
        super().__init__()
        self.loss_weight = loss_weight
        self.t_weight = t_weight
        self.memory = LatentMemory(num_labels, latent_dim, memory_size)
        self._pending: tuple[Tensor, Tensor] | None = None

    def extreme(self, x0_pred: Tensor, remember: Tensor, labels: Tensor, alpha_bar_t: Tensor, largest: bool) -> Tensor:
        """Return the weighted loss of a global batch, a scalar.

        Args:
            x0_pred: (N, ...), float32.
            remember: (N, ...), what :meth:`commit` will add to the memory.
            labels: (N,), int64.
            alpha_bar_t: (N,).
            largest: whether the largest cosine is the loss, or one minus the smallest.
        """
        weight = alpha_bar_t if self.t_weight == 'alpha_bar' else alpha_bar_t.new_ones(len(labels))
        loss = mean_extreme(*self.memory.similarities(x0_pred, labels), labels, weight, largest)
        self._pending = remember.detach(), labels
        return self.loss_weight * loss

    def commit(self) -> None:
        """Remember the batch that the loss was last computed of, once."""
        if self._pending is not None:
            self.memory.push(*self._pending)
            self._pending = None


@LOSS_REGISTRY.register()
class RepresentativenessLoss(MinimaxLoss):
    """L_r = 1 - min over samples and memory of cos(x0_pred, z_m), z_m earlier real latents of the label.

    Source: Gu et al. (2024), Eq. 5; Cho et al. (2025), Eq. 3.

    >>> import torch
    >>> from types import SimpleNamespace as Given
    >>> loss = RepresentativenessLoss(num_labels=1, latent_dim=2, loss_weight=0.002, memory_size=64, t_weight='none')
    >>> z = torch.tensor([[0.0, 1.0]])
    >>> batch = Given(x0=z, labels=torch.tensor([0]), alpha_bar_t=torch.ones(1))
    >>> loss(Given(x0_pred=z), batch), loss.commit(), loss(Given(x0_pred=-z), batch)
    (tensor(0.), None, tensor(0.0040))
    """

    def forward(self, prediction: Prediction, batch: NoisedBatch) -> Tensor:
        """Return the weighted loss, a scalar; ``commit()`` then remembers ``x0``."""
        x0_pred, x0, labels, alpha_bar_t = gather_batch(prediction.x0_pred, batch.x0, batch.labels, batch.alpha_bar_t)
        return self.extreme(x0_pred, x0, labels, alpha_bar_t, largest=False)


@LOSS_REGISTRY.register()
class DiversityLoss(MinimaxLoss):
    """L_d = max over samples and memory of cos(x0_pred, zhat_n), zhat_n earlier predictions for the label.

    Source: Gu et al. (2024), Eq. 6; Cho et al. (2025), Eq. 4.

    >>> import torch
    >>> from types import SimpleNamespace as Given
    >>> loss = DiversityLoss(num_labels=1, latent_dim=2, loss_weight=0.008, memory_size=64, t_weight='none')
    >>> prediction = Given(x0_pred=torch.tensor([[3.0, 4.0]]))
    >>> batch = Given(labels=torch.tensor([0]), alpha_bar_t=torch.ones(1))
    >>> loss(prediction, batch), loss.commit(), loss(prediction, batch)
    (tensor(0.), None, tensor(0.0080))
    """

    def forward(self, prediction: Prediction, batch: NoisedBatch) -> Tensor:
        """Return the weighted loss, a scalar; ``commit()`` then remembers ``x0_pred``."""
        x0_pred, labels, alpha_bar_t = gather_batch(prediction.x0_pred, batch.labels, batch.alpha_bar_t)
        return self.extreme(x0_pred, x0_pred, labels, alpha_bar_t, largest=True)
