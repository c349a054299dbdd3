"""A convolutional stem in place of a ViT's patch projection (``model.stem=conv``)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from artifactnet.config import ModelConfig
from artifactnet.types import ArtifactNetError

# Fridrich & Kodovsky's "square 3x3" residual, here without its factor 1/4
_RESIDUAL = ((-1.0, 2.0, -1.0), (2.0, -4.0, 2.0), (-1.0, 2.0, -1.0))
_RESIDUAL_LIMIT = 2.0  # strong edges would drown the fine residuals that matter


def add_stem(net: Any, config: ModelConfig) -> None:
    """Replace the patch projection of a net by a `ConvStem`, where ``model.stem`` is ``conv``.

    Raises:
        ArtifactNetError: the net has no patches.
    """
    if config.stem != "conv":
        return
    projection = getattr(getattr(net, "patch_embed", None), "proj", None)
    if not isinstance(projection, nn.Conv2d) or projection.kernel_size != projection.stride:
        raise ArtifactNetError(
            f"model.stem=conv needs patches; {config.backbone} has no patch embedding"
        )
    patch, width = projection.stride[0], projection.out_channels
    net.patch_embed.proj = ConvStem(patch, width, config.stem_width)


class ConvStem(nn.Module):
    """(B, 3, H, W) -> (B, embed_dim, H / patch, W / patch), in place of a patch projection.

    The patch size is split into stride-2 convolutions while it is even (16 = 2*2*2*2) and one
    last convolution of the odd rest (14 = 2*7). ``width`` is the first one's, doubled at each
    stride. Group norm keeps images independent of their batch, which gradient rollout and
    data-parallel equality rely on.
    """

    kernel: torch.Tensor

    def __init__(self, patch_size: int, embed_dim: int, width: int) -> None:
        super().__init__()
        kernel = torch.tensor(_RESIDUAL).expand(3, 1, 3, 3).contiguous()
        self.register_buffer("kernel", kernel, persistent=False)
        layers: list[nn.Module] = []
        channels, out, rest = 6, width, patch_size
        while rest % 2 == 0:
            layers += _block(channels, out, stride=2) + _block(out, out, stride=1)
            channels, out, rest = out, min(2 * out, embed_dim), rest // 2
        layers.append(nn.Conv2d(channels, embed_dim, kernel_size=rest, stride=rest))
        self.layers = nn.Sequential(*layers)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Embed the patches of normalised images (B, 3, H, W)."""
        residual = F.conv2d(images, self.kernel.to(images.dtype), padding=1, groups=3)
        residual = residual.clamp(-_RESIDUAL_LIMIT, _RESIDUAL_LIMIT)
        # channels last: a quarter faster on CPU for these narrow layers
        x = torch.cat([images, residual], 1).contiguous(memory_format=torch.channels_last)
        return self.layers(x)


def _block(channels: int, out: int, stride: int) -> list[nn.Module]:
    convolution = nn.Conv2d(channels, out, kernel_size=3, stride=stride, padding=1, bias=False)
    return [convolution, nn.GroupNorm(max(1, out // 16), out), nn.GELU()]
