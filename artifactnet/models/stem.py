"""A convolutional patch embedding (Xiao et al. 2021, "Early Convolutions Help Transformers").

One large linear patch embedding needs a great deal of data to learn high-frequency detail;
a few small convolutions with the same stride learn it from little.
"""

from __future__ import annotations

import torch
from torch import nn


class ConvStem(nn.Module):
    """(B, 3, H, W) -> (B, embed_dim, H / patch, W / patch), in place of a patch projection.

    The patch size is split into stride-2 convolutions while it is even (16 = 2*2*2*2) and one
    last convolution of the odd rest (14 = 2*7). Group norm keeps images independent of
    their batch, which gradient rollout and data-parallel equality rely on.

    Args:
        patch_size: side of the (square) patch in pixels.
        embed_dim: channels of the result.
        width: channels after the first convolution; doubled at each stride.
    """

    def __init__(self, patch_size: int, embed_dim: int, width: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels, out, rest = 3, width, patch_size
        while rest % 2 == 0:
            layers += _block(channels, out, stride=2) + _block(out, out, stride=1)
            channels, out, rest = out, min(2 * out, embed_dim), rest // 2
        layers.append(nn.Conv2d(channels, embed_dim, kernel_size=rest, stride=rest))
        self.layers = nn.Sequential(*layers)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Embed the patches of (B, 3, H, W)."""
        return self.layers(images)


def _block(channels: int, out: int, stride: int) -> list[nn.Module]:
    return [
        nn.Conv2d(channels, out, kernel_size=3, stride=stride, padding=1, bias=False),
        nn.GroupNorm(max(1, out // 16), out),
        nn.GELU(),
    ]
