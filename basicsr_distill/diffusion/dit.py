"""DiT on diffusers' model: published weights of both layouts, random ones, and one conditioning for all blocks.

diffusers' ``DiTTransformer2DModel`` departs from the published DiT in three ways that matter here, all patched by
:func:`share_conditioner`: every block owns a copy of the timestep and label embedding (so labels would be dropped block
by block), its timestep frequencies are shifted, and the second norm of a block has another epsilon.
"""

import math
import re
from pathlib import Path
from typing import Any

import torch
from diffusers import DiTTransformer2DModel
from diffusers.models.embeddings import CombinedTimestepLabelEmbeddings
from diffusers.utils import is_accelerate_available
from torch import Tensor, nn

from basicsr_distill.config.sections.dit import ScratchDiTOptions
from basicsr_distill.errors import InputError

_NORM_EPS = 1e-6
# Layers, heads and channels per head of the published sizes (Peebles and Xie 2023, Table 1).
_SIZES = {'S': (12, 6, 64), 'B': (12, 12, 64), 'L': (24, 16, 64), 'XL': (28, 16, 72)}
_HEADS_OF_WIDTH = {heads * channels: heads for _, heads, channels in _SIZES.values()}


class _Given(nn.Module):
    """Stands where a block's own embedding was: the conditioning comes in as ``class_labels``."""

    def forward(self, timestep: Tensor | None, class_labels: Tensor, hidden_dtype: torch.dtype | None = None) -> Tensor:
        return class_labels


def share_conditioner(dit: DiTTransformer2DModel) -> CombinedTimestepLabelEmbeddings:
    """Take the blocks' equal embeddings out of a model and return one of them.

    Afterwards the model is called with the conditioning (N, width) as ``class_labels`` and no timestep. The returned
    module maps (timesteps, labels, dtype) to it; its last label is the null one, and it never drops labels by itself.

    >>> options = ScratchDiTOptions(num_layers=2, num_attention_heads=1, attention_head_dim=8, sample_size=4)
    >>> share_conditioner(scratch_dit(options, num_labels=3)).class_embedder.embedding_table.weight.shape
    torch.Size([4, 8])

    Raises:
        InputError: the blocks' embeddings differ, so the weights are not of a published DiT.
    """
    conditioner = dit.transformer_blocks[0].norm1.emb
    state = conditioner.state_dict()
    for number, block in enumerate(dit.transformer_blocks):
        if any(not torch.equal(state[name], value) for name, value in block.norm1.emb.state_dict().items()):
            raise InputError(
                f'network_g.pretrained: block {number} embeds labels unlike block 0; such a DiT is not supported.'
            )
        block.norm1.emb = _Given()
        block.norm3.eps = _NORM_EPS
    conditioner.time_proj.downscale_freq_shift = 0
    conditioner.class_embedder.dropout_prob = 0.0
    return conditioner


def unshare_conditioner(
    dit: DiTTransformer2DModel, conditioner: CombinedTimestepLabelEmbeddings
) -> DiTTransformer2DModel:
    """A plain diffusers model with the same weights, as ``save_pretrained`` and others' code expect it.

    Loaded by diffusers alone it has diffusers' frequencies and epsilon again, 2-4 % off at large timesteps.

    >>> options = ScratchDiTOptions(num_layers=2, num_attention_heads=1, attention_head_dim=8, sample_size=4)
    >>> dit = scratch_dit(options, num_labels=3)
    >>> unshare_conditioner(dit, share_conditioner(dit)).config == dit.config
    True
    """
    plain = DiTTransformer2DModel.from_config(dit.config)
    state = dict(dit.state_dict())
    for number in range(len(plain.transformer_blocks)):
        state.update(
            {f'transformer_blocks.{number}.norm1.emb.{name}': value for name, value in conditioner.state_dict().items()}
        )
    plain.load_state_dict(state)
    return plain


