"""HiT-SR: hierarchical windows with spatial-channel correlation (Zhang et al., ECCV 2024).

The three networks share everything but the feed-forward layer (HiT_SRF) and the context between windows (HiT_SNG).
"""

from collections.abc import Sequence

import torch
from basicsr.utils.registry import ARCH_REGISTRY
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import StochasticDepth

from basicsr_distill.archs._skeleton import ConvFFN, MapConv2d, WindowTransformerSR, check_groups, split_drop_path
from basicsr_distill.archs._windows import reflect_pad, relative_position_index, window_merge, window_partition
from basicsr_distill.errors import InputError

POSITION_DIM = 3


def pooled_position_bias(table: Tensor, window_size: int, cell_size: int) -> Tensor:
    """Mean position bias between the tokens of a window and its cells, without the (window^2)^2 table of all pairs.

    The mean over the tokens of a cell is the mean over a cell-sized square of offsets, so that average pooling of the
    table by offset gives every value once, and the bias of each cell is a window-sized view of it.

    Args:
        table: Bias of every offset in [1 - window_size, window_size - 1]^2, (heads, 2 window_size - 1, same).
        window_size: Side of a window in tokens.
        cell_size: Side of a cell in tokens, a divisor of ``window_size``.

    Returns:
        (heads, window_size^2, cells), cells and tokens row-major: the mean over tokens j in cell J of table[i - j].
    """
    pooled = F.avg_pool2d(table, cell_size, stride=1)
    # Offsets fall as cells advance: the view at offset 0 belongs to the last cell.
    views = pooled.unfold(1, window_size, cell_size).unfold(2, window_size, cell_size).flip(1, 2)
    return views.permute(0, 3, 4, 1, 2).reshape(len(table), window_size**2, -1)


class PositionMLP(nn.Module):
    """Bias per head of an integer offset between two tokens, from a small MLP."""

    def __init__(self, num_heads: int) -> None:
        super().__init__()
        self.pos_proj = nn.Linear(2, POSITION_DIM)
        self.pos1, self.pos2, self.pos3 = (
            nn.Sequential(nn.LayerNorm(POSITION_DIM), nn.ReLU(), nn.Linear(POSITION_DIM, out))
            for out in (POSITION_DIM, POSITION_DIM, num_heads)
        )

    def forward(self, window_size: int) -> Tensor:
        """Bias of every offset in a window, (heads, 2 window_size - 1, same), rows are vertical offsets."""
        weight = self.pos_proj.weight
        offset = torch.arange(1 - window_size, window_size, device=weight.device, dtype=weight.dtype)
        grid = torch.stack(torch.meshgrid(offset, offset, indexing='ij'), dim=-1)
        return self.pos3(self.pos2(self.pos1(self.pos_proj(grid)))).permute(2, 0, 1)


class DualFeatureExtraction(nn.Module):
    """Queries and values: a convolutional bottleneck times a linear map. Channels-last, (B, H, W, dim) in and out."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            MapConv2d(dim, dim // 5, 1),
            nn.LeakyReLU(0.2),
            MapConv2d(dim // 5, dim // 5, 3, padding=1),
            nn.LeakyReLU(0.2),
            MapConv2d(dim // 5, dim, 1),
        )
        self.linear = MapConv2d(dim, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, H, W, dim) to (B, H, W, dim): first half queries, second half values."""
        return self.conv(x) * self.linear(x)


