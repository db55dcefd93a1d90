"""The patch discriminator of RealSR (Ji et al., CVPRW 2020)."""

from basicsr.utils.registry import ARCH_REGISTRY
from torch import Tensor, nn


@ARCH_REGISTRY.register()
class RealSRPatchDiscriminator(nn.Module):
    """Five 4x4 convolutions that judge overlapping 70 px patches; works with BasicSR's ``ESRGANModel``.

    Source: Ji et al., "Real-World Super-Resolution via Kernel Estimation and Noise Injection", CVPRW 2020.

    Args:
        num_in_ch: Image channels.
        num_feat: Channels after the first convolution, doubled up to eightfold.
    """

    def __init__(self, num_in_ch: int = 3, num_feat: int = 64) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(num_in_ch, num_feat, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        for in_ch, out_ch, stride in ((1, 2, 2), (2, 4, 2), (4, 8, 1)):
            layers += [
                nn.Conv2d(in_ch * num_feat, out_ch * num_feat, 4, stride=stride, padding=1, bias=False),
                nn.BatchNorm2d(out_ch * num_feat),
                nn.LeakyReLU(0.2),
            ]
        layers.append(nn.Conv2d(8 * num_feat, 1, 4, stride=1, padding=1))
        self.model = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Judge patches.

        Args:
            x: Images, (B, num_in_ch, H, W), H and W at least 24.

        Returns:
            Logits, (B, 1, floor(H / 8) - 2, floor(W / 8) - 2).
        """
        return self.model(x)
