"""What a training step will cost, tried on one sample before the start."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

# Beside the weights, a trained parameter has a gradient, AdamW's two moments and an average, each in float32.
_BYTES_PER_TRAINED = 16


@dataclass(frozen=True)
class StepEstimate:
    """What a training step takes.

    >>> estimate = StepEstimate(seconds=0.1, state_bytes=10**9, activation_bytes=10**8)
    >>> estimate.describe(batch_size=8, parts=2, iterations=900)
    'at most about 0.8 s an iteration and 0.2 h in all; about 1.4 GB (1 GB weights and optimizer, the rest activations)'
    """

    seconds: float  # forward and backward of one sample
    state_bytes: int  # weights, gradients, optimizer and average
    activation_bytes: int  # what one sample keeps for its backward pass

    def describe(self, batch_size: int, parts: int, iterations: int) -> str:
        """One sentence; the time is an upper bound, since batches are faster than their samples one by one."""
        step_s = self.seconds * batch_size
        hours = step_s * iterations / 3600
        total = self.state_bytes + self.activation_bytes * -(-batch_size // parts)
        return (
            f'at most about {step_s:.2g} s an iteration and {hours:.2g} h in all; about {total / 1e9:.2g} GB '
            f'({self.state_bytes / 1e9:.2g} GB weights and optimizer, the rest activations)'
        )


def estimate_step(net: nn.Module, run: Callable[[], Tensor]) -> StepEstimate:
    """Measure one sample; gradients are cleared afterwards.

    >>> net = nn.Linear(4, 2)
    >>> estimate_step(net, lambda: net(torch.ones(1, 4))).state_bytes  # 10 parameters
    200

    Args:
        net: the network with its trained parameters.
        run: forward pass of one sample.
    """
    own = {parameter.untyped_storage().data_ptr() for parameter in net.parameters()}
    kept: dict[int, int] = {}

    def count(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        run().square().mean().backward()
    start = time.perf_counter()
    # Reading the value waits for a GPU.
    loss = run().square().mean()
    loss.backward()
    loss.item()
    seconds = time.perf_counter() - start
    for parameter in net.parameters():
        parameter.grad = None
    state = sum(p.nbytes + (_BYTES_PER_TRAINED * p.numel() if p.requires_grad else 0) for p in net.parameters())
    return StepEstimate(seconds, state, sum(kept.values()))


def training_cost(
    net: Any, autocast: Callable[[], AbstractContextManager[Any]], batch_size: int, parts: int, iterations: int
) -> str:
    """Say what of a MinimaxDiT is trained and what it takes, a sentence without its full stop; tries one sample.

    Args:
        net: the denoiser.
        autocast: makes the context of a forward pass.
        batch_size: samples of a batch.
        parts: that a batch is cut into.
        iterations: of the training.
    """
    count = sum(parameter.numel() for parameter in net.parameters())
    trained = sum(parameter.numel() for parameter in net.parameters() if parameter.requires_grad)
    device = next(net.parameters()).device
    x_t = torch.zeros(1, net.in_channels, net.sample_size, net.sample_size, device=device)
    zero = torch.zeros(1, dtype=torch.int64, device=device)

    def run() -> Tensor:
        with autocast():
            return net(x_t, zero, zero).float()

    cost = estimate_step(net, run).describe(batch_size, parts, iterations)
    return f'{trained / 1e6:.2f} of {count / 1e6:.2f} million parameters are trained; {cost}'
