"""The hierarchical heatmap head (HEIE): map tiles and thumbnail, stitch, fuse, score."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from artifactnet.config import HeatmapConfig
from artifactnet.models.heads.decoder import HeatmapOutput, Neck
from artifactnet.models.heads.mapper import ImplausibilityMapper, LearnedTokens, Tokens
from artifactnet.models.heads.scorer import VerisimilitudeScorer
from artifactnet.models.heads.tiling import stitch
from artifactnet.types import ArtifactNetError, HeatmapLevel

MODES = ("uncertainty", "learnable", "fixed", "global", "local")


class Fuser(nn.Module):
    """Weighted mean of the heatmap of the whole image and that of its tiles.

    The weights add up to 1. The local one is, by mode (HEIE Tab. 5):

    - ``uncertainty``: e^-sigma_l / (e^-sigma_l + e^-sigma_g), per pixel;
    - ``learnable``: one learned number for all pixels, 1/2 at first;
    - ``fixed``: 1/2;
    - ``global``: 0; ``local``: 1.

    Sigma is fused with the same weights. That is the deviation of the fused heatmap if both err
    alike, and never less than it (the triangle inequality).
    """

    def __init__(self, mode: str) -> None:
        super().__init__()
        if mode not in MODES:
            raise ValueError(f"unknown fusion mode {mode!r}: one of {', '.join(MODES)}")
        self.mode = mode
        self.preference: nn.Parameter | None = None
        if mode == "learnable":
            self.preference = nn.Parameter(torch.zeros(1))  # FSDP divides no scalars

    def forward(self, whole: HeatmapLevel, local: HeatmapLevel) -> tuple[Tensor, Tensor]:
        """Fuse (B, h, w) of the whole image and of its stitched tiles.

        Returns:
            Heatmap in [0, 1] and sigma > 0, both (B, h, w), float32 or better.

        Raises:
            ValueError: the sizes differ.
        """
        if whole.logit.shape != local.logit.shape:
            raise ValueError(
                f"global heatmap {tuple(whole.logit.shape)} and local heatmap "
                f"{tuple(local.logit.shape)} differ in size"
            )
        heatmaps, sigmas = [], []
        for level in (whole, local):
            precise = torch.promote_types(level.logit.dtype, torch.float32)
            heatmaps.append(level.logit.to(precise).sigmoid())
            sigmas.append(level.log_sigma.to(precise).exp())
        if self.mode == "global":
            return heatmaps[0], sigmas[0]
        if self.mode == "local":
            return heatmaps[1], sigmas[1]
        weight = self._local_weight(*sigmas)
        heatmap, sigma = (one + weight * (two - one) for one, two in (heatmaps, sigmas))
        return heatmap.clamp(0, 1), sigma  # the sum may round to just outside

    def _local_weight(self, whole: Tensor, local: Tensor) -> Tensor:
        """Weight of the local map, (B, h, w) or a scalar, from both deviations."""
        if self.mode == "uncertainty":
            return (whole - local).sigmoid()  # the quotient above, without its underflow
        if self.preference is not None:
            return self.preference.to(whole.dtype).sigmoid()
        return whole.new_tensor(0.5)


_STRIDE = 16  # pixels: the mapper reads the level whose stride is nearest


class HierarchicalHead(nn.Module):
    """Heatmap, deviation and score of images that were cut into tiles beside a thumbnail.

    One mapper serves both: on the thumbnail it sees what is wrong with the whole (a third leg),
    on the tiles what is wrong up close (a finger).

    Args:
        config: of the head.
        channels: of the backbone's pyramid levels, finest first.
        token_width: channels of the tokens from an outside source, such as an MLLM; None: the head
            learns its own.

    Raises:
        ArtifactNetError: ``config.width`` is no multiple of 4 or of ``config.heads``.
    """

    def __init__(
        self, config: HeatmapConfig, channels: Sequence[int], token_width: int | None = None
    ) -> None:
        super().__init__()
        width, heads = config.width, config.heads
        if width % 4 or width % heads:
            raise ArtifactNetError(
                f"model.heatmap.width={width} must be a multiple of 4 and of "
                f"model.heatmap.heads={heads}"
            )
        self.tile, self.max_tiles = config.tile, config.max_tiles
        self.neck = Neck(channels, width)
        self.tokens: LearnedTokens | None = None
        if token_width is None:
            token_width = width
            self.tokens = LearnedTokens(width, config.tokens, heads)
        self.mapper = ImplausibilityMapper(token_width, width, width, config.blocks, heads)
        self.fuser = Fuser(config.fusion)
        self.scorer = VerisimilitudeScorer(token_width, width, config.calibration)

    def forward(
        self,
        thumbnails: list[Tensor],
        tiles: list[Tensor],
        grid: tuple[int, int],
        tokens: Tokens | None = None,
    ) -> HeatmapOutput:
        """Predict for images of one common grid.

        Args:
            thumbnails: (B, C_k, h_k, w_k) pyramid levels of the thumbnails, finest first.
            tiles: (B * R * C, C_k, h_k, w_k) of the tiles, in the order of `tiling.cut`.
            grid: (R, C).
            tokens: from an outside source; None: the head's own.

        Returns:
            Maps of (B, R * 4h, C * 4w), where (h, w) is the level read by the mapper.
            ``levels`` are (global, local) in every mode, so a loss on them trains all alike.

        Raises:
            ArtifactNetError: the grid has more than ``config.max_tiles`` tiles.
            ValueError: the numbers of thumbnails, tiles and tokens do not fit.
        """
        whole, local, score = self.map_pieces(thumbnails, tiles, tokens)
        return self._join(whole, local, score, grid)

    def map_pieces(
        self, thumbnails: list[Tensor], tiles: list[Tensor], tokens: Tokens | None = None
    ) -> tuple[HeatmapLevel, HeatmapLevel, Tensor]:
        """Maps of thumbnails and of tiles, (M, C_k, h_k, w_k) at every level, of any grids.

        Returns:
            Maps of the thumbnails (B, 4h, 4w), of the tiles (M, 4h, 4w), score tokens
            (B, token_width): what `assemble` takes.

        Raises:
            ValueError: there are no tokens, or not as many as there are thumbnails and tiles.
        """
        cell = self._cell(tiles)
        small, large = self.neck(thumbnails, cell), self.neck(tiles, cell)
        if tokens is None:
            if self.tokens is None:
                raise ValueError("this head has no tokens of its own: pass them")
            tokens = self.tokens(_sequence(small), _sequence(large))
        counts = [x.shape[0] for x in (tokens.global_map, tokens.local_map, tokens.score)]
        if counts != [small.shape[0], large.shape[0], small.shape[0]]:
            raise ValueError(
                f"tokens for {counts[0]} thumbnails, {counts[1]} tiles and {counts[2]} scores, "
                f"but there are {len(small)} thumbnails and {len(large)} tiles"
            )
        whole = self.mapper(tokens.global_map, small)
        return whole, self.mapper(tokens.local_map, large), tokens.score

    def assemble(
        self,
        whole: HeatmapLevel,
        local: HeatmapLevel,
        score: Tensor,
        grids: Sequence[tuple[int, int]],
    ) -> list[HeatmapOutput]:
        """Put the pieces of images with different grids together.

        Args:
            whole, local, score: see `map_pieces`; tiles image by image, each row by row.
            grids: (R, C) of each image.

        Returns:
            One output per image, each a batch of 1 and of the size of its own grid.

        Raises:
            ArtifactNetError: a grid has more than ``config.max_tiles`` tiles.
            ValueError: the numbers of thumbnails, tiles, tokens and grids do not fit.
        """
        sizes = [rows * columns for rows, columns in grids]
        if not len(whole.logit) == len(score) == len(grids) or sum(sizes) != len(local.logit):
            raise ValueError(
                f"{len(grids)} grids of {sum(sizes)} tiles in all, but {len(whole.logit)} "
                f"thumbnails, {len(score)} score tokens and {len(local.logit)} tiles"
            )
        outputs, start = [], 0
        for k, (grid, size) in enumerate(zip(grids, sizes, strict=True)):
            one, its = slice(k, k + 1), slice(start, start + size)
            outputs.append(self._join(_part(whole, one), _part(local, its), score[one], grid))
            start += size
        return outputs

    def _cell(self, levels: list[Tensor]) -> tuple[int, int]:
        """Size of the level whose stride is nearest to 16 pixels; of equals the finest."""
        sizes = [(level.shape[2], level.shape[3]) for level in levels]
        return min(sizes, key=lambda size: abs(math.log2(self.tile / size[0] / _STRIDE)))

    def _join(
        self, whole: HeatmapLevel, local: HeatmapLevel, score: Tensor, grid: tuple[int, int]
    ) -> HeatmapOutput:
        """Output of images of one grid, from the maps of thumbnails and tiles."""
        if grid[0] * grid[1] > self.max_tiles:
            raise ArtifactNetError(
                f"an image of {grid[0]}x{grid[1]} tiles of {self.tile} pixels has more than "
                f"model.heatmap.max_tiles={self.max_tiles}; raise that or model.heatmap.tile"
            )
        stitched = stitch(torch.stack([local.logit, local.log_sigma], 1), grid)
        if stitched.shape[0] != whole.logit.shape[0]:  # len() would fix the batch in an export
            raise ValueError(
                f"{len(local.logit)} tiles fill {len(stitched)} grids of {grid[0]}x{grid[1]}, "
                f"but there are {len(whole.logit)} thumbnails"
            )
        coarse = torch.stack([whole.logit, whole.log_sigma], 1)
        coarse = F.interpolate(coarse, (stitched.shape[2], stitched.shape[3]), mode="bilinear")
        levels = HeatmapLevel(*coarse.unbind(1)), HeatmapLevel(*stitched.unbind(1))
        heatmap, sigma = self.fuser(*levels)
        return HeatmapOutput(heatmap, sigma, self.scorer(score, heatmap), levels)


def _part(level: HeatmapLevel, some: slice) -> HeatmapLevel:
    return HeatmapLevel(level.logit[some], level.log_sigma[some])


def _sequence(features: Tensor) -> Tensor:
    """(B, C, h, w) to (B, h * w, C)."""
    return features.flatten(2).transpose(1, 2)
