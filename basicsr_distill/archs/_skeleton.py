"""What SRFormer and HiT-SR have in common: SwinIR's skeleton around groups of window blocks (Liang et al. 2021)."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from basicsr_distill.archs._windows import reflect_pad
from basicsr_distill.errors import InputError

RGB_MEAN = (0.4488, 0.4371, 0.4040)
UPSAMPLERS = ('pixelshuffledirect', 'pixelshuffle', 'nearest+conv')
HEAD_CHANNELS = 64


class MapConv2d(nn.Conv2d):
    """`nn.Conv2d` on channels-last maps, (B, H, W, C) in and out; the weights and their names are those of Conv2d."""

    def forward(self, x: Tensor) -> Tensor:
        """Convolve; the permuted views are torch's channels-last memory format, so nothing is copied."""
        return super().forward(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class ConvFFN(nn.Module):
    """Feed-forward layer with an optional depthwise convolution between its two linear maps.

    h = GELU(fc1 x); h <- h + GELU(depthwise(h)) over the whole map; fc2 h. Source: Zhou et al., SRFormer (2023).

    Args:
        dim: Channels in and out.
        hidden_dim: Channels between.
        kernel_size: Side of the depthwise kernel in pixels; 0 leaves the plain two-layer MLP.
    """

    def __init__(self, dim: int, hidden_dim: int, kernel_size: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden_dim)
        self.dwconv: nn.ModuleDict | None = None
        if kernel_size:
            depthwise = MapConv2d(hidden_dim, hidden_dim, kernel_size, padding=kernel_size // 2, groups=hidden_dim)
            self.dwconv = nn.ModuleDict({'depthwise_conv': nn.Sequential(depthwise, nn.GELU())})
        self.fc2 = nn.Linear(hidden_dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, H, W, dim) to (B, H, W, dim)."""
        h = F.gelu(self.fc1(x))
        if self.dwconv is not None:
            h = h + self.dwconv['depthwise_conv'](h)
        return self.fc2(h)


def residual_conv(dim: int, resi_connection: str) -> nn.Module:
    """The convolution that ends a group and the body, on channels-last maps: ``1conv``, or the bottleneck ``3conv``."""
    if resi_connection == '1conv':
        return MapConv2d(dim, dim, 3, padding=1)
    if resi_connection == '3conv':
        return nn.Sequential(
            MapConv2d(dim, dim // 4, 3, padding=1),
            nn.LeakyReLU(0.2),
            MapConv2d(dim // 4, dim // 4, 1),
            nn.LeakyReLU(0.2),
            MapConv2d(dim // 4, dim, 3, padding=1),
        )
    raise InputError(f"resi_connection: '{resi_connection}' is unknown; choose '1conv' or '3conv'.")


class ResidualGroup(nn.Module):
    """t <- conv(blocks(t)) + t on channels-last maps."""

    def __init__(self, blocks: Sequence[nn.Module], dim: int, resi_connection: str, use_checkpoint: bool) -> None:
        super().__init__()
        # Official checkpoints name the blocks `residual_group.blocks.{j}`.
        self.residual_group = nn.ModuleDict({'blocks': nn.ModuleList(blocks)})
        self.conv = residual_conv(dim, resi_connection)
        self.use_checkpoint = use_checkpoint

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, H, W, dim) to (B, H, W, dim)."""
        t = x
        recompute = self.use_checkpoint and torch.is_grad_enabled()
        for block in self.residual_group['blocks'].children():
            t = checkpoint(block, t, use_reentrant=False) if recompute else block(t)
        return self.conv(t) + x


class WindowTransformerSR(nn.Module):
    """Super-resolution by a residual body of window-transformer groups, with SwinIR's reconstruction heads.

    Args:
        groups: The blocks of each group; a block maps (B, H, W, embed_dim) to the same shape.
        embed_dim: Feature channels.
        in_chans: Image channels, in and out.
        upscale: Scale factor.
        img_range: Factor on the mean-free image; 1 for images in [0, 1].
        upsampler: ``pixelshuffledirect``, ``pixelshuffle``, or (x4 only) ``nearest+conv``.
        resi_connection: ``1conv`` or ``3conv``.
        pad_multiple_px: The image is reflect-padded to a multiple of this, and the output cropped.
        use_checkpoint: Recompute blocks in the backward pass to save memory.

    Raises:
        InputError: If an option has no meaning.
    """

    def __init__(
        self,
        groups: Sequence[Sequence[nn.Module]],
        embed_dim: int,
        in_chans: int,
        upscale: int,
        img_range: float,
        upsampler: str,
        resi_connection: str,
        pad_multiple_px: int,
        use_checkpoint: bool,
    ) -> None:
        super().__init__()
        self.upscale = upscale
        self.img_range = img_range
        self.upsampler = upsampler
        self.pad_multiple_px = pad_multiple_px
        # Not a buffer: official checkpoints do not hold it.
        self.mean = torch.tensor(RGB_MEAN if in_chans == 3 else (0.0,) * in_chans).view(1, -1, 1, 1)

        self.conv_first = MapConv2d(in_chans, embed_dim, 3, padding=1)
        self.patch_embed = nn.ModuleDict({'norm': nn.LayerNorm(embed_dim)})
        self.layers = nn.ModuleList(
            ResidualGroup(blocks, embed_dim, resi_connection, use_checkpoint) for blocks in groups
        )
        self.norm = nn.LayerNorm(embed_dim)
        self.conv_after_body = residual_conv(embed_dim, resi_connection)
        self._build_head(embed_dim, in_chans)
        self.apply(_init_weights)

    def _build_head(self, embed_dim: int, out_chans: int) -> None:
        s = self.upscale
        if self.upsampler not in UPSAMPLERS:
            raise InputError(f"upsampler: '{self.upsampler}' is unknown; choose one of {', '.join(UPSAMPLERS)}.")
        if self.upsampler == 'pixelshuffledirect':
            self.upsample = nn.Sequential(nn.Conv2d(embed_dim, out_chans * s**2, 3, padding=1), nn.PixelShuffle(s))
            return
        self.conv_before_upsample = nn.Sequential(nn.Conv2d(embed_dim, HEAD_CHANNELS, 3, padding=1), nn.LeakyReLU(0.01))
        self.conv_last = nn.Conv2d(HEAD_CHANNELS, out_chans, 3, padding=1)
        if self.upsampler == 'pixelshuffle':
            steps = {2: (2,), 3: (3,), 4: (2, 2), 8: (2, 2, 2)}.get(s)
            if steps is None:
                raise InputError(f"upscale: {s} is not possible with upsampler 'pixelshuffle'; choose 2, 3, 4 or 8.")
            self.upsample = nn.Sequential()
            for step in steps:
                self.upsample.append(nn.Conv2d(HEAD_CHANNELS, HEAD_CHANNELS * step**2, 3, padding=1))
                self.upsample.append(nn.PixelShuffle(step))
        else:
            if s != 4:
                raise InputError(f"upscale: {s} is not possible with upsampler 'nearest+conv', which is x4 only.")
            self.conv_up1, self.conv_up2, self.conv_hr = (
                nn.Conv2d(HEAD_CHANNELS, HEAD_CHANNELS, 3, padding=1) for _ in range(3)
            )

    def _reconstruct(self, f: Tensor) -> Tensor:
        if self.upsampler == 'pixelshuffledirect':
            return self.upsample(f)
        f = self.conv_before_upsample(f)
        if self.upsampler == 'pixelshuffle':
            return self.conv_last(self.upsample(f))
        for conv in (self.conv_up1, self.conv_up2):
            f = F.leaky_relu(conv(F.interpolate(f, scale_factor=2, mode='nearest')), 0.2)
        return self.conv_last(F.leaky_relu(self.conv_hr(f), 0.2))

    def forward(self, x: Tensor) -> Tensor:
        """Super-resolve.

        Args:
            x: LR images, (B, in_chans, H, W), float in [0, 1], any H and W from 1 on.

        Returns:
            SR images, (B, in_chans, upscale * H, upscale * W), about [0, 1], not clamped.
        """
        h, w = x.shape[2:]
        mean = self.mean.to(x)
        x = (reflect_pad(x, self.pad_multiple_px, dims=(2, 3)) - mean) * self.img_range
        f = self.conv_first(x.permute(0, 2, 3, 1).contiguous())
        t = self.patch_embed['norm'](f)
        for group in self.layers:
            t = group(t)
        f = self.conv_after_body(self.norm(t)) + f
        sr = self._reconstruct(f.permute(0, 3, 1, 2)) / self.img_range + mean
        # Contiguous, because discriminators flatten with `view`.
        return sr[..., : h * self.upscale, : w * self.upscale].contiguous()


def split_drop_path(drop_path_rate: float, depths: Sequence[int]) -> list[list[float]]:
    """Stochastic-depth probability of every block, per group: linear from 0 at the first to the rate at the last."""
    rates = torch.linspace(0, drop_path_rate, sum(depths)).tolist()
    ends = [sum(depths[:i]) for i in range(len(depths) + 1)]
    return [rates[start:end] for start, end in pairwise(ends)]


def check_groups(depths: Sequence[int], num_heads: Sequence[int], embed_dim: int, channels_per_head: int) -> None:
    """Refuse depths and heads that do not fit each other or the width.

    Args:
        depths: Blocks per group.
        num_heads: Attention heads per group.
        embed_dim: Feature channels.
        channels_per_head: embed_dim must be a multiple of this times the number of heads.

    Raises:
        InputError: Naming the option at fault.
    """
    if len(depths) != len(num_heads):
        raise InputError(f'num_heads: {len(num_heads)} entries for {len(depths)} groups in depths; give one per group.')
    for heads in num_heads:
        if embed_dim % (channels_per_head * heads):
            raise InputError(f'embed_dim: {embed_dim} is not a multiple of {channels_per_head} x num_heads ({heads}).')


def _init_weights(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
    table = getattr(module, 'relative_position_bias_table', None)
    if table is not None:
        nn.init.trunc_normal_(table, std=0.02)
