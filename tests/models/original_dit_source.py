"""A small DiT in the hub's layout on disk."""

import torch
from diffusers import DiTTransformer2DModel


def write_pipeline(folder):
    """A transformer of width 384 for latents (4, 8, 8), with random weights that do something."""
    torch.manual_seed(0)
    dit = DiTTransformer2DModel(
        num_layers=2,
        num_attention_heads=6,
        attention_head_dim=64,
        in_channels=4,
        out_channels=8,
        sample_size=8,
        num_embeds_ada_norm=10,
    )
    dit.transformer_blocks[1].norm1.emb.load_state_dict(dit.transformer_blocks[0].norm1.emb.state_dict())
    dit.save_pretrained(folder / 'transformer')
    return folder
