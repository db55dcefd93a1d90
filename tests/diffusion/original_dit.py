"""DiT as the paper draws it, from a state_dict in the original layout: the reference for both loaders."""

import math

import torch
import torch.nn.functional as F

WIDTH, HEADS, PATCH, CHANNELS, LATENT = 384, 6, 2, 4, 8


def random_state(depth=2, num_classes=10, seed=0):
    """Random weights in the original layout, of width S."""
    generator = torch.Generator().manual_seed(seed)

    def layer(name, rows, columns, scale=1.0):
        return {
            f'{name}.weight': torch.randn(rows, columns, generator=generator) * scale / math.sqrt(columns),
            f'{name}.bias': torch.randn(rows, generator=generator) * 0.1,
        }

    state = {
        'x_embedder.proj.weight': torch.randn(WIDTH, CHANNELS, PATCH, PATCH, generator=generator) / 4,
        'x_embedder.proj.bias': torch.randn(WIDTH, generator=generator) * 0.1,
        'y_embedder.embedding_table.weight': torch.randn(num_classes + 1, WIDTH, generator=generator),
        'pos_embed': position_embedding(),
    }
    state |= layer('t_embedder.mlp.0', WIDTH, 256) | layer('t_embedder.mlp.2', WIDTH, WIDTH)
    for number in range(depth):
        block = f'blocks.{number}.'
        state |= layer(f'{block}attn.qkv', 3 * WIDTH, WIDTH) | layer(f'{block}attn.proj', WIDTH, WIDTH)
        state |= layer(f'{block}mlp.fc1', 4 * WIDTH, WIDTH) | layer(f'{block}mlp.fc2', WIDTH, 4 * WIDTH)
        state |= layer(f'{block}adaLN_modulation.1', 6 * WIDTH, WIDTH, 0.5)
    state |= layer('final_layer.adaLN_modulation.1', 2 * WIDTH, WIDTH, 0.5)
    return state | layer('final_layer.linear', PATCH**2 * 2 * CHANNELS, WIDTH)


def position_embedding():
    """Sines and cosines of the column in the first half of the channels, of the row in the second."""
    side, quarter = LATENT // PATCH, WIDTH // 4
    frequencies = 1 / 10000 ** (torch.arange(quarter, dtype=torch.float64) / quarter)
    rows = []
    for y in range(side):
        for x in range(side):
            rows.append(
                torch.cat(
                    [
                        torch.sin(x * frequencies),
                        torch.cos(x * frequencies),
                        torch.sin(y * frequencies),
                        torch.cos(y * frequencies),
                    ]
                )
            )
    return torch.stack(rows).float()[None]


def forward(state, x, timesteps, labels):
    """Output (N, 8, 8, 8) of the original network."""

    def linear(name, value):
        return F.linear(value, state[f'{name}.weight'], state[f'{name}.bias'])

    def modulated(value, shift, scale):
        return F.layer_norm(value, (WIDTH,), eps=1e-6) * (1 + scale[:, None]) + shift[:, None]

    frequencies = torch.exp(-math.log(10000) * torch.arange(128) / 128)
    angles = timesteps[:, None].float() * frequencies
    time = torch.cat([torch.cos(angles), torch.sin(angles)], 1)
    condition = linear('t_embedder.mlp.2', F.silu(linear('t_embedder.mlp.0', time)))
    condition = F.silu(condition + state['y_embedder.embedding_table.weight'][labels])

    tokens = F.conv2d(x, state['x_embedder.proj.weight'], state['x_embedder.proj.bias'], stride=PATCH)
    tokens = tokens.flatten(2).transpose(1, 2) + state['pos_embed']
    count, length, _ = tokens.shape
    depth = sum(key.endswith('attn.qkv.weight') for key in state)
    for number in range(depth):
        block = f'blocks.{number}.'
        shift_1, scale_1, gate_1, shift_2, scale_2, gate_2 = linear(f'{block}adaLN_modulation.1', condition).chunk(6, 1)
        qkv = linear(f'{block}attn.qkv', modulated(tokens, shift_1, scale_1))
        q, k, v = qkv.reshape(count, length, 3, HEADS, WIDTH // HEADS).permute(2, 0, 3, 1, 4)
        weights = (q @ k.mT / math.sqrt(WIDTH // HEADS)).softmax(-1)
        attended = (weights @ v).transpose(1, 2).reshape(count, length, WIDTH)
        tokens = tokens + gate_1[:, None] * linear(f'{block}attn.proj', attended)
        hidden = F.gelu(linear(f'{block}mlp.fc1', modulated(tokens, shift_2, scale_2)), approximate='tanh')
        tokens = tokens + gate_2[:, None] * linear(f'{block}mlp.fc2', hidden)
    shift, scale = linear('final_layer.adaLN_modulation.1', condition).chunk(2, 1)
    out = linear('final_layer.linear', modulated(tokens, shift, scale))
    side = LATENT // PATCH
    out = out.reshape(count, side, side, PATCH, PATCH, 2 * CHANNELS)
    return out.permute(0, 5, 1, 3, 2, 4).reshape(count, 2 * CHANNELS, LATENT, LATENT)
