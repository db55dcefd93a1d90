"""What the two minimax losses share: the extreme cosine of a batch to a memory, and when the memory grows."""

from torch import Tensor, nn

from basicsr_distill.losses.memory import LatentMemory, mean_extreme


class MinimaxLoss(nn.Module):
    """An extreme of cos(x0_pred, memory of the label) over the batch.

    Computing the loss leaves the memory as it is, so that it may be computed again for the same step (after running out
    of GPU memory, say); :meth:`commit` ends the step.

    Args:
        num_labels, latent_dim: of the data.
        loss_weight: factor.
        memory_size: latents remembered per label.
        t_weight: ``alpha_bar`` multiplies a label's term by alpha_bar_t of its extreme sample.
    """

    def __init__(self, num_labels: int, latent_dim: int, loss_weight: float, memory_size: int, t_weight: str) -> None:
        super().__init__()
        self.loss_weight = loss_weight
        self.t_weight = t_weight
        self.memory = LatentMemory(num_labels, latent_dim, memory_size)
        self._pending: tuple[Tensor, Tensor] | None = None

    def extreme(self, x0_pred: Tensor, remember: Tensor, labels: Tensor, alpha_bar_t: Tensor, largest: bool) -> Tensor:
        """The weighted loss of a global batch, a scalar.

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
