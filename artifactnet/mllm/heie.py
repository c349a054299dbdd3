"""HEIE: a multimodal language model whose [MAP] and [SCORE] tokens say where and how much."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from artifactnet.config import HeatmapConfig, MllmConfig
from artifactnet.mllm.processing import IGNORED, Inputs, Processing
from artifactnet.models.decoder import HeatmapOutput
from artifactnet.models.hierarchy import HierarchicalHead
from artifactnet.models.token_source import Tokens


@dataclass(slots=True)
class Output:
    """What HEIE says of a batch.

    Attributes:
        heatmaps: one per image, each a batch of 1 and of the size of the image's own grid.
        nll: (B,) negative log-likelihood of each answer, in nats, summed over its tokens.
        tokens: (B,) int64 tokens of each answer.
        text_loss: mean negative log-likelihood over the tokens of all answers; None without
            labels.
    """

    heatmaps: list[HeatmapOutput]
    nll: Tensor
    tokens: Tensor
    text_loss: Tensor | None


class HEIE(nn.Module):
    """Text, heatmap and score in one forward pass (HEIE, Yang et al. 2024, Fig. 2).

    The language model's last hidden states at the map tokens, and its own vision tower's features
    of tiles and thumbnail, go through the implausibility mapper; the one at ``[SCORE]`` goes to
    the scorer.

    Args:
        base: an ``InternVLForConditionalGeneration``, with adapters or without.
        processing: of the same base model.
        config: of the mapper, fuser and scorer; its ``tile`` is the base model's.
        mllm: what the base was loaded with.

    Attributes:
        base, processing, config, mllm: as given.
        head: mapper, fuser and scorer, in float32.
        notices: what must be known before trusting an answer.
    """

    def __init__(
        self, base: Any, processing: Processing, config: HeatmapConfig, mllm: MllmConfig
    ) -> None:
        super().__init__()
        self.base = base
        self.processing = processing
        self.config, self.mllm = config, mllm
        self.notices: tuple[str, ...] = ()
        settings = self.inner.config
        self.head = HierarchicalHead(
            config, [settings.vision_config.hidden_size], settings.text_config.hidden_size
        )
        patch = settings.vision_config.patch_size
        self._cells = processing.tile // int(patch[0] if isinstance(patch, list | tuple) else patch)

    @property
    def causal(self) -> Any:
        """The language model with its output layer, below any adapters."""
        return self.base.get_base_model() if hasattr(self.base, "get_base_model") else self.base

    @property
    def inner(self) -> Any:
        """The language model without its output layer."""
        return self.causal.model

    @property
    def device(self) -> torch.device:
        """Where the head is, and with it everything else."""
        return next(self.head.parameters()).device

    def forward(self, inputs: Inputs) -> Output:
        """Read answers: their likelihood, and what their map and score tokens say.

        Args:
            inputs: made by `Processing.encode`.

        Raises:
            ValueError: a row has not 1 + N map tokens and one score token.
        """
        inner = self.inner
        seen = inner.get_image_features(inputs.pixel_values.to(inner.dtype), return_dict=True)
        hidden = inner(
            input_ids=inputs.input_ids,
            attention_mask=inputs.attention_mask,
            mm_encoder_outputs={"image": seen},
            use_cache=False,
        ).last_hidden_state
        nll, tokens = self._likelihood(hidden, inputs)
        total = tokens.sum()
        return Output(
            heatmaps=self._maps(seen.last_hidden_state, hidden, inputs),
            nll=nll,
            tokens=tokens,
            text_loss=None if inputs.labels is None else nll.sum() / total.clamp_min(1),
        )

    def _likelihood(self, hidden: Tensor, inputs: Inputs) -> tuple[Tensor, Tensor]:
        """(B,) summed negative log-likelihood, and (B,) counts, of the labelled tokens.

        The output layer sees only the states that predict a labelled token: over a large
        vocabulary, logits of all positions would take more memory than the model's activations.
        """
        rows = inputs.input_ids.shape[0]
        if inputs.labels is None:
            return hidden.new_zeros(rows, dtype=torch.float32), hidden.new_zeros(rows).long()
        labels = inputs.labels[:, 1:]
        known = labels != IGNORED
        logits = self.causal.lm_head(hidden[:, :-1][known]).float()
        each = F.cross_entropy(logits, labels[known], reduction="none")
        row = known.nonzero()[:, 0]
        return each.new_zeros(rows).index_add(0, row, each), known.sum(1)

    def _maps(self, features: Tensor, hidden: Tensor, inputs: Inputs) -> list[HeatmapOutput]:
        """Heatmaps, from the vision tower's (T, 1 + P, d) and the language model's (B, L, D)."""
        precise = next(self.head.parameters()).dtype
        # the class token is dropped; row by row the others are the cells of the tile
        pieces = features[:, 1:].to(precise).transpose(1, 2)
        pieces = pieces.unflatten(2, (self._cells, -1))
        thumbnails, tiles = piece_indices(inputs.grids)
        states = hidden.to(precise)
        score_at = inputs.input_ids == self.processing.score_id
        map_at = inputs.input_ids == self.processing.map_id
        counts = [1 + rows * columns for rows, columns in inputs.grids]
        if map_at.sum(1).tolist() != counts or bool((score_at.sum(1) != 1).any()):
            raise ValueError(
                f"rows have {map_at.sum(1).tolist()} map and {score_at.sum(1).tolist()} score "
                f"tokens, but grids {inputs.grids} need {counts} and one each"
            )
        maps = states[map_at].split(counts)
        tokens = Tokens(
            global_map=torch.stack([one[:1] for one in maps]),
            local_map=torch.cat([one[1:] for one in maps])[:, None],
            score=states[score_at],
        )
        whole, local, score = self.head.map_pieces([pieces[thumbnails]], [pieces[tiles]], tokens)
        return self.head.assemble(whole, local, score, inputs.grids)


def piece_indices(grids: list[tuple[int, int]]) -> tuple[list[int], list[int]]:
    """Which rows of ``Inputs.pixel_values`` are thumbnails (one per image), and which tiles.

    Args:
        grids: (rows, columns) of each image.
    """
    thumbnails: list[int] = []
    tiles: list[int] = []
    start = 0
    for rows, columns in grids:
        count = rows * columns
        tiles += range(start, start + count)
        start += count
        if count > 1:
            start += 1
        thumbnails.append(start - 1)
    return thumbnails, tiles
