"""A codec in closed form: principal components of pixel blocks, and a linear decoder that looks at neighbouring blocks.

It stands in for a variational autoencoder where no weights are at hand: seconds to fit, exact to repeat.
"""

from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Blocks that the decoder sees: its own and the eight around it, which takes most of the seams away.
_NEIGHBOURS = 3
# Ridge of the decoder's least squares, relative to the mean square of a latent; it softens the errors of drawn latents.
_RIDGE = 1e-2
# Variance of pixels in [0, 1] that is none: rounding leaves 1e-14 of it, one that 8 bits can show is 1e-6.
_LEAST_VARIANCE = 1e-10


class BlockPca(nn.Module):
    """Codec from (N, 3, H, W) in [0, 1] to (N, components, H / block_px, W / block_px) of unit mean square.

    Encoding is deterministic. Whitening w divides a component of standard deviation s by s ** w before a common scale;
    a component without variance (colour, of grey images) is 0.

    >>> codec = BlockPca(block_px=2, components=12, whitening=0.5)
    >>> images = torch.rand(64, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    >>> codec.fit(lambda: [images])
    >>> mean, std = codec.encode(images[:1])
    >>> mean.shape, bool((codec.decode(mean) - images[:1]).abs().max() < 0.02)
    (torch.Size([1, 12, 4, 4]), True)

    Args:
        block_px: side of a block.
        components: latent channels, at most 3 * block_px ** 2.
        whitening: w, 0 to 1.
    """

    mean: Tensor  # (block,), block = 3 * block_px ** 2
    basis: Tensor  # (block, components), encoder: latent = basis^T (pixels - mean)
    synthesis: Tensor  # (9 * components, block), decoder, from a neighbourhood of latents to pixels - mean

    def __init__(self, block_px: int = 8, components: int = 32, whitening: float = 0.5) -> None:
        super().__init__()
        block = 3 * block_px**2
        if components > block:
            raise ValueError(f'A block of {block_px} x {block_px} pixels has {block} components, not {components}.')
        self.block_px = block_px
        self.components = components
        self.whitening = whitening
        self.register_buffer('mean', torch.zeros(block))
        self.register_buffer('basis', torch.zeros(block, components))
        self.register_buffer('synthesis', torch.zeros(_NEIGHBOURS**2 * components, block))

    def latent_shape(self, size_px: int) -> tuple[int, int, int]:
        """Shape of one latent of a square image."""
        if size_px % self.block_px:
            raise ValueError(f'{size_px} pixels are not a multiple of {self.block_px}.')
        return self.components, size_px // self.block_px, size_px // self.block_px

    def encode(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation (zero) of the latents."""
        blocks = F.unfold(pixels, self.block_px, stride=self.block_px)
        latents = torch.einsum('bk,nbl->nkl', self.basis, blocks - self.mean[:, None])
        latents = latents.reshape(len(pixels), self.components, *(side // self.block_px for side in pixels.shape[-2:]))
        return latents, torch.zeros_like(latents)

    def decode(self, latents: Tensor) -> Tensor:
        """Pixels in [0, 1]."""
        blocks = torch.einsum('fb,nfl->nbl', self.synthesis, _neighbourhoods(latents)) + self.mean[:, None]
        height, width = (side * self.block_px for side in latents.shape[-2:])
        return F.fold(blocks, (height, width), self.block_px, stride=self.block_px).clamp(0, 1)

    @torch.no_grad()
    def fit(self, batches: Callable[[], Iterable[Tensor]]) -> None:
        """Fit encoder and decoder, in double precision, so that the order of sums does not show.

        Args:
            batches: called twice; gives batches of patches (N, 3, H, W) in [0, 1].
        """
        block = len(self.mean)
        count, total, product = 0, torch.zeros(block).double(), torch.zeros(block, block).double()
        for batch in batches():
            pixels = F.unfold(batch, self.block_px, stride=self.block_px).transpose(1, 2).reshape(-1, block).double()
            count += len(pixels)
            total += pixels.sum(0)
            product += pixels.T @ pixels
        mean = total / count
        variances, vectors = torch.linalg.eigh(product / count - mean[:, None] * mean)
        variances, vectors = (part.flip(-1)[..., : self.components] for part in (variances, vectors))
        # An eigenvector's sign is arbitrary; the largest entry is made positive.
        largest = vectors.gather(0, vectors.abs().argmax(0, keepdim=True))
        # Directions without variance are those that rounding chose, and whitening would enlarge its noise.
        varies = variances > _LEAST_VARIANCE
        divisor = variances.clamp(min=_LEAST_VARIANCE).sqrt() ** self.whitening
        common = torch.where(varies, variances / divisor.square(), 0).mean().sqrt()
        self.mean.copy_(mean)
        self.basis.copy_(torch.where(varies, vectors * largest.sign() / (divisor * common), 0))

        features = len(self.synthesis)
        gram, target = torch.zeros(features, features).double(), torch.zeros(features, block).double()
        for batch in batches():
            seen = _neighbourhoods(self.encode(batch)[0]).transpose(1, 2).reshape(-1, features).double()
            pixels = F.unfold(batch, self.block_px, stride=self.block_px).transpose(1, 2).reshape(-1, block).double()
            gram += seen.T @ seen
            target += seen.T @ (pixels - mean)
        # More than one of a block's latents squared, but for images that are all flat: their latents are all 0.
        ridge = _RIDGE * gram.diagonal().mean().clamp(min=1) * torch.eye(features).double()
        self.synthesis.copy_(torch.linalg.solve(gram + ridge, target))


def _neighbourhoods(latents: Tensor) -> Tensor:
    """(N, 9 * C, h * w): every block's latents with those around it, the border repeated."""
    return F.unfold(F.pad(latents, (1, 1, 1, 1), mode='replicate'), _NEIGHBOURS)
