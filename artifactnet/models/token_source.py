"""Where map and score tokens come from when no language model gives them (HEIE "without LLM")."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from artifactnet.models.mapper import Attention


@dataclass(frozen=True, slots=True)
class Tokens:
    """What a token source says of B images cut into M tiles in all.

    An MLLM supplies the same from the last hidden states of its [MAP] and [SCORE] tokens, in
    its own width.

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

    Every thumbnail is given the same map tokens, and so is every tile: it is the mapper that
    makes them attend to the image. The score token goes to the scorer directly, so here already
    it attends to the thumbnail's features; else it would be the same for every image.

    Args:
        width: channels of tokens and features.
        tokens: map tokens of a thumbnail or tile, n.
        heads: attention heads of the score token; they must divide ``width``.

    Raises:
        ValueError: they do not, or ``tokens`` is below 1.
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
        """Tokens for these images.

        Args:
            thumbnails: (B, P, width) features.
            tiles: (M, P, width) features.
        """
        score = self.score.expand(thumbnails.shape[0], -1, -1)
        score = self.norm(score + self.look(score, thumbnails, thumbnails))
        return Tokens(
            self.global_map.expand(thumbnails.shape[0], -1, -1),
            self.local_map.expand(tiles.shape[0], -1, -1),
            score[:, 0],
        )
