import math

import numpy as np
import pytest
import torch
from archs.networks import scatter, shrunk
from torch import nn

from basicsr_distill.archs.srformer_arch import PermutedSelfAttention, SRFormer, SRFormerBlock, shifted_window_mask
from basicsr_distill.errors import InputError


def linear(layer: nn.Linear, x: np.ndarray) -> np.ndarray:
    return x @ layer.weight.detach().numpy().T + layer.bias.detach().numpy()


def region(position: int, size: int, window: int, shift: int) -> int:
    return 0 if position < size - window else 1 if position < size - shift else 2


def permuted_self_attention_by_loops(attn: PermutedSelfAttention, x: np.ndarray, shift: int) -> np.ndarray:
    """One image (H, W, C), already rolled by ``shift`` (0: no mask); every query and key visited from the equations."""
    height, width, channels = x.shape
    ws, heads = attn.window_size, attn.num_heads
    p, d = ws // 2, channels // heads
    q_map, kv_map = linear(attn.q, x), linear(attn.kv, x)
    table = attn.relative_position_bias_table.detach().numpy()
    out = np.zeros_like(x)
    for top in range(0, height, ws):
        for left in range(0, width, ws):
            keys, values = {}, {}
            for i in range(p):
                for j in range(p):
                    tokens = [kv_map[top + 2 * i + a, left + 2 * j + b] for a in (0, 1) for b in (0, 1)]
                    keys[i, j] = np.concatenate([token[: channels // 4] for token in tokens])
                    values[i, j] = np.concatenate([token[channels // 4 :] for token in tokens])
            for row in range(ws):
                for column in range(ws):
                    for head in range(heads):
                        part = slice(head * d, (head + 1) * d)
                        logits = {}
                        for k, l in keys:  # noqa: E741 - the equation's letters
                            index = (row // 2 - k + p - 1) * (2 * p - 1) + column // 2 - l + p - 1
                            logit = q_map[top + row, left + column][part] * d**-0.5 @ keys[k, l][part]
                            logit += table[index, head]
                            if shift:
                                half = math.ceil(shift / 2)
                                query_region = (
                                    region(top + row, height, ws, shift),
                                    region(left + column, width, ws, shift),
                                )
                                key_region = (
                                    region(top // 2 + k, height // 2, p, half),
                                    region(left // 2 + l, width // 2, p, half),
                                )
                                logit -= 100 * (query_region != key_region)
                            logits[k, l] = math.exp(logit)
                        total = sum(logits.values())
                        out[top + row, left + column, part] = sum(
                            weight / total * values[key][part] for key, weight in logits.items()
                        )
    return linear(attn.proj, out)


@pytest.mark.parametrize('window_size', [4, 6])  # half of a shift of 3 is not whole
@pytest.mark.parametrize('shifted', [False, True])
def test_attention_equals_loops(window_size, shifted):
    torch.manual_seed(1)
    attn = scatter(PermutedSelfAttention(8, window_size, num_heads=2)).double()
    shift = window_size // 2 * shifted
    size_px = (2 * window_size, 3 * window_size)
    x = torch.randn(1, *size_px, 8, dtype=torch.float64)
    mask = shifted_window_mask(size_px, window_size, shift).double() if shifted else None
    expected = permuted_self_attention_by_loops(attn, x[0].numpy(), shift)
    np.testing.assert_allclose(attn(x, mask)[0].detach().numpy(), expected, atol=1e-12)


def test_images_of_a_batch_do_not_mix():
    torch.manual_seed(1)
    attn = scatter(PermutedSelfAttention(8, 4, num_heads=2)).double()
    x, mask = torch.randn(3, 8, 12, 8, dtype=torch.float64), shifted_window_mask((8, 12), 4, 2)
    torch.testing.assert_close(attn(x, mask), torch.cat([attn(image[None], mask) for image in x]))


def test_block_rolls_and_adds():
    torch.manual_seed(2)
    block = scatter(SRFormerBlock(8, 8, 4, shift=2, num_heads=2, hidden_dim=16, drop_path=0.0)).double()
    x = torch.randn(1, 8, 12, 8, dtype=torch.float64)
    rolled = np.roll(block.norm1(x)[0].detach().numpy(), (-2, -2), axis=(0, 1))
    attended = np.roll(permuted_self_attention_by_loops(block.attn, rolled, shift=2), (2, 2), axis=(0, 1))
    t = x + torch.from_numpy(attended)
    h = nn.functional.gelu(block.mlp.fc1(block.norm2(t)))
    depthwise = block.mlp.dwconv['depthwise_conv'][0]
    filtered = nn.functional.conv2d(h.permute(0, 3, 1, 2), depthwise.weight, depthwise.bias, padding=2, groups=16)
    expected = t + block.mlp.fc2(h + nn.functional.gelu(filtered).permute(0, 2, 3, 1))
    torch.testing.assert_close(block(x), expected)


def test_native_mask_is_the_buffer_and_equals_the_computed_one():
    torch.manual_seed(2)
    block = scatter(SRFormerBlock(8, 8, 4, shift=2, num_heads=2, hidden_dim=16, drop_path=0.0)).double()
    x = torch.randn(1, 8, 8, 8, dtype=torch.float64)
    by_buffer = block(x)
    block.native_px = 64
    torch.testing.assert_close(block(x), by_buffer)
    block.native_px = 8
    block.attn_mask.zero_()
    assert (block(x) - by_buffer).abs().max() > 1e-3


def test_only_odd_blocks_shift_and_a_map_of_one_window_does_not():
    net = SRFormer(upscale=2, img_size=17, window_size=8, depths=(4,), num_heads=(2,), embed_dim=8)
    blocks = net.layers[0].residual_group['blocks']
    assert [block.shift for block in blocks] == [0, 4, 0, 4]
    assert {block.native_px for block in blocks} == {24}
    net = SRFormer(upscale=2, img_size=8, window_size=8, depths=(2,), num_heads=(2,), embed_dim=8)
    assert not any('attn_mask' in key for key in net.state_dict())


def test_drop_path_grows_linearly_and_is_active_by_default():
    net = SRFormer(upscale=2, depths=(2, 3), num_heads=(2, 2), embed_dim=8)
    rates = [block.drop_path.p for group in net.layers for block in group.residual_group['blocks']]
    assert rates == pytest.approx([0, 0.025, 0.05, 0.075, 0.1])


def test_weights_of_another_native_size_load_strictly():
    trained, net = shrunk('SRFormer', img_size=16, seed=1), shrunk('SRFormer', img_size=32, seed=2)
    own_masks = {key: value.clone() for key, value in net.state_dict().items() if 'attn_mask' in key}
    net.load_state_dict(trained.state_dict(), strict=True)
    assert own_masks and all(torch.equal(net.state_dict()[key], value) for key, value in own_masks.items())
    x = torch.rand(1, 3, 20, 24)
    torch.testing.assert_close(net.eval()(x), trained.eval()(x))


@pytest.mark.parametrize(('size_px', 'padded_px'), [((13, 20), (16, 24)), ((5, 16), (8, 16)), ((1, 3), (8, 8))])
def test_other_sizes_are_the_padded_image_cropped(size_px, padded_px):
    net = shrunk('SRFormer').eval().double()
    x = torch.rand(1, 3, *size_px, dtype=torch.float64)
    missing = [padded - size for padded, size in zip(padded_px, size_px, strict=True)]
    padded = np.pad(x.numpy(), ((0, 0), (0, 0), (0, missing[0]), (0, missing[1])), mode='reflect')
    expected = net(torch.from_numpy(padded))[..., : 2 * size_px[0], : 2 * size_px[1]]
    torch.testing.assert_close(net(x), expected)


@pytest.mark.parametrize('drop_path_rate', [0.0, 0.5])
def test_checkpointing_changes_neither_outputs_nor_gradients(drop_path_rate):
    results, calls = [], []
    for use_checkpoint in (False, True):
        net = shrunk('SRFormer', use_checkpoint=use_checkpoint, drop_path_rate=drop_path_rate).double().train()
        net.layers[0].residual_group['blocks'][1].register_forward_pre_hook(lambda *_: calls.append(1))
        torch.manual_seed(3)
        out = net(torch.rand(4, 3, 16, 24, dtype=torch.float64))
        out.square().mean().backward()
        results.append((out, *(parameter.grad for parameter in net.parameters())))
    assert len(calls) == 1 + 2  # the checkpointed block ran again
    torch.testing.assert_close(results[0], results[1])


@pytest.mark.parametrize(
    ('options', 'key'),
    [
        ({'window_size': 7}, 'window_size'),
        ({'embed_dim': 30, 'num_heads': (7,) * 4}, 'embed_dim'),
        ({'embed_dim': 30}, 'embed_dim'),
        ({'num_heads': (6,)}, 'num_heads'),
        ({'upsampler': 'nearest'}, 'upsampler'),
        ({'upsampler': 'pixelshuffle', 'upscale': 5}, 'upscale'),
        ({'upsampler': 'nearest+conv', 'upscale': 2}, 'upscale'),
        ({'resi_connection': '2conv'}, 'resi_connection'),
    ],
)
def test_impossible_options_are_refused_by_name(options, key):
    with pytest.raises(InputError, match=f'^{key}:'):
        SRFormer(**{'upscale': 4, **options})
