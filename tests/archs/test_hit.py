import numpy as np
import pytest
import torch
from archs.networks import HIT, scatter, shrunk
from torch import Tensor, nn
from torch.nn import functional as F

from basicsr_distill.archs.hit_arch import (
    HiT_SIR,
    HiTBlock,
    NgramContext,
    PositionMLP,
    SpatialChannelCorrelation,
    pooled_position_bias,
)
from basicsr_distill.errors import InputError


def bias_by_gathering(table: np.ndarray, window: int, cell: int) -> np.ndarray:
    """The mean over the tokens j of cell J of table[i - j], gathered for every pair of tokens."""
    cells = window // cell
    bias = np.zeros((len(table), window**2, cells**2))
    for i in np.ndindex(window, window):
        for j in np.ndindex(window, window):
            at = (j[0] // cell) * cells + j[1] // cell
            bias[:, i[0] * window + i[1], at] += table[:, i[0] - j[0] + window - 1, i[1] - j[1] + window - 1] / cell**2
    return bias


@pytest.mark.parametrize(('window', 'cell'), [(4, 1), (8, 1), (8, 2), (6, 3), (12, 6), (16, 4)])
def test_pooled_bias_equals_gathered_bias(window, cell):
    table = torch.randn(2, 2 * window - 1, 2 * window - 1, dtype=torch.float64)
    np.testing.assert_allclose(
        pooled_position_bias(table, window, cell).numpy(), bias_by_gathering(table.numpy(), window, cell), atol=1e-12
    )


def test_position_mlp_sees_integer_offsets_rows_first():
    torch.manual_seed(0)
    mlp = scatter(PositionMLP(num_heads=4))
    table = mlp(3)
    assert table.shape == (4, 5, 5)
    for down in range(-2, 3):
        for right in range(-2, 3):
            t = F.linear(torch.tensor([float(down), float(right)]), mlp.pos_proj.weight, mlp.pos_proj.bias)
            for norm, _, project in (mlp.pos1, mlp.pos2, mlp.pos3):
                t = project(F.relu(F.layer_norm(t, (3,), norm.weight, norm.bias)))
            torch.testing.assert_close(table[:, down + 2, right + 2], t)


def context_by_loops(context: NgramContext, qv: Tensor) -> Tensor:
    """The context of every window of one map (C, H, W): (C, nH, nW)."""
    channels = len(qv)
    size = context.unigram_embed.kernel_size[0]
    pairs = qv.view(channels // 2, 2, *qv.shape[1:])
    unigram = F.conv2d(pairs, context.unigram_embed.weight, context.unigram_embed.bias, stride=size)[:, 0]
    attn = context.ngram_attn
    heads, dim = attn.num_heads, channels // 2
    d = dim // heads
    rows, columns = unigram.shape[1:]
    result = torch.zeros(channels, rows, columns, dtype=qv.dtype)
    for half, step in ((0, 1), (1, -1)):
        for row in range(rows):
            for column in range(columns):
                # Reflection by one: the neighbour beyond the edge is the one before it.
                near_row = row + step if 0 <= row + step < rows else row - step
                near_column = column + step if 0 <= column + step < columns else column - step
                at_rows, at_columns = ((row, near_row), (column, near_column))
                if step < 0:
                    at_rows, at_columns = at_rows[::-1], at_columns[::-1]
                tokens = [unigram[:, r, c] for r in at_rows for c in at_columns]
                outputs = []
                projected = [attn.qkv(token).view(3, heads, d) for token in tokens]
                for i in range(4):
                    heads_out = []
                    for head in range(heads):
                        logits = []
                        for j in range(4):
                            offset = (i // 2 - j // 2 + 1) * 3 + i % 2 - j % 2 + 1
                            bias = attn.relative_position_bias_table[offset, head]
                            logits.append(projected[i][0, head] @ projected[j][1, head] * d**-0.5 + bias)
                        weights = torch.stack(logits).softmax(0)
                        heads_out.append(sum(weights[j] * projected[j][2, head] for j in range(4)))
                    outputs.append(attn.proj(torch.cat(heads_out)))
                result[half * dim : (half + 1) * dim, row, column] = sum(outputs) / 4
    return F.conv2d(result[None], context.merge.weight, context.merge.bias)[0]


def correlation_by_loops(scc: SpatialChannelCorrelation, x: np.ndarray, base: int) -> np.ndarray:
    """One image (H, W, C) through the equations, pairs of tokens visited one by one."""
    height, width, channels = x.shape
    size, heads = scc.window_size, scc.num_heads
    b = min(size, base)
    cell = size // b
    half = channels // 2
    c = half // heads
    multiple = size * (2 if scc.ngram_window_partition else 1)
    padded = np.pad(x, ((0, -height % multiple), (0, -width % multiple), (0, 0)), mode='reflect')

    image = torch.from_numpy(padded).permute(2, 0, 1)[None]
    t = image
    for layer, padding in ((scc.qv.conv[0], 0), (scc.qv.conv[2], 1), (scc.qv.conv[4], 0)):
        t = F.conv2d(t if layer is scc.qv.conv[0] else F.leaky_relu(t, 0.2), layer.weight, layer.bias, padding=padding)
    qv = t * F.conv2d(image, scc.qv.linear.weight, scc.qv.linear.bias)
    if scc.ngram_window_partition:
        context = context_by_loops(scc.ngram_window_partition['ngram_context'], qv[0])
        qv = qv + context.repeat_interleave(size, 1).repeat_interleave(size, 2)
    qv_map = qv[0].permute(1, 2, 0).detach().numpy()

    bias = bias_by_gathering(scc.pos(size).detach().numpy(), size, cell)
    weight = scc.spatial_linear.weight.detach().numpy()[0]
    offset = scc.spatial_linear.bias.item()
    out = np.zeros_like(padded)
    for top in range(0, padded.shape[0], size):
        for left in range(0, padded.shape[1], size):
            window = qv_map[top : top + size, left : left + size]
            q, v = window[..., :half].reshape(-1, half), window[..., half:].reshape(-1, half)
            v_cells = np.zeros((b * b, half))
            for row in range(size):
                for column in range(size):
                    inside = (row % cell) * cell + column % cell
                    v_cells[(row // cell) * b + column // cell] += weight[inside] * v[row * size + column]
            v_cells += offset
            result = np.zeros((size**2, channels))
            for head in range(heads):
                part = slice(head * c, (head + 1) * c)
                correlation = q[:, part] @ v_cells[:, part].T / c + bias[head]
                result[:, part] = correlation @ v_cells[:, part]
            for a in range(half):
                for other in range(half):
                    result[:, half + a] += (q[:, a] @ v[:, other]) / size**2 * v[:, other]
            out[top : top + size, left : left + size] = result.reshape(size, size, channels)
    return out[:height, :width] @ scc.proj.weight.detach().numpy().T + scc.proj.bias.detach().numpy()


@pytest.mark.parametrize(('window', 'base'), [(2, 4), (4, 4), (4, 2), (6, 2)])
@pytest.mark.parametrize('ngram', [False, True])
@pytest.mark.parametrize('size_px', [(12, 12), (5, 7), (1, 3)])
def test_correlation_equals_loops(window, base, ngram, size_px):
    torch.manual_seed(window)
    scc = scatter(SpatialChannelCorrelation(20, window, base, num_heads=2, ngram=ngram), std=0.2).double()
    x = torch.randn(1, *size_px, 20, dtype=torch.float64)
    expected = correlation_by_loops(scc, x[0].numpy(), base)
    np.testing.assert_allclose(scc(x)[0].detach().numpy(), expected, atol=1e-10)


@pytest.mark.parametrize('name', HIT)
def test_images_of_a_batch_do_not_mix(name):
    net = shrunk(name).eval().double()
    x = torch.rand(3, 3, 20, 17, dtype=torch.float64)
    torch.testing.assert_close(net(x), torch.cat([net(image[None]) for image in x]))


@pytest.mark.parametrize('kernel_size', [0, 5])
def test_block_is_post_norm(kernel_size):
    torch.manual_seed(0)
    block = HiTBlock(20, 4, 4, num_heads=2, hidden_dim=40, kernel_size=kernel_size, ngram=False, drop_path=0.0)
    block = scatter(block).double()
    x = torch.randn(2, 6, 7, 20, dtype=torch.float64)
    t = x + block.norm1(block.correlation(x))
    h = F.gelu(block.mlp.fc1(t))
    if kernel_size:
        conv = block.mlp.dwconv['depthwise_conv'][0]
        filtered = F.conv2d(h.permute(0, 3, 1, 2), conv.weight, conv.bias, padding=2, groups=40)
        h = h + F.gelu(filtered).permute(0, 2, 3, 1)
    torch.testing.assert_close(block(x), t + block.norm2(block.mlp.fc2(h)))


def test_windows_grow_within_each_group():
    net = HiT_SIR(upscale=2, depths=(6, 2), num_heads=(6, 6))
    windows = [[block.correlation.window_size for block in group.residual_group['blocks']] for group in net.layers]
    assert windows == [[4, 8, 16, 32, 48, 64], [4, 8]]


def test_published_but_unused_keys_change_nothing():
    def keys(net: nn.Module) -> dict[str, torch.Size]:
        return {key: value.shape for key, value in net.state_dict().items()}

    plain = HiT_SIR(upscale=2, depths=(1,), num_heads=(6,))
    assert keys(plain) == keys(HiT_SIR(upscale=2, depths=(1,), num_heads=(6,), expansion_factor=4, img_size=48))


@pytest.mark.parametrize(
    ('options', 'key'),
    [
        ({'base_win_size': (8, 4)}, 'base_win_size'),
        ({'hier_win_ratios': (0.5, 1, 1.5, 2, 4, 8)}, 'hier_win_ratios'),
        ({'hier_win_ratios': (0.1, 1, 2, 2, 4, 8)}, 'hier_win_ratios'),
        ({'hier_win_ratios': (0.5, 1)}, 'hier_win_ratios'),
        ({'embed_dim': 30}, 'embed_dim'),
        ({'num_heads': (6, 6)}, 'num_heads'),
    ],
)
def test_impossible_options_are_refused_by_name(options, key):
    with pytest.raises(InputError, match=f'^{key}:'):
        HiT_SIR(**{'upscale': 4, **options})
