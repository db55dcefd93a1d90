"""Generated latents keep what bicubic resizing would lose."""

from collections.abc import Callable

from basicsr.utils.registry import LOSS_REGISTRY
from torch import Tensor, nn

from basicsr_distill.diffusion.training_step import NoisedBatch, Prediction
from basicsr_distill.ops.bicubic import bicubic_downsample, bicubic_upsample, high_pass

# Mean square below which high frequencies are rounding (1e-14 of it) and a sample is flat; the logarithm stays finite.
_ENERGY_FLOOR = 1e-12
# ``literal`` rewards a distance without end; this many times the real latents' own ends it.
_LITERAL_CEILING = 4.0


@LOSS_REGISTRY.register()
class HighFrequencyLoss(nn.Module):
    """High-frequency term in four forms.

    ``latent``: mean over samples of alpha_bar_t |log ||HF(x0_pred)||^2 - log ||HF(x0)||^2|, HF(z) = z - up(down(z)).
    ``pixel``: the same on decoded samples whose timestep is below ``pixel_max_timestep``; the others count as zero.
    ``literal``: -||x0_pred - up(down(x0))||^2, a mean over numbers, its absolute value held below 4 ||HF(x0)||^2.
    ``off``: none.

    Source: Cho et al. (2025), Eq. 5, is ``literal``, which is unbounded below without the limit; the others are ours.

    Args:
        loss_weight: factor.
        mode: one of the four.
        scale: factor of the bicubic resizing.
        pixel_max_timestep: see above.
        decode: latents to pixels, differentiable; called in ``pixel`` mode alone.

    >>> import torch
    >>> from types import SimpleNamespace as Given
    >>> x0 = torch.eye(8)[None, None]
    >>> loss = HighFrequencyLoss(loss_weight=1.0, mode='latent', scale=4, pixel_max_timestep=100, decode=None)
    >>> loss(Given(x0_pred=x0), Given(x0=x0, alpha_bar_t=torch.ones(1), timesteps=torch.zeros(1)))
    tensor(0.)
    """

    def __init__(
        self, loss_weight: float, mode: str, scale: int, pixel_max_timestep: int, decode: Callable[[Tensor], Tensor]
    ) -> None:
        super().__init__()
        if mode not in ('off', 'latent', 'pixel', 'literal'):
            raise ValueError(f'mode {mode!r} is none of off, latent, pixel, literal.')
        self.loss_weight = loss_weight
        self.mode = mode
        self.scale = scale
        self.pixel_max_timestep = pixel_max_timestep
        self.decode = decode

    def forward(self, prediction: Prediction, batch: NoisedBatch) -> Tensor:
        """Return the weighted loss, a scalar."""
        x0_pred, x0, alpha_bar_t = prediction.x0_pred, batch.x0, batch.alpha_bar_t
        if self.mode == 'off':
            return (x0_pred * 0).sum()
        if self.mode == 'literal':
            return -self.loss_weight * self._literal(x0_pred, x0)
        if self.mode == 'pixel':
            near = batch.timesteps < self.pixel_max_timestep
            if not near.any():
                return (x0_pred * 0).sum()
            gap = self._log_energy(self.decode(x0_pred[near])) - self._log_energy(self.decode(x0[near]))
            return self.loss_weight * (alpha_bar_t[near] * gap.abs()).sum() / len(x0)
        gap = self._log_energy(x0_pred) - self._log_energy(x0)
        return self.loss_weight * (alpha_bar_t * gap.abs()).mean()

    def _log_energy(self, x: Tensor) -> Tensor:
        return high_pass(x, self.scale).square().flatten(1).mean(1).clamp(min=_ENERGY_FLOOR).log()

    def _literal(self, x0_pred: Tensor, x0: Tensor) -> Tensor:
        height, width = x0.shape[-2:]
        smooth = bicubic_upsample(bicubic_downsample(x0, self.scale), self.scale)[..., :height, :width]
        distance = (x0_pred - smooth).square().flatten(1).mean(1)
        ceiling = _LITERAL_CEILING * (x0 - smooth).square().flatten(1).mean(1)
        return distance.minimum(ceiling).mean()
