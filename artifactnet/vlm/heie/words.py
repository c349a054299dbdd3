"""Image tokens near the words for what they show: a loss that teaches a projector alone.

A small language model reads an image only after its projector writes in the model's own terms, and
texts alone take long to teach that. Here each image token has a target among the word embeddings
of the language model: the word for the artifact that the token shows, plus the word for its place.
The language model itself takes no part.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from artifactnet.taxonomy import CATEGORIES, UNCATEGORIZED, UNCATEGORIZED_BIT
from artifactnet.vlm.text.places import ROW_FIRST
from artifactnet.vlm.text.template import CATEGORY_WORDS, CLEAN_WORD

# what a token may show, beside nothing wrong: label and bit in masks
_SHOWN = (
    *((category.label, category.bit) for category in CATEGORIES),
    (UNCATEGORIZED, UNCATEGORIZED_BIT),
)
_COVERED = 0.25  # share of a token's area from which on a category is its own
_SHARPNESS = 15.0  # of the softmax over cosines
_CLEAN_WEIGHT = 0.25  # most tokens show nothing wrong


class WordLoss(nn.Module):
    """Cross-entropy over the words, and squared distance to the target.

    Args:
        tokenizer: of the language model.
        embeddings: (V, D) rows of its input tokens.
        cells: tokens on a side of a tile.
    """

    words: Tensor  # (9, D): clean, the seven categories, an artifact of no category
    places: Tensor  # (9, D)

    def __init__(self, tokenizer: Any, embeddings: Tensor, cells: int) -> None:
        super().__init__()
        self._cells = cells

        def row(word: str) -> Tensor:
            ids = tokenizer(f" {word}", add_special_tokens=False)["input_ids"]
            return embeddings.detach()[ids].float().mean(0)

        names = (CLEAN_WORD, *(CATEGORY_WORDS[label] for label, _ in _SHOWN))
        self.register_buffer("words", torch.stack([row(name) for name in names]), False)
        self.register_buffer("places", torch.stack([row(name) for name in ROW_FIRST]), False)

    def forward(self, tokens: Tensor, mask: Tensor, grid: tuple[int, int]) -> Tensor:
        """Loss of the tokens of one image, a mean over them.

        Args:
            tokens: (T, n, D) of its tiles row by row, then of its thumbnail if it has several.
            mask: (H, W) uint8 bit field of the categories, see `artifactnet.taxonomy`.
            grid: (rows, columns) of tiles.
        """
        labels = self.labels(mask, grid).to(tokens.device)
        where = self._places(grid).to(tokens.device)
        place = self.places[where]
        weight = torch.where(labels > 0, 1.0, _CLEAN_WEIGHT)
        with torch.autocast(tokens.device.type, enabled=False):
            tokens = tokens.float()
            shown = _entropy(tokens - place, self.words, labels)
            placed = _entropy(tokens - self.words[labels], self.places, where)
        distance = (tokens - self.words[labels] - place).square().sum(-1)
        distance = distance / self.words.square().sum(-1).mean()
        return ((shown + placed + distance) * weight).sum() / weight.sum()

    @torch.no_grad()
    def nearest(self, tokens: Tensor, mask: Tensor, grid: tuple[int, int]) -> dict[str, Tensor]:
        """Whether the nearest of the words is the right one, token by token.

        Args:
            tokens, mask, grid: see `forward`.

        Returns:
            Booleans: ``category`` of the tokens that show an artifact, ``clean`` of all others,
            ``place`` of all.
        """
        labels = self.labels(mask, grid).to(tokens.device)
        where = self._places(grid).to(tokens.device)
        with torch.autocast(tokens.device.type, enabled=False):
            tokens = tokens.float()
            shown = _cosines(tokens - self.places[where], self.words).argmax(-1) == labels
            placed = _cosines(tokens - self.words[labels], self.places).argmax(-1) == where
        return {
            "category": shown[labels > 0],
            "clean": shown[labels == 0],
            "place": placed.flatten(),
        }

    def labels(self, mask: Tensor, grid: tuple[int, int]) -> Tensor:
        """(T, n) `token_labels` of the tiles and the thumbnail, see `forward`."""
        return self._pieces(lambda shape: token_labels(mask, shape), grid)

    def _places(self, grid: tuple[int, int]) -> Tensor:
        """(T, n) indices into `ROW_FIRST`, of the middle of each token in the whole image."""
        return self._pieces(_thirds, grid)

    def _pieces(self, whole: Callable[[tuple[int, int]], Tensor], grid: tuple[int, int]) -> Tensor:
        """(T, n) of the tiles row by row, and of the thumbnail if there are several.

        ``whole`` gives the values of the whole image in so many rows and columns of tokens.
        """
        side = self._cells
        tiles = cut(whole((grid[0] * side, grid[1] * side)), grid)
        if len(tiles) == 1:
            return tiles
        return torch.cat([tiles, whole((side, side)).flatten()[None]])


def _entropy(tokens: Tensor, words: Tensor, index: Tensor) -> Tensor:
    """(T, n) cross-entropy of (T, n, D) tokens over (K, D) words by cosine; (T, n) right ones."""
    logits = (_SHARPNESS * _cosines(tokens, words)).flatten(0, 1)
    return F.cross_entropy(logits, index.flatten(), reduction="none").view(index.shape)


def _cosines(tokens: Tensor, words: Tensor) -> Tensor:
    """(T, n, K) of (T, n, D) tokens and (K, D) words."""
    return F.normalize(tokens, dim=-1) @ F.normalize(words, dim=-1).T


def token_labels(mask: Tensor, shape: tuple[int, int]) -> Tensor:
    """Index of the word of each token: 0 clean, 1 to 7 the category, 8 an artifact of none.

    A token has the category that covers most of it, if that is a quarter or more. A category that
    covers no token that far has the tokens that it covers most: none is too small to be learned.

    Args:
        mask: (H, W) uint8 bit field.
        shape: rows and columns of tokens.
    """
    bits = torch.tensor([bit for _, bit in _SHOWN], dtype=torch.uint8, device=mask.device)
    layers = ((mask & bits[:, None, None]) > 0).float()
    share = F.adaptive_avg_pool2d(layers[None], shape)[0]
    peak = share.amax((1, 2), keepdim=True)
    own = (share >= peak.clamp(max=_COVERED)) & (share > 0)
    best = torch.where(own, share, 0.0).max(0)
    return torch.where(best.values > 0, best.indices + 1, 0)


def cut(cells: Tensor, grid: tuple[int, int]) -> Tensor:
    """(tiles, n) of (rows * cells, columns * cells), the tiles row by row."""
    rows, columns = grid
    height, width = cells.shape[0] // rows, cells.shape[1] // columns
    tiles = cells.reshape(rows, height, columns, width).permute(0, 2, 1, 3)
    return tiles.reshape(rows * columns, height * width)


def _thirds(shape: tuple[int, int]) -> Tensor:
    rows, columns = shape
    row = (torch.arange(rows) * 2 + 1) * 3 // (2 * rows)
    column = (torch.arange(columns) * 2 + 1) * 3 // (2 * columns)
    return row[:, None] * 3 + column[None]
