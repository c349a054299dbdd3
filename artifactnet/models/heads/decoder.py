"""The light heatmap head of students, and the neck that it shares with the mapper."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from artifactnet.config import HeatmapConfig
from artifactnet.types import HeatmapLevel

_GROUP = 8  # channels per group of a norm, which works with any batch size
_CLEAN = -3.0  # first bias of the heatmap's logit: most of an image is clean
LOG_SIGMA = (-5.0, 1.0)  # range of log sigma; without a floor an easy map drives it to -inf


@dataclass(slots=True)
class HeatmapOutput:
    """Output of a heatmap head.

    Attributes:
        heatmap: (B, h, w) in [0, 1].
        sigma: (B, h, w) > 0, its Laplace deviation.
        score: (B,) plausibility in [0, 1].
        levels: the maps that were fused, all (B, h, w).
    """

    heatmap: Tensor
    sigma: Tensor
    score: Tensor
    levels: tuple[HeatmapLevel, ...]


class Neck(nn.Module):
    """All levels of a pyramid in one map: projected, resized, summed (FPN, Lin et al. 2017)."""

    def __init__(self, channels: Sequence[int], width: int) -> None:
        super().__init__()
        self.projections = nn.ModuleList(
            nn.Sequential(nn.Conv2d(c, width, 1, bias=False), group_norm(width)) for c in channels
        )

    def forward(self, levels: list[Tensor], cell: tuple[int, int]) -> Tensor:
        """(B, C_k, h_k, w_k) of every level to (B, width, h, w) with (h, w) = ``cell``."""
        total: Tensor | None = None
        for projection, level in zip(self.projections, levels, strict=True):
            one = projection(level)
            if one.shape[-2:] != cell:
                one = F.interpolate(one, cell, mode="bilinear")
            total = one if total is None else total + one
        assert total is not None
        return total


class Decoder(nn.Module):
    """Heatmap, deviation and score in one pass over a pyramid: the head of students."""

    def __init__(self, config: HeatmapConfig, channels: Sequence[int]) -> None:
        super().__init__()
        width = config.width
        self.stride = config.stride
        self.neck = Neck(channels, width)
        self.mix = nn.Sequential(_separable(width), _separable(width))
        self.maps = nn.Conv2d(width, 2, 1)
        self.score = nn.Sequential(nn.Linear(2 * width + 2, width), nn.GELU(), nn.Linear(width, 1))
        nn.init.normal_(self.maps.weight, std=0.01)
        assert self.maps.bias is not None
        with torch.no_grad():
            self.maps.bias.copy_(torch.tensor([_CLEAN, 0.0]))

    def forward(self, levels: list[Tensor], size: tuple[int, int]) -> HeatmapOutput:
        """Predict from levels (B, C_k, h_k, w_k), finest first, of images of ``size`` pixels."""
        cell = (-(-size[0] // self.stride), -(-size[1] // self.stride))
        features = self.mix(F.gelu(self.neck(levels, cell)))
        level = to_level(self.maps(features))
        heatmap = level.logit.sigmoid()
        map_statistics = torch.stack([heatmap.mean((1, 2)), heatmap.amax((1, 2))], 1)
        pooled = torch.cat([features.mean((2, 3)), features.amax((2, 3)), map_statistics], 1)
        score = to_probability(self.score(pooled))
        return HeatmapOutput(heatmap, level.log_sigma.exp(), score, (level,))


def group_norm(width: int) -> nn.GroupNorm:
    """Group norm with groups of eight channels where they divide the width."""
    return nn.GroupNorm(width // _GROUP if width % _GROUP == 0 else 1, width)


def to_level(maps: Tensor) -> HeatmapLevel:
    """Logit and bounded log sigma from the (B, 2, h, w) output of a head's last layer.

    Float32 or wider, under autocast too: in bfloat16 a confident pixel would be exactly 1 and get
    no gradient. Log sigma stays inside `LOG_SIGMA` smoothly, so it always has a gradient.
    """
    logit, log_sigma = _precise(maps).unbind(1)
    low, high = LOG_SIGMA
    return HeatmapLevel(logit, low + (high - low) * log_sigma.sigmoid())


def to_probability(logit: Tensor) -> Tensor:
    """(B, 1) logits to (B,) probabilities, precise under autocast as well."""
    return _precise(logit[:, 0]).sigmoid()


def _precise(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _separable(width: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(width, width, 5, padding=2, groups=width, bias=False),
        nn.Conv2d(width, width, 1, bias=False),
        group_norm(width),
        nn.GELU(),
    )