def scratch_dit(options: ScratchDiTOptions, num_labels: int) -> DiTTransformer2DModel:
    """A DiT with the published initialisation: Xavier weights, zero gates and a zero output layer.

    >>> options = ScratchDiTOptions(num_layers=2, num_attention_heads=1, attention_head_dim=8, sample_size=4)
    >>> scratch_dit(options, num_labels=3).config.num_layers
    2
    """
    layers, heads, channels = (
        _SIZES[options.size]
        if options.size
        else (options.num_layers, options.num_attention_heads, options.attention_head_dim)
    )
    dit = DiTTransformer2DModel(
        num_layers=layers,
        num_attention_heads=heads,
        attention_head_dim=channels,
        patch_size=options.patch_size,
        in_channels=options.in_channels,
        out_channels=options.in_channels * (2 if options.learn_variance else 1),
        sample_size=options.sample_size,
        num_embeds_ada_norm=num_labels,
        norm_eps=_NORM_EPS,
    )
    for module in dit.modules():
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            nn.init.xavier_uniform_(module.weight.flatten(1))
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    first = dit.transformer_blocks[0].norm1.emb
    nn.init.normal_(first.class_embedder.embedding_table.weight, std=0.02)
    nn.init.normal_(first.timestep_embedder.linear_1.weight, std=0.02)
    nn.init.normal_(first.timestep_embedder.linear_2.weight, std=0.02)
    for block in dit.transformer_blocks:
        block.norm1.emb.load_state_dict(first.state_dict())
        nn.init.zeros_(block.norm1.linear.weight)
    for layer in (dit.proj_out_1, dit.proj_out_2):
        nn.init.zeros_(layer.weight)
    return dit


def load_dit(source: str, subfolder: str | None = None, local_files_only: bool = False) -> DiTTransformer2DModel:
    """A DiT with trained weights.

    Args:
        source: hub id (``facebook/DiT-XL-2-256``), local diffusers folder (a pipeline or a transformer), or a file in
            the original layout (``DiT-XL-2-256x256.pt``, also as .safetensors).
        subfolder: of the transformer inside ``source``; ``transformer`` when absent and ``source`` is a pipeline.
        local_files_only: never ask the network.

    Raises:
        InputError: nothing can be loaded from there.
    """
    path = Path(source)
    if path.is_file():
        return _from_original(path)
    if subfolder is None and not (path / 'config.json').is_file():
        subfolder = 'transformer'
    try:
        return DiTTransformer2DModel.from_pretrained(
            source, subfolder=subfolder, local_files_only=local_files_only, low_cpu_mem_usage=is_accelerate_available()
        )
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0].rstrip('.')
        raise InputError(
            f'network_g.pretrained: {source}: no DiT could be loaded ({reason}); give a hub id, a diffusers '
            'folder, or a .pt file of the original release.'
        ) from error


def _from_original(path: Path) -> DiTTransformer2DModel:
    from basicsr_distill.io.weights import load_weights

    state = load_weights(path)
    state = state.get('ema', state)
    try:
        config, converted = convert_original(state)
    except (KeyError, AttributeError) as error:
        raise InputError(
            f'network_g.pretrained: {path}: not a DiT in the original layout ({error} is missing).'
        ) from error
    except ValueError as error:
        raise InputError(f'network_g.pretrained: {path}: {error}.') from error
    dit = DiTTransformer2DModel(**config)
    missing, unexpected = dit.load_state_dict(converted, strict=False)
    if missing or unexpected:
        raise InputError(
            f'network_g.pretrained: {path}: not a DiT in the original layout '
            f'({[*missing, *unexpected][0]} does not match).'
        )
    return dit


