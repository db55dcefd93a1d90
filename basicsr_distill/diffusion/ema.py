"""Exponential moving average of the trained parameters, by diffusers' ``EMAModel``."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from diffusers.training_utils import EMAModel
from torch import nn


def make_average(parameters: Sequence[nn.Parameter], decay: float, warmup: bool) -> EMAModel:
    """An average that starts at the parameters; :func:`update_average` moves it.

    With warm-up the decay of update n is min(decay, (1 + n) / (10 + n)), so that short runs are not held back by the
    weights they started from. ``optimization_step`` counts the updates, ``shadow_params`` are the averages.

    >>> import torch
    >>> average = make_average([nn.Parameter(torch.zeros(1))], decay=0.9999, warmup=True)
    >>> [round(average.get_decay(update), 4) for update in (1, 2, 9, 10**6)]
    [0.1, 0.1818, 0.5, 0.9999]
    """
    # EMAModel's own warm-up with gamma 9 and power 1 is 1 - (1 + (1 + n) / 9)^-1 = (1 + n) / (10 + n) when counted from
    # -1; its default takes 0 for the first decay, where this takes 0.1. Without warm-up the lowest decay is the
    # highest.
    return EMAModel(
        parameters,
        decay=decay,
        min_decay=0.0 if warmup else decay,
        update_after_step=-1,
        use_ema_warmup=True,
        inv_gamma=9,
        power=1,
        foreach=True,
    )


def update_average(average: EMAModel, parameters: Sequence[nn.Parameter]) -> None:
    """Move towards the parameters.

    >>> import torch
    >>> average = make_average([nn.Parameter(torch.zeros(1))], decay=0.75, warmup=False)
    >>> update_average(average, [nn.Parameter(torch.ones(1))])
    >>> average.shadow_params
    [tensor([0.2500])]
    """
    average.step(parameters)
    if average.decay == 0:
        # The average is the newest weights, but s - (s - p) is p up to rounding only.
        for shadow, parameter in zip(average.shadow_params, parameters):
            shadow.copy_(parameter.detach())


@contextmanager
def averaged_weights(average: EMAModel, parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    """The averages in the parameters' place.

    >>> import torch
    >>> parameters = [nn.Parameter(torch.zeros(1))]
    >>> average = make_average(parameters, decay=0.75, warmup=False)
    >>> parameters[0].data.fill_(1)
    tensor([1.])
    >>> with averaged_weights(average, parameters):
    ...     print(parameters[0].item())
    0.0
    """
    average.store(parameters)
    average.copy_to(parameters)
    try:
        yield
    finally:
        average.restore(parameters)
