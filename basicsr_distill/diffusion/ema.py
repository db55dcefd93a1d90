"""Exponential moving average of the trained parameters."""

import torch
from torch import Tensor


class ParameterAverage:
    """Average of parameters by name, in float32 on their device.

    With warm-up the decay of update n is min(decay, (1 + n) / (10 + n)), so that short runs are not held back by the
    weights they started from.
    """

    def __init__(self, state: dict[str, Tensor]) -> None:
        self.updates = 0
        self._average = {name: value.detach().clone() for name, value in state.items()}

    @torch.no_grad()
    def update(self, state: dict[str, Tensor], decay: float, warmup: bool) -> None:
        """Move towards ``state``."""
        if warmup:
            decay = min(decay, (1 + self.updates) / (10 + self.updates))
        torch._foreach_lerp_(list(self._average.values()), [state[name] for name in self._average], 1 - decay)
        self.updates += 1

    def set(self, state: dict[str, Tensor]) -> None:
        """Replace the averages."""
        for name, value in self._average.items():
            value.copy_(state[name])

    def state_dict(self) -> dict[str, Tensor]:
        """The averages by name."""
        return self._average
