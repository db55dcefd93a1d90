"""DiffFit (Xie et al., ICCV 2023) on diffusers' DiT: biases, the label table, and a scale on six places of a block.

The scales are parameters of the modules they act on, applied by one hook, so that copies of a model stay independent of
it.
"""

from typing import Any

import torch
from diffusers import DiTTransformer2DModel
from diffusers.models.embeddings import CombinedTimestepLabelEmbeddings
from torch import Tensor, nn

GAMMA = 'gamma'


def attach_difffit(dit: DiTTransformer2DModel, conditioner: CombinedTimestepLabelEmbeddings) -> None:
    """Freeze everything but DiffFit's parameters, and add its scales (ones) to the first half of the blocks.

    Scaled are the outputs of query, key, value, attention projection, attention branch and MLP branch, per channel. For
    XL/2 1,739,552 of 675 million parameters are trained.

    >>> from basicsr_distill.config.sections.dit import ScratchDiTOptions
    >>> from basicsr_distill.diffusion.dit import scratch_dit, share_conditioner
    >>> options = ScratchDiTOptions(num_layers=2, num_attention_heads=1, attention_head_dim=8, sample_size=4)
    >>> dit = scratch_dit(options, num_labels=3)
    >>> attach_difffit(dit, share_conditioner(dit))
    >>> dit.transformer_blocks[0].attn1.to_q.gamma.tolist()
    [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]
    """
    for module in (dit, conditioner):
        for name, parameter in module.named_parameters():
            parameter.requires_grad_(name.endswith('bias'))
    conditioner.class_embedder.embedding_table.weight.requires_grad_()
    for block in dit.transformer_blocks[: len(dit.transformer_blocks) // 2]:
        for module, width in _scaled(block):
            module.register_parameter(GAMMA, nn.Parameter(torch.ones(width, device=dit.device, dtype=dit.dtype)))
            module.register_forward_hook(_scale)


@torch.no_grad()
def fold_difffit(dit: DiTTransformer2DModel) -> None:
    """Multiply the scales into weights and biases and take them and their hooks away; outputs stay within rounding.

    >>> from basicsr_distill.config.sections.dit import ScratchDiTOptions
    >>> from basicsr_distill.diffusion.dit import scratch_dit, share_conditioner
    >>> options = ScratchDiTOptions(num_layers=2, num_attention_heads=1, attention_head_dim=8, sample_size=4)
    >>> dit = scratch_dit(options, num_labels=3)
    >>> attach_difffit(dit, share_conditioner(dit))
    >>> with torch.no_grad(): fold_difffit(dit)
    >>> hasattr(dit.transformer_blocks[0].attn1.to_q, 'gamma')
    False
    """
    for block in dit.transformer_blocks:
        for module, _ in _scaled(block):
            if not hasattr(module, GAMMA):
                continue
            layer = _last_linear(block, module)
            layer.weight.mul_(module.gamma[:, None])
            layer.bias.mul_(module.gamma)
            del module.gamma
            for key in [key for key, hook in module._forward_hooks.items() if hook is _scale]:
                del module._forward_hooks[key]


def _scaled(block: Any) -> list[tuple[Any, int]]:
    """The modules of a block whose outputs are scaled, each with its number of channels; inner ones first."""
    attention = block.attn1
    layers = [attention.to_q, attention.to_k, attention.to_v, attention.to_out[0]]
    return [*((layer, layer.out_features) for layer in layers), (attention, block.dim), (block.ff, block.dim)]


def _last_linear(block: Any, module: Any) -> Any:
    if module is block.attn1:
        return block.attn1.to_out[0]
    return block.ff.net[2] if module is block.ff else module


def _scale(module: Any, inputs: Any, output: Tensor) -> Tensor:
    return output * module.gamma