def convert_original(state: dict[str, Tensor]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Configuration and weights of diffusers' model from a state_dict of the original DiT.

    Raises:
        KeyError: an entry is missing.
        ValueError: no published size has this width.
    """
    projection = state['x_embedder.proj.weight']
    width, in_channels, patch_size = projection.shape[:3]
    if width not in _HEADS_OF_WIDTH:
        raise ValueError(f'width {width} is none of {sorted(_HEADS_OF_WIDTH)}')
    depth = 1 + max(int(match[1]) for key in state if (match := re.match(r'blocks\.(\d+)\.', key)))
    heads = _HEADS_OF_WIDTH[width]
    config = {
        'num_layers': depth,
        'num_attention_heads': heads,
        'attention_head_dim': width // heads,
        'patch_size': patch_size,
        'in_channels': in_channels,
        'out_channels': len(state['final_layer.linear.bias']) // patch_size**2,
        'sample_size': math.isqrt(state['pos_embed'].shape[1]) * patch_size,
        'num_embeds_ada_norm': len(state['y_embedder.embedding_table.weight']) - 1,
        'norm_eps': _NORM_EPS,
    }
    embedding = {
        'timestep_embedder.linear_1.weight': state['t_embedder.mlp.0.weight'],
        'timestep_embedder.linear_1.bias': state['t_embedder.mlp.0.bias'],
        'timestep_embedder.linear_2.weight': state['t_embedder.mlp.2.weight'],
        'timestep_embedder.linear_2.bias': state['t_embedder.mlp.2.bias'],
        'class_embedder.embedding_table.weight': state['y_embedder.embedding_table.weight'],
    }
    converted = {}
    for kind in ('weight', 'bias'):
        converted[f'pos_embed.proj.{kind}'] = state[f'x_embedder.proj.{kind}']
        converted[f'proj_out_1.{kind}'] = state[f'final_layer.adaLN_modulation.1.{kind}']
        converted[f'proj_out_2.{kind}'] = state[f'final_layer.linear.{kind}']
    for number in range(depth):
        old, new = f'blocks.{number}.', f'transformer_blocks.{number}.'
        converted.update({f'{new}norm1.emb.{name}': value for name, value in embedding.items()})
        for kind in ('weight', 'bias'):
            for name, part in zip('qkv', state[f'{old}attn.qkv.{kind}'].chunk(3)):
                converted[f'{new}attn1.to_{name}.{kind}'] = part
            for theirs, ours in (
                ('adaLN_modulation.1', 'norm1.linear'),
                ('attn.proj', 'attn1.to_out.0'),
                ('mlp.fc1', 'ff.net.0.proj'),
                ('mlp.fc2', 'ff.net.2'),
            ):
                converted[f'{new}{ours}.{kind}'] = state[f'{old}{theirs}.{kind}']
    return config, converted


@torch.no_grad()
def init_label_rows(conditioner: CombinedTimestepLabelEmbeddings, num_labels: int, how: str) -> None:
    """Set the first ``num_labels`` rows of a trained label table.

    >>> options = ScratchDiTOptions(num_layers=2, num_attention_heads=1, attention_head_dim=8, sample_size=4)
    >>> conditioner = share_conditioner(scratch_dit(options, num_labels=3))
    >>> init_label_rows(conditioner, 2, 'null_row')
    >>> rows = conditioner.class_embedder.embedding_table.weight
    >>> torch.equal(rows[0], rows[3])
    True

    Args:
        conditioner: holds the table; it is changed.
        num_labels: rows that are set.
        how: ``null_row`` copies the null row, ``mean`` the mean of the trained rows, ``rows`` leaves what is there.

    Raises:
        InputError: the table has fewer rows.
    """
    embedder = conditioner.class_embedder
    table = embedder.embedding_table.weight
    if num_labels > embedder.num_classes:
        raise InputError(
            f'network_g.num_labels: {num_labels} labels do not fit the {embedder.num_classes} rows of the '
            'pretrained label table.'
        )
    if how == 'null_row':
        table[:num_labels] = table[embedder.num_classes].clone()
    elif how == 'mean':
        table[:num_labels] = table[: embedder.num_classes].mean(0)
