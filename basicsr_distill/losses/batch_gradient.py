"""The gradient of a whole batch's objective, computed part after part."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from basicsr.utils import get_root_logger
from torch import Tensor

from basicsr_distill.diffusion.training_step import (
    NoisedBatch,
    Prediction,
    gradient_norms,
    join_parts,
    not_finite,
    read_output,
    split_batch,
)
from basicsr_distill.errors import InputError
from basicsr_distill.losses.objective import Objective, Terms


class BatchGradient:
    """Puts the gradient of a batch's objective on the parameters, and changes nothing else: it can be repeated.

    The gradient is the same, up to rounding, however a batch is cut and whatever the sizes of the parts: means count by
    their samples, and some terms (the minimax losses) are extremes over the whole batch. For these the predictions of
    all parts are needed before the first is followed backwards, and keeping all parts' activations would cost the
    memory that cutting saves. So a first pass without gradients predicts, the terms' gradients at x0_pred are taken
    there, and in the second pass each part follows <x0_pred, that gradient> backwards in the terms' place. It costs one
    more forward pass, and only where there are such terms and several parts. Both passes see the same noise and the
    same dropped labels, since the batch carries them, and the network draws no random numbers of its own.

    Args:
        net: the network, perhaps wrapped for several ranks.
        objective: see there.
        autocast: makes the context of the network's forward pass.
        scaler: scales the loss before its gradient is taken.
        accumulation: parts that a batch is cut into; once twice as many if memory runs out.
        is_distributed: the net averages gradients over ranks.
    """

    def __init__(
        self,
        net: Any,
        objective: Objective,
        autocast: Callable[[], AbstractContextManager[Any]],
        scaler: torch.amp.GradScaler,
        accumulation: int,
        is_distributed: bool,
    ) -> None:
        self.net = net
        self.objective = objective
        self.autocast = autocast
        self.scaler = scaler
        self.accumulation = self.num_parts = accumulation
        self.is_distributed = is_distributed

    def __call__(self, batch: Mapping[str, Tensor], log_gradients: bool) -> Terms:
        """Compute the gradient of this rank's batch; earlier gradients are cleared.

        Args:
            batch: of a LatentPatchDataset.
            log_gradients: also give ``g_<term>``, the norm of a term's gradient at the network's output.

        Returns:
            The weighted terms ``l_<term>`` of the batch, detached scalars.

        Raises:
            FloatingPointError: terms are not finite; names them.
            InputError: the GPU's memory does not suffice.
        """
        while True:
            try:
                return self._of_parts(
                    [self.objective.noise(part) for part in split_batch(batch, self.num_parts)], log_gradients
                )
            except torch.OutOfMemoryError as error:
                self._cut_smaller(len(batch['label']), error)

    def _cut_smaller(self, batch_size: int, error: torch.OutOfMemoryError) -> None:
        halved = 2 * self.accumulation
        # One rank alone must not change its ways: the others would wait for collectives that it skips.
        if self.is_distributed or self.num_parts == halved or halved > batch_size:
            raise InputError(
                f'train.accumulation: out of GPU memory with {self.num_parts} part(s) a batch; set '
                f'{2 * self.num_parts} or more, network_g.gradient_checkpointing: true or a smaller '
                'batch.'
            ) from error
        self.num_parts = halved
        get_root_logger().warning(
            'Out of GPU memory: batches are now cut into %d parts; set train.accumulation: %d.', halved, halved
        )
        torch.cuda.empty_cache()

    def _of_parts(self, parts: Sequence[NoisedBatch], log_gradients: bool) -> Terms:
        self.net.zero_grad(set_to_none=True)
        size = sum(len(part) for part in parts)
        needs_whole = len(parts) > 1 and not self.objective.is_mean
        wholes, pulls = self._whole_batch_pulls(parts) if needs_whole else ({}, [])
        total: Terms = {}
        for number, part in enumerate(parts):
            is_last = number == len(parts) - 1
            with self.net.no_sync() if self.is_distributed and not is_last else nullcontext():
                prediction = self._predict(part)
                terms = self.objective.terms(part, prediction, pulls[number] if needs_whole else None)
                _refuse_not_finite(terms)
                share = len(part) / size
                terms = {name: value if name in wholes else share * value for name, value in terms.items()}
                if log_gradients:
                    for name, norm in gradient_norms(terms, prediction.output).items():
                        total[name] = norm.hypot(total[name]) if name in total else norm
                self.scaler.scale(torch.stack(list(terms.values())).sum()).backward()
            for name, value in terms.items():
                total[name] = wholes[name] if name in wholes else total.get(name, 0) + value.detach()
        return total

    def _whole_batch_pulls(self, parts: Sequence[NoisedBatch]) -> tuple[Terms, list[Terms]]:
        """Return the terms that need the whole batch, and for every part their gradients at its x0_pred."""
        with torch.no_grad():
            prediction = join_parts([self._predict(part) for part in parts])
        x0_pred = prediction.x0_pred.requires_grad_()
        terms = self.objective.whole_batch_terms(join_parts(parts), prediction)
        _refuse_not_finite(terms)
        sizes = [len(part) for part in parts]
        pulls = {name: torch.autograd.grad(value, x0_pred)[0].split(sizes) for name, value in terms.items()}
        return (
            {name: value.detach() for name, value in terms.items()},
            [{name: pull[number] for name, pull in pulls.items()} for number in range(len(parts))],
        )

    def _predict(self, part: NoisedBatch) -> Prediction:
        with self.autocast():
            output = self.net(part.x_t, part.timesteps, part.labels, drop_mask=part.drop_mask)
        return read_output(output, part)


def _refuse_not_finite(terms: Terms) -> None:
    if bad := not_finite(terms):
        raise FloatingPointError(' and '.join(bad))
