"""Letting HEIE write: greedy answers whose map tokens fit the tiles of their image."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from artifactnet.mllm.heie import HEIE
from artifactnet.models.state import evaluating
from artifactnet.types import UInt8Array


class MapTokens:
    """Makes a run of exactly 1 + N map tokens of the first one that a model writes.

    A callable as ``generate`` takes among its logits processors. Tokens that stand for images are
    never written, since a later forward pass would look for tiles that are not there, nor are
    control words of the chat format.

    Args:
        grids: (rows, columns) of each image of the batch.
        prompt: tokens before the answers, L.
        map_id: token of ``[MAP]``.
        forbidden: see `Processing.forbidden_ids`.
    """

    def __init__(
        self, grids: Sequence[tuple[int, int]], prompt: int, map_id: int, forbidden: Sequence[int]
    ) -> None:
        self._counts = [1 + rows * columns for rows, columns in grids]
        self._prompt, self._map, self._forbidden = prompt, map_id, list(forbidden)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """(B, V) scores of the next token after (B, L + n) ids, with only what may come."""
        scores = scores.clone()
        scores[:, self._forbidden] = -torch.inf
        written = (input_ids[:, self._prompt :] == self._map).sum(1).tolist()
        for row, (count, wanted) in enumerate(zip(written, self._counts, strict=True)):
            if 0 < count < wanted:
                scores[row] = -torch.inf
                scores[row, self._map] = 0.0
            elif count >= wanted:
                scores[row, self._map] = -torch.inf
        return scores


def generate(
    model: HEIE,
    images: Sequence[UInt8Array],
    questions: Sequence[str | None] | None = None,
) -> list[str]:
    """Answers of a model, as it wrote them; they may lack marks or end early.

    Args:
        model: on the device where it shall run.
        images: (H, W, 3) sRGB.
        questions: see `Processing.prompt`.

    Returns:
        One text per image, at most ``mllm.max_new_tokens`` tokens long.

    Raises:
        ArtifactNetError: see `Processing.prompt`.
    """
    processing = model.processing
    inputs = processing.prompt(images, questions).to(model.device)
    length = inputs.input_ids.shape[1]
    rule = MapTokens(inputs.grids, length, processing.map_id, processing.forbidden_ids)
    with evaluating(model), torch.no_grad():
        ids = model.causal.generate(
            input_ids=inputs.input_ids,
            attention_mask=inputs.attention_mask,
            pixel_values=inputs.pixel_values,
            logits_processor=[rule],
            max_new_tokens=model.mllm.max_new_tokens,
            do_sample=False,
            eos_token_id=processing.end_id,
            pad_token_id=processing.pad_id,
        )
    return [processing.decode(row[length:]) for row in ids]
