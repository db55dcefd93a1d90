"""The objective of fine-tuning.

L = L_simple (+ L_vlb) + L_representativeness + L_diversity + L_high-frequency (Cho et al. 2025, Eq. 6).
"""

from collections.abc import Callable, Mapping

from basicsr.losses import build_loss
from torch import Tensor, nn

from basicsr_distill.config.sections.dit import MinimaxDiTTrainOptions
from basicsr_distill.diffusion.objective import NoisedBatch, Prediction, denoising_terms, noise_batch
from basicsr_distill.losses.minimax_loss import MinimaxLoss

Terms = dict[str, Tensor]


def build_losses(options: MinimaxDiTTrainOptions, num_labels: int, latent_dim: int) -> nn.ModuleDict:
    """The terms beside L_simple that are switched on; their memories are part of the training state.

    >>> options = MinimaxDiTTrainOptions(total_iter=1, optim_g={}, scheduler={}, diversity_opt={})
    >>> list(build_losses(options, num_labels=2, latent_dim=3))
    ['diversity']
    """
    data = {'num_labels': num_labels, 'latent_dim': latent_dim}
    sections = {
        'representativeness': (options.representativeness_opt, data),
        'diversity': (options.diversity_opt, data),
        'high_frequency': (options.high_frequency_opt, {}),
    }
    losses = nn.ModuleDict()
    for name, (section, arguments) in sections.items():
        if section is not None and section.loss_weight > 0 and getattr(section, 'mode', None) != 'off':
            losses[name] = build_loss({**section.model_dump(exclude={'pixel_codec'}), **arguments})
    return losses


class Objective:
    """The weighted terms of Eq. (6).

    Args:
        losses: of :func:`build_losses`.
        options: of the ``train`` section.
        alpha_bar: of every timestep.
        decode: latents to pixels, for the high-frequency term in ``pixel`` mode.
    """

    def __init__(
        self,
        losses: nn.ModuleDict,
        options: MinimaxDiTTrainOptions,
        alpha_bar: Tensor,
        decode: Callable[[Tensor], Tensor],
    ) -> None:
        self.losses = losses
        self.options = options
        self.alpha_bar = alpha_bar
        self.decode = decode

    @property
    def is_mean(self) -> bool:
        """Whether every term is a mean over the samples, so that parts of a batch are independent of each other."""
        return not any(isinstance(loss, MinimaxLoss) for loss in self.losses.values())

    def noise(self, batch: Mapping[str, Tensor]) -> NoisedBatch:
        """A batch of a LatentPatchDataset with its noise on."""
        return noise_batch(batch, self.alpha_bar, self.options.max_timestep, self.options.label_dropout)

    def minimax_terms(self, x0_pred: Tensor, x0: Tensor, labels: Tensor, alpha_bar_t: Tensor) -> Terms:
        """The terms that are one extreme over a whole batch; :meth:`commit` ends the step."""
        terms = {}
        if 'representativeness' in self.losses:
            terms['l_representativeness'] = self.losses['representativeness'](x0_pred, x0, labels, alpha_bar_t)
        if 'diversity' in self.losses:
            terms['l_diversity'] = self.losses['diversity'](x0_pred, labels, alpha_bar_t)
        return terms

    def terms(self, part: NoisedBatch, prediction: Prediction, pulls: Terms | None = None) -> Terms:
        """Every term of a part of the batch.

        Args:
            pulls: gradients at the part's x0_pred that stand for the minimax terms; those are computed of the part
                itself, which then is the batch, when absent.
        """
        terms = denoising_terms(part, prediction, self.alpha_bar, self.options.min_snr_gamma, self.options.vlb_weight)
        if pulls is None:
            terms.update(self.minimax_terms(prediction.x0_pred, part.x0, part.labels, part.alpha_bar_t))
        else:
            terms.update({name: (prediction.x0_pred * pull).sum() for name, pull in pulls.items()})
        if 'high_frequency' in self.losses:
            terms['l_high_frequency'] = self.losses['high_frequency'](
                prediction.x0_pred, part.x0, part.alpha_bar_t, part.timesteps, decode=self.decode
            )
        return terms

    def commit(self) -> None:
        """Remember the batch in the memories; to be called once a step, when it was taken."""
        for loss in self.losses.values():
            if isinstance(loss, MinimaxLoss):
                loss.commit()
