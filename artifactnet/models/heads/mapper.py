"""HEIE's Implausibility Mapper, and learned tokens for it in place of a language model's."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from artifactnet.models.heads.decoder import group_norm, to_level
from artifactnet.types import HeatmapLevel

_CLEAN = -3.0  # first bias of the heatmap's logit: most of an image is clean
_SPREAD = 0.7  # first bias of the deviation: log sigma about -1
_WAVELENGTH = 10000.0  # of the slowest position wave, in cells (Vaswani et al. 2017)


class Attention(nn.Module):
    """Multi-head attention (Vaswani et al. 2017); ``heads`` must divide ``width``."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        if heads < 1 or width % heads:
            raise ValueError(f"{heads} attention heads do not divide a width of {width}")
        self.heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))

    def forward(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """(B, N, width) queries, (B, P, width) keys and values to (B, N, width)."""
        q, k, v = (
            project(x).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for project, x in ((self.query, queries), (self.key, keys), (self.value, values))
        )
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class TwoWayBlock(nn.Module):
    """Tokens attend to themselves and to the image, then the image attends to the tokens.

    HEIE Eq. 1 with T the tokens and F the features::

        C_TF = CrossAtten(SelfAtten(T), F, F)    T' = mlp(norm(C_TF))
        C_FT = CrossAtten(F, T', T')             output = norm(C_FT)

    Around every step runs a residual connection, as in SAM's two-way transformer, to which the
    paper refers (our reading: without it one token would make all cells of F alike, since its
    attention is 1 everywhere). Queries and keys made of F carry its positions.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.among_tokens = Attention(width, heads)
        self.to_tokens = Attention(width, heads)
        self.to_features = Attention(width, heads)
        self.norm_self = nn.LayerNorm(width)
        self.norm_cross = nn.LayerNorm(width)
        self.norm_tokens = nn.LayerNorm(width)
        self.norm_features = nn.LayerNorm(width)
        up, down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.mlp = nn.Sequential(up, nn.GELU(), down)

    def forward(self, tokens: Tensor, features: Tensor, place: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens (M, n, width) and features (M, P, width) of the next block.

        ``place`` (P, width) holds the features' positions, see `positions`.
        """
        tokens = self.norm_self(tokens + self.among_tokens(tokens, tokens, tokens))
        tokens = tokens + self.to_tokens(tokens, features + place, features)
        tokens = self.norm_tokens(tokens + self.mlp(self.norm_cross(tokens)))
        seen = self.to_features(features + place, tokens, tokens)
        return tokens, self.norm_features(features + seen)


class ImplausibilityMapper(nn.Module):
    """From map tokens and image features to a heatmap and its deviation (HEIE Sec. 3.2.1).

    Args:
        token_width, feature_width: channels of tokens (an MLLM's hidden states) and features.
        width: of both inside; a multiple of 4 (position waves) and of ``heads``.
        blocks: two-way blocks; the paper stacks 2.
        heads: attention heads.
    """

    def __init__(
        self, token_width: int, feature_width: int, width: int, blocks: int, heads: int
    ) -> None:
        super().__init__()
        if width % 4:
            raise ValueError(f"the mapper's width must be a multiple of 4, not {width}")
        self.tokens = nn.Linear(token_width, width)
        self.features = nn.Conv2d(feature_width, width, 1)
        self.blocks = nn.ModuleList(TwoWayBlock(width, heads) for _ in range(blocks))
        half = width // 2
        first = nn.ConvTranspose2d(width, half, 2, stride=2), group_norm(half), nn.GELU()
        second = nn.ConvTranspose2d(half, half, 2, stride=2), nn.GELU()
        self.finer = nn.Sequential(*first, *second)
        self.maps = nn.Conv2d(half, 2, 3, padding=1)
        with torch.no_grad():
            assert self.maps.bias is not None
            self.maps.weight.mul_(0.1)
            self.maps.bias.copy_(torch.tensor([_CLEAN, _SPREAD]))

    def forward(self, tokens: Tensor, features: Tensor) -> HeatmapLevel:
        """Predict from tokens (M, n, token_width), n >= 1, and (M, feature_width, h, w).

        Returns:
            ``logit`` and ``log_sigma``, both (M, 4h, 4w), see `decoder.to_level`.
        """
        height, width = features.shape[-2:]
        cells, tokens = self.features(features).flatten(2).transpose(1, 2), self.tokens(tokens)
        place = positions(height, width, cells.shape[2]).to(cells)
        for block in self.blocks:
            tokens, cells = block(tokens, cells, place)
        return to_level(self.maps(self.finer(cells.transpose(1, 2).unflatten(2, (height, width)))))


def positions(rows: int, columns: int, width: int) -> Tensor:
    """Sinusoidal embedding of the cells of a grid of any size.

    A quarter of the channels each: sine and cosine of the row, sine and cosine of the column,
    with wavelengths from 2 pi to nearly 2 pi * 10000 cells. ``width`` is a multiple of 4.

    Returns:
        (rows * columns, width) float32 in [-1, 1], row by row.
    """
    quarter = width // 4
    rate = _WAVELENGTH ** (-torch.arange(quarter, dtype=torch.float32) / quarter)
    down = (torch.arange(rows)[:, None] * rate)[:, None].expand(-1, columns, -1)
    along = (torch.arange(columns)[:, None] * rate)[None].expand(rows, -1, -1)
    return torch.cat([down.sin(), down.cos(), along.sin(), along.cos()], 2).flatten(0, 1)


@dataclass(frozen=True, slots=True)
class Tokens:
    """Map and score tokens of B images cut into M tiles in all.

    An MLLM supplies them as last hidden states of its [MAP] and [SCORE] tokens, in its own width.

    Attributes:
        global_map: (B, n, width) for the thumbnails.
        local_map: (M, n, width) for the tiles, image by image.
        score: (B, width).
    """

    global_map: Tensor
    local_map: Tensor
    score: Tensor


class LearnedTokens(nn.Module):
    """Learned vectors in place of a language model's hidden states.

    Every thumbnail gets the same map tokens, and so does every tile: the mapper makes them attend
    to the image. The score token goes to the scorer directly, so it attends to the thumbnail's
    features here; otherwise it would be the same for every image.
    """

    def __init__(self, width: int, tokens: int, heads: int) -> None:
        super().__init__()
        if tokens < 1:
            raise ValueError(f"at least 1 map token is needed, not {tokens}")
        self.global_map = nn.Parameter(torch.randn(1, tokens, width))
        self.local_map = nn.Parameter(torch.randn(1, tokens, width))
        self.score = nn.Parameter(torch.randn(1, 1, width))
        self.look = Attention(width, heads)
        self.norm = nn.LayerNorm(width)

    def forward(self, thumbnails: Tensor, tiles: Tensor) -> Tokens:
        """Tokens for features of thumbnails (B, P, width) and tiles (M, P, width)."""
        score = self.score.expand(thumbnails.shape[0], -1, -1)
        score = self.norm(score + self.look(score, thumbnails, thumbnails))
        whole = self.global_map.expand(thumbnails.shape[0], -1, -1)
        return Tokens(whole, self.local_map.expand(tiles.shape[0], -1, -1), score[:, 0])