class NgramAttention(nn.Module):
    """Multi-head self-attention among the four windows of a 2x2 neighbourhood (Choi et al., N-Gram in Swin, 2023)."""

    relative_position_index: Tensor

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.relative_position_bias_table = nn.Parameter(torch.zeros(9, num_heads))
        self.register_buffer('relative_position_index', relative_position_index(2))
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, 4, dim) to (N, 4, dim)."""
        n, _, dim = x.shape
        q, k, v = self.qkv(x).view(n, 4, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        bias = self.relative_position_bias_table[self.relative_position_index].permute(2, 0, 1)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.expand(n, -1, -1, -1))
        return self.proj(out.transpose(1, 2).reshape(n, 4, dim))


class NgramContext(nn.Module):
    """One context vector per window from its neighbours, forward (right and below) and backward (left and above).

    Args:
        dim: Channels, a multiple of ``2 * num_heads``.
        window_size: Side of a window in tokens.
        num_heads: Attention heads.
    """

    def __init__(self, dim: int, window_size: int, num_heads: int) -> None:
        super().__init__()
        self.unigram_embed = nn.Conv2d(2, 1, window_size)
        self.ngram_attn = NgramAttention(dim // 2, num_heads)
        self.merge = MapConv2d(dim, dim, 1)

    def _bigram(self, padded: Tensor) -> Tensor:
        """Mean over each attended 2x2 neighbourhood: (B, nH + 1, nW + 1, dim / 2) -> (B, nH, nW, dim / 2)."""
        tokens = torch.stack([padded[:, i : i - 1 or None, j : j - 1 or None] for i in (0, 1) for j in (0, 1)], dim=3)
        return self.ngram_attn(tokens.flatten(0, 2)).mean(1).view(tokens.shape[:3] + tokens.shape[4:])

    def forward(self, windows: Tensor, grid: tuple[int, int]) -> Tensor:
        """Context of every window.

        Args:
            windows: (B * nH * nW, window_size^2, dim).
            grid: (nH, nW), both at least 2.

        Returns:
            (B * nH * nW, 1, dim).
        """
        n, _, dim = windows.shape
        # The convolution of channel pairs (2d, 2d + 1) with a kernel as large as the window, as a matrix product.
        pairs = windows.view(n, -1, dim // 2, 2).permute(0, 2, 3, 1).flatten(2)
        unigram = F.linear(pairs, self.unigram_embed.weight.flatten(1), self.unigram_embed.bias)
        unigram = unigram.view(-1, *grid, dim // 2).permute(0, 3, 1, 2)
        forward, backward = (
            self._bigram(F.pad(unigram, pad, mode='reflect').permute(0, 2, 3, 1))
            for pad in ((0, 1, 0, 1), (1, 0, 1, 0))
        )
        return self.merge(torch.cat([forward, backward], dim=-1)).view(n, 1, dim)


class SpatialChannelCorrelation(nn.Module):
    """Correlation without softmax, linear in the window's area: over space per head, and over channels.

    Source: Zhang et al. (2024).

    Args:
        dim: Channels, a multiple of ``2 * num_heads``.
        window_size: Side of a window in tokens.
        base_size: Values are projected to at most this many tokens a side; divides larger ``window_size``.
        num_heads: Heads of the spatial correlation.
        ngram: Add a context of the neighbouring windows to queries and values.
    """

    def __init__(self, dim: int, window_size: int, base_size: int, num_heads: int, ngram: bool) -> None:
        super().__init__()
        self.window_size = window_size
        self.cell_size = window_size // min(window_size, base_size)
        self.num_heads = num_heads
        self.qv = DualFeatureExtraction(dim)
        self.ngram_window_partition: nn.ModuleDict | None = None
        if ngram:
            self.ngram_window_partition = nn.ModuleDict({'ngram_context': NgramContext(dim, window_size, num_heads)})
        self.spatial_linear = nn.Linear(self.cell_size**2, 1)
        self.pos = PositionMLP(num_heads)
        self.proj = nn.Linear(dim, dim)

    def position_bias(self) -> Tensor:
        """What only the weights decide, (heads, window_size^2, cells); an export may hold it as a constant."""
        return pooled_position_bias(self.pos(self.window_size), self.window_size, self.cell_size)

    def _spatial(self, q: Tensor, v: Tensor) -> Tensor:
        """(q v'^T / c + B) v' per head; q, v and result (N, L, C/2), v' the values of cells, c channels a head."""
        n, length, channels = v.shape
        heads, cell = self.num_heads, self.cell_size
        if cell == 1:
            cells = v * self.spatial_linear.weight[0] + self.spatial_linear.bias
        else:
            cells = window_partition(v.view(n, self.window_size, self.window_size, channels), cell)
            cells = (self.spatial_linear.weight @ cells + self.spatial_linear.bias).view(n, -1, channels)
        # Without a softmax (q v'^T) v' = q (v'^T v'): a small matrix per window, not one entry per pair of tokens.
        per_head = cells.view(n, -1, heads, channels // heads)
        gram = cells.transpose(1, 2) @ cells
        head = torch.arange(channels, device=v.device) // (channels // heads)
        by_position = self.position_bias() @ per_head.permute(2, 1, 0, 3).reshape(heads, per_head.shape[1], -1)
        by_position = by_position.view(heads, length, n, -1).permute(2, 1, 0, 3).reshape(n, length, channels)
        return torch.baddbmm(by_position, q, gram * (head[:, None] == head), alpha=heads / channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, H, W, dim) to the same shape, any H and W."""
        h, w = x.shape[1:3]
        # The neighbourhoods of the N-gram context need two windows a side.
        x = reflect_pad(x, self.window_size * (2 if self.ngram_window_partition is not None else 1))
        size_px = (x.shape[1], x.shape[2])
        windows = window_partition(self.qv(x), self.window_size)
        if self.ngram_window_partition is not None:
            grid = (size_px[0] // self.window_size, size_px[1] // self.window_size)
            windows = windows + self.ngram_window_partition['ngram_context'](windows, grid)
        q, v = windows.chunk(2, dim=-1)
        channel = v @ ((v.transpose(1, 2) @ q) / self.window_size**2)
        out = torch.cat([self._spatial(q, v), channel], dim=-1)
        return self.proj(window_merge(out, self.window_size, size_px)[:, :h, :w])


class HiTBlock(nn.Module):
    """Post-norm block: x + LN(SCC(x)), then x + LN(MLP(x)), on channels-last maps of any size.

    Args:
        dim: Channels.
        window_size: Side of a window in tokens.
        base_size: See `SpatialChannelCorrelation`.
        num_heads: Heads of the spatial correlation.
        hidden_dim: Channels inside the feed-forward layer.
        kernel_size: Depthwise kernel of the feed-forward layer, 0 for none.
        ngram: Add the N-gram context.
        drop_path: Probability of dropping a residual branch per sample.
    """

    def __init__(
        self,
        dim: int,
        window_size: int,
        base_size: int,
        num_heads: int,
        hidden_dim: int,
        kernel_size: int,
        ngram: bool,
        drop_path: float,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.correlation = SpatialChannelCorrelation(dim, window_size, base_size, num_heads, ngram)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = ConvFFN(dim, hidden_dim, kernel_size)
        self.drop_path = StochasticDepth(drop_path, mode='row')

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, H, W, dim) to the same shape."""
        x = x + self.drop_path(self.norm1(self.correlation(x)))
        return x + self.drop_path(self.norm2(self.mlp(x)))


class HiT(WindowTransformerSR):
    """What the three HiT-SR networks share; official checkpoints load unchanged.

    Source: Zhang et al., "HiT-SR: Hierarchical Transformer for Efficient Image Super-Resolution", ECCV 2024.

    Args:
        upscale: Scale factor.
        in_chans: Image channels.
        img_size: Accepted because published option files give it; unused, all sizes are treated alike.
        base_win_size: Two equal numbers, the side of the base window in pixels.
        img_range: Factor on the mean-free image; 1 for images in [0, 1].
        depths: Blocks per group, at most as many as ``hier_win_ratios``.
        embed_dim: Feature channels, a multiple of twice every entry of ``num_heads``.
        num_heads: Heads of the spatial correlation per group.
        expansion_factor: Accepted because published option files give it; unused, ``mlp_ratio`` sets the hidden width.
        resi_connection: ``1conv`` or ``3conv``.
        hier_win_ratios: Window of block j over the base window; windows above the base are multiples of it.
        upsampler: ``pixelshuffledirect``, ``pixelshuffle`` or (x4) ``nearest+conv``.
        mlp_ratio: Hidden channels of the feed-forward layer over ``embed_dim``.
        drop_path_rate: Stochastic depth of the last block, in training.
        use_checkpoint: Recompute blocks in the backward pass: same gradients, less memory, more time.

    Raises:
        InputError: If the options do not fit each other.
    """

    kernel_size = 0
    ngram = False

    def __init__(
        self,
        upscale: int,
        in_chans: int = 3,
        img_size: int = 64,
        base_win_size: Sequence[int] = (8, 8),
        img_range: float = 1.0,
        depths: Sequence[int] = (6, 6, 6, 6),
        embed_dim: int = 60,
        num_heads: Sequence[int] = (6, 6, 6, 6),
        expansion_factor: float = 2,
        resi_connection: str = '1conv',
        hier_win_ratios: Sequence[float] = (0.5, 1, 2, 4, 6, 8),
        upsampler: str = 'pixelshuffledirect',
        mlp_ratio: float = 2,
        drop_path_rate: float = 0.0,
        use_checkpoint: bool = False,
    ) -> None:
        check_groups(depths, num_heads, embed_dim, channels_per_head=2)
        base_size, windows = _hierarchical_windows(base_win_size, hier_win_ratios)
        if max(depths) > len(windows):
            raise InputError(
                f'hier_win_ratios: {len(windows)} ratios for {max(depths)} blocks in depths; give one per block.'
            )
        groups = [
            [
                HiTBlock(
                    dim=embed_dim,
                    window_size=window,
                    base_size=base_size,
                    num_heads=heads,
                    hidden_dim=int(embed_dim * mlp_ratio),
                    kernel_size=self.kernel_size,
                    ngram=self.ngram,
                    drop_path=drop_path,
                )
                for window, drop_path in zip(windows, rates, strict=False)
            ]
            for heads, rates in zip(num_heads, split_drop_path(drop_path_rate, depths), strict=True)
        ]
        super().__init__(
            groups,
            embed_dim=embed_dim,
            in_chans=in_chans,
            upscale=upscale,
            img_range=img_range,
            upsampler=upsampler,
            resi_connection=resi_connection,
            pad_multiple_px=1,
            use_checkpoint=use_checkpoint,
        )


def _hierarchical_windows(base_win_size: Sequence[int], ratios: Sequence[float]) -> tuple[int, list[int]]:
    """The side of the base window and of the window of each block, in pixels."""
    base = base_win_size[0]
    if any(side != base for side in base_win_size):
        raise InputError(f'base_win_size: {list(base_win_size)} is not square; give two equal numbers.')
    windows = [int(base * ratio) for ratio in ratios]
    for window, ratio in zip(windows, ratios, strict=True):
        if window < 1 or (window > base and window % base):
            raise InputError(
                f'hier_win_ratios: {ratio} makes windows of {base * ratio:g} pixels; above the base window of {base} '
                'only its multiples are possible, and none is smaller than 1.'
            )
    return base, windows


@ARCH_REGISTRY.register()
class HiT_SIR(HiT):
    """HiT-SIR, from SwinIR: the plain two-layer MLP. Arguments: see `HiT`."""


@ARCH_REGISTRY.register()
class HiT_SNG(HiT):
    """HiT-SNG, from SwinIR-NG: N-gram context between windows. Arguments: see `HiT`."""

    ngram = True


@ARCH_REGISTRY.register()
class HiT_SRF(HiT):
    """HiT-SRF, from SRFormer: a depthwise convolution in the MLP. Arguments: see `HiT`."""

    kernel_size = 5
