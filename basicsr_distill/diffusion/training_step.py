"""One training step's equations: a batch noised, what the denoiser's output says of it, the terms that are means."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeVar

import torch
from torch import Tensor

from basicsr_distill.diffusion.process import add_noise, predict_x0, simple_loss, variational_bound


@dataclass(frozen=True)
class NoisedBatch:
    """A batch, or a part of one, as the denoiser is asked about it."""

    x0: Tensor  # (N, C, h, w), float32, the latents
    noise: Tensor  # as x0
    x_t: Tensor  # as x0, with the noise on
    labels: Tensor  # (N,), int64
    timesteps: Tensor  # (N,), int64
    alpha_bar_t: Tensor  # (N,)
    drop_mask: Tensor  # (N,), bool, samples whose label is replaced by the null label

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Prediction:
    """What the denoiser said of a batch, or a part of one."""

    output: Tensor  # (N, C, h, w), or (N, 2 C, h, w) with the learned variance behind, float32
    eps_pred: Tensor  # (N, C, h, w)
    x0_pred: Tensor  # (N, C, h, w)
    variance_pred: Tensor | None  # (N, C, h, w)


_Parts = TypeVar('_Parts', NoisedBatch, Prediction)


def split_batch(batch: Mapping[str, Tensor], count: int) -> list[dict[str, Tensor]]:
    """Consecutive parts of a batch, at most one a sample; their sizes differ by one at most.

    >>> [part['label'].tolist() for part in split_batch({'label': torch.arange(5)}, 2)]
    [[0, 1, 2], [3, 4]]
    """
    count = min(count, len(batch['label']))
    chunks = {key: value.tensor_split(count) for key, value in batch.items()}
    return [{key: value[number] for key, value in chunks.items()} for number in range(count)]


def join_parts(parts: Sequence[_Parts]) -> _Parts:
    """Join parts of a noised batch, or what was predicted of them, in their order.

    >>> part = Prediction(*torch.zeros(3, 2, 1, 1, 1), None)
    >>> whole = join_parts([part, part])
    >>> len(whole.x0_pred), whole.variance_pred
    (4, None)
    """
    whole = type(parts[0])
    columns = {field.name: [getattr(part, field.name) for part in parts] for field in fields(whole)}
    joined: dict[str, Any] = {
        name: torch.cat(values) if values[0] is not None else None for name, values in columns.items()
    }
    return whole(**joined)


def noise_batch(batch: Mapping[str, Tensor], alpha_bar: Tensor, max_timestep: int, label_dropout: float) -> NoisedBatch:
    """Noise a batch with the random numbers that it carries, so that doing it again gives the same.

    Args:
        batch: of a LatentPatchDataset: ``latent``, ``noise`` (N, C, h, w); ``label``, ``time``, ``drop`` (N,).
        alpha_bar: of every timestep.
        max_timestep: timesteps are below it.
        label_dropout: share of samples that lose their label.

    >>> one = {'latent': torch.ones(1, 1, 1, 1), 'noise': torch.ones(1, 1, 1, 1), 'label': torch.tensor([3])}
    >>> noise_batch({**one, 'time': torch.tensor([0.5]), 'drop': torch.tensor([0.9])}, torch.ones(9), 9, 0.1).timesteps
    tensor([4])
    """
    timesteps = (batch['time'] * max_timestep).long()
    alpha_bar_t = alpha_bar[timesteps]
    return NoisedBatch(
        batch['latent'],
        batch['noise'],
        add_noise(batch['latent'], batch['noise'], alpha_bar_t),
        batch['label'],
        timesteps,
        alpha_bar_t,
        batch['drop'] < label_dropout,
    )


def read_output(output: Tensor, part: NoisedBatch) -> Prediction:
    """Take the denoiser's output apart.

    >>> zero = torch.zeros(1, 1, 1, 1)
    >>> part = NoisedBatch(zero, zero, zero + 1, *torch.zeros(2, 1, dtype=torch.int64), torch.tensor([0.25]), zero > 0)
    >>> read_output(zero, part).x0_pred.item()
    2.0
    """
    channels = part.x0.shape[1]
    output = output.float()
    eps_pred = output[:, :channels]
    variance_pred = output[:, channels:] if output.shape[1] > channels else None
    return Prediction(output, eps_pred, predict_x0(part.x_t, eps_pred, part.alpha_bar_t), variance_pred)


def denoising_terms(
    part: NoisedBatch, prediction: Prediction, alpha_bar: Tensor, min_snr_gamma: float | None, vlb_weight: float
) -> dict[str, Tensor]:
    """``l_simple`` and, where the variance is learned and weighted, ``l_vlb``: scalars, means over the samples.

    >>> zero = torch.zeros(1, 1, 1, 1)
    >>> part = NoisedBatch(zero, zero, zero + 1, *torch.zeros(2, 1, dtype=torch.int64), torch.tensor([0.25]), zero > 0)
    >>> denoising_terms(part, read_output(zero + 2, part), torch.ones(2), None, 1.0)
    {'l_simple': tensor(4.)}
    """
    terms = {'l_simple': simple_loss(prediction.eps_pred, part.noise, part.alpha_bar_t, min_snr_gamma)}
    if prediction.variance_pred is not None and vlb_weight > 0:
        terms['l_vlb'] = vlb_weight * variational_bound(
            part.x0, part.x_t, part.timesteps, prediction.eps_pred, prediction.variance_pred, alpha_bar
        )
    return terms


def gradient_norms(terms: Mapping[str, Tensor], output: Tensor) -> dict[str, Tensor]:
    """Norm of each term's gradient at the denoiser's output, by the term's name with ``g_`` for ``l_``: its pull.

    >>> output = torch.tensor([3.0, 4.0], requires_grad=True)
    >>> gradient_norms({'l_simple': (output**2).sum() / 2}, output)
    {'g_simple': tensor(5.)}
    """
    norms = {}
    for name, value in terms.items():
        (gradient,) = torch.autograd.grad(value, output, retain_graph=True, allow_unused=True)
        norms[name.replace('l_', 'g_', 1)] = value.new_zeros(()) if gradient is None else gradient.norm()
    return norms


def not_finite(values: Mapping[str, Tensor]) -> list[str]:
    """Names of the scalars that are infinite or NaN; one transfer from the device where all are finite.

    >>> not_finite({'l_simple': torch.tensor(1.0), 'l_vlb': torch.tensor(float('nan'))})
    ['l_vlb']
    """
    if torch.isfinite(torch.stack([value.detach() for value in values.values()])).all():
        return []
    return [name for name, value in values.items() if not torch.isfinite(value)]
