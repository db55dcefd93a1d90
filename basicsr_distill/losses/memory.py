"""Memories of latents per label, and the extreme similarity of a batch to them (Gu et al., CVPR 2024)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from basicsr_distill.runtime import distributed


class LatentMemory(nn.Module):
    """The last ``size`` latents of every label, first in first out, as buffers that checkpoints hold.

    Only their directions are kept, since nothing but cosines is asked of them.

    >>> memory = LatentMemory(num_labels=2, latent_dim=2, size=3)
    >>> memory.push(torch.tensor([[3.0, 0.0]]), torch.tensor([1]))
    >>> memory.similarities(torch.tensor([[0.0, 2.0]]), torch.tensor([1]))
    (tensor([[0., 0., 0.]]), tensor([[ True, False, False]]))

    Args:
        num_labels: labels are 0 ... num_labels - 1.
        latent_dim: numbers in a flattened latent.
        size: latents kept per label.
    """

    directions: Tensor  # (num_labels * size, latent_dim), float32, unit vectors or zero
    pushed: Tensor  # (num_labels,), int64, latents ever pushed

    def __init__(self, num_labels: int, latent_dim: int, size: int) -> None:
        super().__init__()
        self.size = size
        self.register_buffer('directions', torch.zeros(num_labels * size, latent_dim))
        self.register_buffer('pushed', torch.zeros(num_labels, dtype=torch.int64))

    def push(self, latents: Tensor, labels: Tensor) -> None:
        """Add latents (N, ...) with labels (N,), in their order."""
        directions = F.normalize(latents.detach().flatten(1).float(), dim=1)
        same = labels[:, None] == labels[None, :]
        # How many of the batch's earlier samples share the label: their places in the queue come first.
        turn = same.tril(-1).sum(1)
        count = same.sum(1)
        slots = labels * self.size + (self.pushed[labels] + turn) % self.size
        kept = turn >= count - self.size
        self.directions[slots[kept]] = directions[kept]
        self.pushed.index_add_(0, labels, torch.ones_like(labels))

    def similarities(self, latents: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines of latents (N, ...) to the memory of their own labels.

        Returns:
            Cosines (N, size), differentiable, and which of them exist (N, size), bool.
        """
        memory = self.directions.view(len(self.pushed), self.size, -1)[labels]
        cosines = torch.einsum('nd,nmd->nm', F.normalize(latents.flatten(1).float(), dim=1), memory)
        places = torch.arange(self.size, device=labels.device)
        return cosines, places < self.pushed[labels, None]


def mean_extreme(cosines: Tensor, exists: Tensor, labels: Tensor, sample_weight: Tensor, largest: bool) -> Tensor:
    """Extreme cosine over all (sample, memory) pairs of a label, turned into a loss, averaged over the labels.

    A label's loss is its largest cosine, or one minus its smallest, times the weight of the sample it belongs to.
    Labels whose memory is empty are left out.

    Args:
        cosines: (N, M), of :meth:`LatentMemory.similarities`.
        exists: (N, M), bool, of the same.
        labels: (N,).
        sample_weight: (N,).
        largest: whether the largest cosine is the loss, or one minus the smallest.

    Returns:
        Scalar; zero, with a zero gradient, while no label has a memory.

    >>> cosines, labels = torch.tensor([[0.5, 0.25], [0.75, 0.0]]), torch.tensor([0, 0])
    >>> mean_extreme(cosines, cosines > 0, labels, torch.ones(2), largest=True)
    tensor(0.7500)
    """
    present = labels[exists.any(1)].unique()
    if len(present) == 0:
        return (cosines * 0).sum()
    height = torch.where(exists, cosines if largest else 1 - cosines, -torch.inf).amax(1)
    height, sample = torch.where(labels == present[:, None], height, -torch.inf).max(1)
    return (sample_weight[sample] * height).mean()


def gather_batch(*tensors: Tensor) -> list[Tensor]:
    """The global batch, rank after rank; the tensors themselves in a single process.

    A loss of the global batch is computed on every rank. Gradients pass through a rank's own samples alone, enlarged by
    the number of ranks, so that DistributedDataParallel's average is the gradient of that loss.

    >>> gather_batch(torch.tensor([1, 2]), torch.tensor([3]))
    [tensor([1, 2]), tensor([3])]
    """
    ranks = distributed.world_size()
    if ranks == 1:
        return list(tensors)
    gathered = []
    for tensor in tensors:
        parts = [torch.empty_like(tensor) for _ in range(ranks)]
        torch.distributed.all_gather(parts, tensor.detach().contiguous())
        if tensor.requires_grad:
            # The very bits that the other ranks received, else ranks would differ in which sample is the extreme one:
            # arithmetic such as ranks * x - (ranks - 1) * x does not give x back.
            own = tensor.clone()
            own.register_hook(lambda gradient: ranks * gradient)
            parts[distributed.rank()] = own
        gathered.append(torch.cat(parts))
    return gathered
