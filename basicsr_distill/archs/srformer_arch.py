"""SRFormer: window transformer with permuted self-attention (Zhou et al., ICCV 2023)."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from basicsr.utils.registry import ARCH_REGISTRY
from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from basicsr_distill.archs._skeleton import ConvFFN, WindowTransformerSR, check_groups, split_drop_path
from basicsr_distill.archs._windows import relative_position_index, window_merge, window_partition
from basicsr_distill.errors import InputError


def shifted_window_mask(
    size_px: tuple[int, int], window_size: int, shift: int, device: torch.device | None = None
) -> Tensor:
    """Which keys a query must not see in windows that a cyclic shift has patched together from distant regions.

    The map of queries and the half-resolution map of keys are each cut into 9 regions, at -window and -shift of their
    own resolution; a query sees the keys of its own region.

    Args:
        size_px: (H, W), multiples of ``window_size``.
        window_size: Side of a window of queries, even.
        shift: Cyclic shift in pixels, in (0, window_size).
        device: Where to make it.

    Returns:
        (nH * nW, window_size^2, window_size^2 / 4), float32: 0 where visible, -100 where not.
    """

    def regions(size: tuple[int, int], window: int, cut: int) -> Tensor:
        position = [torch.arange(n, device=device) for n in size]
        rows, columns = ((at >= n - window).int() + (at >= n + cut).int() for at, n in zip(position, size, strict=True))
        return window_partition((3 * rows[:, None] + columns)[None, :, :, None], window)

    half_px = (size_px[0] // 2, size_px[1] // 2)
    queries = regions(size_px, window_size, -shift)
    keys = regions(half_px, window_size // 2, (-shift) // 2)  # floored, as published: -6 for a shift of 11
    return torch.where(queries == keys.transpose(1, 2), 0.0, -100.0)


class PermutedSelfAttention(nn.Module):
    """Window attention whose keys and values move 2x2 tokens into the channels: n queries see n/4 keys of full width.

    Source: Zhou et al. (2023).

    Args:
        dim: Channels, a multiple of 4 and of ``num_heads``.
        window_size: Side of a window in pixels, even.
        num_heads: Attention heads.
    """

    aligned_relative_position_index: Tensor

    def __init__(self, dim: int, window_size: int, num_heads: int) -> None:
        super().__init__()
        self.window_size = window_size
        self.num_heads = num_heads
        self.relative_position_bias_table = nn.Parameter(torch.zeros((window_size - 1) ** 2, num_heads))
        self.register_buffer('aligned_relative_position_index', relative_position_index(window_size, key_stride=2))
        self.q = nn.Linear(dim, dim)
        self.kv = nn.Linear(dim, dim // 2)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Attend within the windows of a map.

        Args:
            x: (B, H, W, dim), H and W multiples of the window.
            mask: Added to the logits of each window, (nH * nW, n, n/4), or None.

        Returns:
            (B, H, W, dim).
        """
        b, h, w, c = x.shape
        n, heads = self.window_size**2, self.num_heads
        q = window_partition(self.q(x) * (c // heads) ** -0.5, self.window_size).view(-1, n, heads, c // heads)
        # 2x2 neighbours become the outer part of the channels, before the split into heads.
        kv = self.kv(x).view(b, h // 2, 2, w // 2, 2, 2, c // 4).permute(5, 0, 1, 3, 2, 4, 6)
        kv = window_partition(kv.reshape(2 * b, h // 2, w // 2, c), self.window_size // 2)
        k, v = kv.view(2, -1, n // 4, heads, c // heads)

        logits = q.transpose(1, 2) @ k.permute(0, 2, 3, 1)
        index = self.aligned_relative_position_index.flatten()
        logits += self.relative_position_bias_table.index_select(0, index).view(n, n // 4, heads).permute(2, 0, 1)
        if mask is not None:
            per_window = logits.view(b, -1, heads, n, n // 4)
            if torch.jit.is_tracing():  # a trace loses what is written through a view
                logits = (per_window + mask[:, None]).view(-1, heads, n, n // 4)
            else:
                per_window.add_(mask[:, None])
        out = (logits.softmax(-1) @ v.transpose(1, 2)).transpose(1, 2).reshape(-1, n, c)
        return self.proj(window_merge(out, self.window_size, (h, w)))


class SRFormerBlock(nn.Module):
    """Pre-norm block: permuted self-attention in (shifted) windows, then a ConvFFN over the whole map.

    Args:
        dim: Channels.
        native_px: Side of the square map whose mask is kept as a buffer, a multiple of ``window_size``.
        window_size: Side of a window in pixels.
        shift: Cyclic shift in pixels, 0 for none.
        num_heads: Attention heads.
        hidden_dim: Channels inside the ConvFFN.
        drop_path: Probability of dropping a residual branch per sample.
    """

    attn_mask: Tensor | None

    def __init__(
        self, dim: int, native_px: int, window_size: int, shift: int, num_heads: int, hidden_dim: int, drop_path: float
    ) -> None:
        super().__init__()
        self.native_px = native_px
        self.window_size = window_size
        self.shift = shift
        self.norm1 = nn.LayerNorm(dim)
        self.attn = PermutedSelfAttention(dim, window_size, num_heads)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = ConvFFN(dim, hidden_dim, kernel_size=5)
        self.drop_path = StochasticDepth(drop_path, mode='row')
        self.register_buffer(
            'attn_mask', shifted_window_mask((native_px, native_px), window_size, shift) if shift else None
        )

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *args: Any) -> None:
        # The mask follows from img_size, which may differ between training and test: no reason to refuse weights.
        key = prefix + 'attn_mask'
        if self.attn_mask is not None and key in state_dict and state_dict[key].shape != self.attn_mask.shape:
            state_dict = {**state_dict, key: self.attn_mask}
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _mask(self, x: Tensor) -> Tensor | None:
        size_px = (x.shape[1], x.shape[2])
        if self.attn_mask is None or size_px == (self.native_px, self.native_px):
            return self.attn_mask
        return shifted_window_mask(size_px, self.window_size, self.shift, x.device).to(x.dtype)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, H, W, dim) to the same shape; H and W are multiples of the window."""
        t = self.norm1(x)
        if self.shift:
            t = t.roll((-self.shift, -self.shift), dims=(1, 2))
        t = self.attn(t, self._mask(x))
        if self.shift:
            t = t.roll((self.shift, self.shift), dims=(1, 2))
        x = x + self.drop_path(t)
        return x + self.drop_path(self.mlp(self.norm2(x)))


@ARCH_REGISTRY.register()
class SRFormer(WindowTransformerSR):
    """SRFormer and SRFormer-light; official checkpoints load unchanged.

    Source: Zhou et al., "SRFormer: Permuted Self-Attention for Single Image Super-Resolution", ICCV 2023.

    Args:
        upscale: Scale factor.
        in_chans: Image channels.
        img_size: Side of the training LR patch in pixels, rounded up to a multiple of ``window_size``; at this size the
            shift mask is read from a buffer, at others it is computed.
        window_size: Side of an attention window in pixels, even.
        img_range: Factor on the mean-free image; 1 for images in [0, 1].
        depths: Blocks per group.
        embed_dim: Feature channels.
        num_heads: Attention heads per group.
        mlp_ratio: Hidden channels of the ConvFFN over ``embed_dim``.
        upsampler: ``pixelshuffledirect`` (light), ``pixelshuffle`` (classical) or ``nearest+conv`` (real-world, x4).
        resi_connection: ``1conv`` or ``3conv``.
        drop_path_rate: Stochastic depth of the last block, in training; active by default.
        use_checkpoint: Recompute blocks in the backward pass: same gradients, less memory, more time.

    Raises:
        InputError: If the options do not fit each other.
    """

    def __init__(
        self,
        upscale: int,
        in_chans: int = 3,
        img_size: int = 64,
        window_size: int = 16,
        img_range: float = 1.0,
        depths: Sequence[int] = (6, 6, 6, 6),
        embed_dim: int = 60,
        num_heads: Sequence[int] = (6, 6, 6, 6),
        mlp_ratio: float = 2,
        upsampler: str = 'pixelshuffledirect',
        resi_connection: str = '1conv',
        drop_path_rate: float = 0.1,
        use_checkpoint: bool = False,
    ) -> None:
        if window_size % 2:
            raise InputError(f'window_size: {window_size} is odd; permuted self-attention needs an even window.')
        check_groups(depths, num_heads, embed_dim, channels_per_head=1)
        if embed_dim % 4:
            raise InputError(f'embed_dim: {embed_dim} is not a multiple of 4, as permuted self-attention needs.')
        native_px = img_size + -img_size % window_size
        # A map of one window has nothing to shift into.
        shift = window_size // 2 if native_px > window_size else 0
        groups = [
            [
                SRFormerBlock(
                    embed_dim, native_px, window_size, shift * (j % 2), heads, int(embed_dim * mlp_ratio), drop_path
                )
                for j, drop_path in enumerate(rates)
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
            pad_multiple_px=window_size,
            use_checkpoint=use_checkpoint,
        )
