"""The denoiser that learns the patches."""

from pathlib import Path
from typing import Any

import torch
from basicsr.utils.registry import ARCH_REGISTRY
from diffusers import DiTTransformer2DModel
from torch import Tensor, nn

from basicsr_distill.config.sections.base import bind
from basicsr_distill.config.sections.dit import MinimaxDiTNetworkOptions, ScratchDiTOptions
from basicsr_distill.diffusion.difffit import attach_difffit, fold_difffit
from basicsr_distill.diffusion.dit import (
    init_label_rows,
    load_dit,
    scratch_dit,
    share_conditioner,
    unshare_conditioner,
)
from basicsr_distill.errors import InputError
from basicsr_distill.io.weights import load_weights

LORA_TARGETS = ['to_q', 'to_k', 'to_v', 'to_out.0', 'ff.net.0.proj', 'ff.net.2']


@ARCH_REGISTRY.register()
class MinimaxDiT(nn.Module):
    """Label-conditional DiT (Peebles and Xie 2023) with published or random weights.

    Args:
        num_labels: labels are 0 ... num_labels - 1.
        pretrained: see :func:`basicsr_distill.diffusion.dit.load_dit`.
        subfolder, local_files_only: likewise.
        from_scratch: instead of ``pretrained``, options of random weights (:class:`ScratchDiTOptions`).
        label_init: how rows of a pretrained label table start, ``null_row``, ``rows`` or ``mean``.
        tuning: what is trained, ``difffit``, ``lora`` (with the label table), ``full`` or ``none``.
        lora_rank: of ``lora``.
        gradient_checkpointing: trade time for memory.
    """

    def __init__(
        self,
        num_labels: int,
        pretrained: str | None,
        subfolder: str | None,
        local_files_only: bool,
        from_scratch: dict[str, Any] | None,
        label_init: str,
        tuning: str,
        lora_rank: int,
        gradient_checkpointing: bool,
    ) -> None:
        super().__init__()
        self.pretrained = pretrained
        if pretrained is None:
            self.dit = scratch_dit(bind(ScratchDiTOptions, from_scratch, 'network_g.from_scratch'), num_labels)
        else:
            self.dit = load_dit(pretrained, subfolder, local_files_only)
        self.conditioner = share_conditioner(self.dit)
        if pretrained is not None:
            init_label_rows(self.conditioner, num_labels, label_init)
        self.num_labels = num_labels
        self.null_label = self.conditioner.class_embedder.num_classes
        self.in_channels: int = self.dit.config.in_channels
        self.sample_size: int = self.dit.config.sample_size
        self.learns_variance: bool = self.dit.out_channels == 2 * self.in_channels
        if tuning == 'none':
            self.requires_grad_(False)
        elif tuning == 'difffit':
            attach_difffit(self.dit, self.conditioner)
        elif tuning == 'lora':
            self._attach_lora(lora_rank)
        if gradient_checkpointing:
            self.dit.enable_gradient_checkpointing()

    def forward(self, x_t: Tensor, timesteps: Tensor, labels: Tensor, drop_mask: Tensor | None = None) -> Tensor:
        """Predict the noise.

        Args:
            x_t: noised latents, (N, C, h, w).
            timesteps: (N,), 0 ... 999.
            labels: (N,), int64.
            drop_mask: (N,), bool, samples whose label is replaced by the null label.

        Returns:
            (N, C, h, w), or (N, 2 C, h, w) with the learned variance behind.
        """
        if drop_mask is not None:
            labels = torch.where(drop_mask, self.null_label, labels)
        # The frequencies of timesteps need more bits than autocast leaves.
        with torch.autocast(x_t.device.type, enabled=False):
            conditioning = self.conditioner(timesteps, labels, hidden_dtype=self.dit.dtype)
        return self.dit(x_t, class_labels=conditioning).sample

    def trained_state(self) -> dict[str, Tensor]:
        """The trained parameters alone, by name."""
        return {name: parameter.detach() for name, parameter in self.named_parameters() if parameter.requires_grad}

    @torch.no_grad()
    def load_trained_state(self, state: dict[str, Tensor], origin: str) -> None:
        """Put trained parameters back.

        Raises:
            InputError: they are not those of this network; ``origin`` names the file.
        """
        own = self.trained_state()
        for name in sorted(own.keys() ^ state.keys()):
            where = 'is missing' if name in own else 'is not of this network'
            raise InputError(f'{origin}: {name} {where}; network_g must be as it was when the file was written.')
        for name, parameter in own.items():
            if parameter.shape != state[name].shape:
                raise InputError(
                    f'{origin}: {name} has the shape {tuple(state[name].shape)} instead of '
                    f'{tuple(parameter.shape)}; network_g must be as it was when the file was written.'
                )
            parameter.copy_(state[name])

    def to_plain(self) -> DiTTransformer2DModel:
        """The same model as diffusers has it, scales and LoRA factors folded into the weights.

        This network is folded with it, and no longer one to train.
        """
        fold_difffit(self.dit)
        for name, module in list(self.dit.named_modules()):
            if hasattr(module, 'get_base_layer'):  # of peft
                module.merge()
                self.dit.set_submodule(name, module.get_base_layer())
        return unshare_conditioner(self.dit, self.conditioner)

    def _attach_lora(self, rank: int) -> None:
        try:
            import peft
        except ImportError as error:
            raise InputError('network_g.tuning: lora needs the package peft; run `pip install peft`.') from error
        self.requires_grad_(False)
        config = peft.LoraConfig(r=rank, lora_alpha=rank, target_modules=LORA_TARGETS)
        peft.inject_adapter_in_model(config, self.dit)
        self.conditioner.class_embedder.embedding_table.weight.requires_grad_()


def build_dit(options: MinimaxDiTNetworkOptions) -> MinimaxDiT:
    """The network that a section describes."""
    return MinimaxDiT(**options.model_dump(exclude={'type'}))


def load_trained(options: dict[str, Any], checkpoint: Path, weights: str) -> MinimaxDiT:
    """A network with what a training has made of it.

    Args:
        options: ``network_g`` of the training.
        checkpoint: that it wrote.
        weights: ``params`` or ``params_ema``.

    Raises:
        InputError: the checkpoint is not of this network, or lacks these weights.
    """
    network = MinimaxDiT(**{key: value for key, value in options.items() if key != 'type'})
    states = load_weights(checkpoint)
    if weights not in states:
        raise InputError(f'{checkpoint}: holds no {weights}; it has {" and ".join(sorted(states))}.')
    network.load_trained_state(states[weights], str(checkpoint))
    return network
