"""The objective of fine-tuning.

L = L_simple (+ L_vlb) + a term for every ``*_opt`` of the ``train`` section: L_representativeness + L_diversity +
L_high-frequency in Cho et al. (2025), Eq. 6.

A term is a registered loss with the signature ``loss(prediction, batch) -> scalar``, a mean over the samples. One that
is not says so by the class attribute ``needs_whole_batch``: it is computed of all parts of a batch together, and its
gradient passes through ``prediction.x0_pred`` alone. One that remembers batches has a method ``commit()``, which ends a
step that was taken.
"""

import inspect
from collections.abc import Callable, Mapping

from basicsr.losses import build_loss
from basicsr.utils.registry import LOSS_REGISTRY
from torch import Tensor, nn

from basicsr_distill.config.sections.dit import MinimaxDiTTrainOptions
from basicsr_distill.diffusion.training_step import NoisedBatch, Prediction, denoising_terms, noise_batch

Terms = dict[str, Tensor]


def build_losses(
    options: MinimaxDiTTrainOptions, num_labels: int, latent_dim: int, decode: Callable[[Tensor], Tensor]
) -> nn.ModuleDict:
    """Build the terms beside L_simple that are switched on; their memories are part of the training state.

    >>> options = MinimaxDiTTrainOptions(total_iter=1, optim_g={}, scheduler={}, diversity_opt={})
    >>> list(build_losses(options, num_labels=2, latent_dim=3, decode=lambda latents: latents))
    ['diversity']

    Args:
        options: of the ``train`` section.
        num_labels: given to losses that take it, like the following.
        latent_dim: numbers in a flattened latent.
        decode: latents to pixels, differentiable.
    """
    given = {'num_labels': num_labels, 'latent_dim': latent_dim, 'decode': decode}
    losses = nn.ModuleDict()
    for name, section in options.terms.items():
        if section.loss_weight > 0 and getattr(section, 'mode', None) != 'off':
            taken = inspect.signature(LOSS_REGISTRY.get(section.type)).parameters
            arguments = {key: value for key, value in given.items() if key in taken}
            losses[name] = build_loss({**section.model_dump(exclude={'pixel_codec'}), **arguments})
    return losses


class Objective:
    """The weighted terms.

    Args:
        losses: of :func:`build_losses`.
        options: of the ``train`` section.
        alpha_bar: of every timestep.
    """

    def __init__(self, losses: nn.ModuleDict, options: MinimaxDiTTrainOptions, alpha_bar: Tensor) -> None:
        self.losses = losses
        self.options = options
        self.alpha_bar = alpha_bar
        self._whole = {name for name, loss in losses.items() if getattr(loss, 'needs_whole_batch', False)}

    @property
    def is_mean(self) -> bool:
        """Whether every term is a mean over the samples, so that parts of a batch are independent of each other."""
        return not self._whole

    def noise(self, batch: Mapping[str, Tensor]) -> NoisedBatch:
        """Return a batch of a LatentPatchDataset with its noise on."""
        return noise_batch(batch, self.alpha_bar, self.options.max_timestep, self.options.label_dropout)

    def whole_batch_terms(self, batch: NoisedBatch, prediction: Prediction) -> Terms:
        """Return the terms that need the whole batch; :meth:`commit` ends the step."""
        return {f'l_{name}': loss(prediction, batch) for name, loss in self.losses.items() if name in self._whole}

    def terms(self, part: NoisedBatch, prediction: Prediction, pulls: Terms | None = None) -> Terms:
        """Return every term of a part of the batch.

        Args:
            part: of the batch.
            prediction: of the part.
            pulls: gradients at the part's x0_pred that stand for the terms of the whole batch; those are computed of
                the part itself, which then is the batch, when absent.
        """
        terms = denoising_terms(part, prediction, self.alpha_bar, self.options.min_snr_gamma, self.options.vlb_weight)
        for name, loss in self.losses.items():
            if pulls is not None and name in self._whole:
                terms[f'l_{name}'] = (prediction.x0_pred * pulls[f'l_{name}']).sum()
            else:
                terms[f'l_{name}'] = loss(prediction, part)
        return terms

    def commit(self) -> None:
        """Remember the batch in the memories; to be called once a step, when it was taken."""
        for loss in self.losses.values():
            if (commit := getattr(loss, 'commit', None)) is not None:
                commit()
