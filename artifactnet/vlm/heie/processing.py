"""HEIE's inputs: images as InternVL's tiles, texts as tokens, and which of them belong together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from artifactnet.config import HeatmapConfig, MllmConfig
from artifactnet.types import ArtifactNetError, UInt8Array
from artifactnet.vlm.base import check_family, load_processor
from artifactnet.vlm.processing import ChatProcessing
from artifactnet.vlm.text.chain_of_thought import MAP, MARKS, SCORE

FAMILIES = ("internvl",)  # `model_type` of the bases that HEIE can be built on
_HINT = "HEIE takes InternVL checkpoints for transformers, whose names end in -hf"
_MAX_DISTORTION = 1.5  # change of an image's aspect ratio that needs no warning


@dataclass(slots=True)
class HeieInputs:
    """A batch for `artifactnet.vlm.heie.model.HEIE`.

    Attributes:
        input_ids: (B, L) int64, padded on the left.
        attention_mask: (B, L) int64, 0 on padding.
        pixel_values: (T, 3, t, t) float32: of each image its tiles row by row, then its
            thumbnail. An image of one tile has no separate thumbnail: that tile is both.
        grids: (rows, columns) of each image.
        labels: (B, L) int64: the token where it belongs to the answer, else -100; None for prompts.
    """

    input_ids: Tensor
    attention_mask: Tensor
    pixel_values: Tensor
    grids: list[tuple[int, int]]
    labels: Tensor | None = None

    def to(self, device: torch.device | str) -> HeieInputs:
        """Copy with its tensors on ``device``."""
        tensors = ("input_ids", "attention_mask", "pixel_values", "labels")
        moved = {k: getattr(self, k) for k in tensors if getattr(self, k) is not None}
        return replace(self, **{k: v.to(device) for k, v in moved.items()})


class HeieProcessing(ChatProcessing):
    """Tiling, prompts and tokens.

    An image becomes tiles and a thumbnail as InternVL cuts them. A text's mark ``[MAP]`` becomes
    1 + N tokens: one for the thumbnail, then one for each of the N tiles (HEIE Sec. 3.2.2).

    Args:
        processor: of the base model, with ``[MAP]`` and ``[SCORE]`` in its tokenizer.
        max_tiles: maximum number of tiles of an image, the thumbnail not counted.
        question: for images that come without one.

    Attributes:
        tile: side of a tile, pixels.
        map_id, score_id: tokens of ``[MAP]`` and ``[SCORE]``.
    """

    def __init__(self, processor: Any, max_tiles: int, question: str) -> None:
        super().__init__(processor, MARKS)
        self.max_tiles, self.question = max_tiles, question
        self.tile = int(processor.image_processor.size["height"])
        self.map_id, self.score_id = processor.tokenizer.convert_tokens_to_ids([MAP, SCORE])

    def encode(
        self,
        images: Sequence[UInt8Array],
        texts: Sequence[str],
        questions: Sequence[str | None] | None = None,
    ) -> HeieInputs:
        """Question (None: the default one) and answer of each (H, W, 3) image, the latter labelled.

        Raises:
            ArtifactNetError: a text does not have exactly one of each mark, or a text or question
                holds a control word.
        """
        for number, text in enumerate(texts):
            self.check_text(text, f"text {number}")
            for mark in MARKS:
                if text.count(mark) != 1:
                    raise ArtifactNetError(
                        f"text {number}: needs {mark} once, but has it {text.count(mark)} times"
                    )
        return self._batch(images, questions, texts)

    def prompt(
        self, images: Sequence[UInt8Array], questions: Sequence[str | None] | None = None
    ) -> HeieInputs:
        """Question (None: the default one) about each (H, W, 3) image, for generation.

        Raises:
            ArtifactNetError: a question holds a control word.
        """
        return self._batch(images, questions, None)

    def decode(self, ids: Tensor) -> str:
        """Text of generated ids (L,) up to its end; the run of map tokens is one mark again."""
        tokens = self.trim_answer(ids)
        kept = [
            token
            for k, token in enumerate(tokens)
            if token not in self.forbidden_ids
            and (token != self.map_id or k == 0 or tokens[k - 1] != self.map_id)
        ]
        return str(self.processor.tokenizer.decode(kept, skip_special_tokens=False))

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """(rows, columns) of tiles into which an image of this size is cut."""
        from transformers.models.got_ocr2.image_processing_got_ocr2 import get_optimal_tiled_canvas

        columns, rows = get_optimal_tiled_canvas(
            (height, width), (self.tile, self.tile), 1, self.max_tiles
        )
        return rows, columns

    def tiling_warnings(self, height: int, width: int) -> list[str]:
        """What a reader should know about how an image of this size is cut; usually nothing."""
        rows, columns = self.grid(height, width)
        distortion = math.exp(abs(math.log((width / height) / (columns / rows))))
        if distortion <= _MAX_DISTORTION:
            return []
        return [
            f"aspect ratio {width}:{height} does not fit into {self.max_tiles} tiles: the image "
            f"was distorted by a factor of {distortion:.1f} to {rows} x {columns} tiles"
        ]

    def _batch(
        self,
        images: Sequence[UInt8Array],
        questions: Sequence[str | None] | None,
        texts: Sequence[str] | None,
    ) -> HeieInputs:
        questions = [None] * len(images) if questions is None else questions
        if len(questions) != len(images) or (texts is not None and len(texts) != len(images)):
            raise ValueError("need one question and one text for each image")
        pixels, grids, prompts, answers = [], [], [], []
        for number, (image, question) in enumerate(zip(images, questions, strict=True)):
            tiles, grid = self._tiles(image)
            pixels.append(tiles)
            grids.append(grid)
            if question is not None:
                self.check_text(question, f"question {number}")
            prompts.append(self.tokenize(self._prompt(question or self.question, len(tiles))))
            if texts is not None:
                marks = MAP * (1 + grid[0] * grid[1])
                answers.append([*self.tokenize(texts[number].replace(MAP, marks)), self.end_id])
        ids, mask, labels = self.pad(prompts, answers)
        return HeieInputs(ids, mask, torch.cat(pixels), grids, labels if answers else None)

    def _tiles(self, image: UInt8Array) -> tuple[Tensor, tuple[int, int]]:
        """(n, 3, t, t) tiles, row by row, and thumbnail of an image; its grid."""
        pieces = self.processor.image_processor(
            images=[image],
            crop_to_patches=True,
            min_patches=1,
            max_patches=self.max_tiles,
            input_data_format="channels_last",  # an image of three rows would pass for channels
            return_tensors="pt",
        )
        rows, columns = self.grid(image.shape[0], image.shape[1])
        tiles: Tensor = pieces["pixel_values"]
        expected = rows * columns + (rows * columns > 1)
        if len(tiles) != expected:
            raise ArtifactNetError(
                f"the base model's processor cut an image of {image.shape[1]}x{image.shape[0]} "
                f"into {len(tiles)} pieces, not {expected}; this transformers is not supported"
            )
        return tiles, (rows, columns)

    def _prompt(self, question: str, pieces: int) -> str:
        processor = self.processor
        content = [{"type": "image"}, {"type": "text", "text": question}]
        text: str = processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
        )
        tokens = processor.image_token * (processor.image_seq_length * pieces)
        image = processor.start_image_token + tokens + processor.end_image_token
        return text.replace(processor.image_token, image, 1)


def load_heie_processing(mllm: MllmConfig, heatmap: HeatmapConfig) -> HeieProcessing:
    """Processing of a HEIE on a base model; loads no weights.

    Raises:
        ArtifactNetError: the base cannot be used, or ``model.heatmap.tile`` is not its tile size.
    """
    check_family(mllm, FAMILIES, _HINT)
    processor = load_processor(mllm, MARKS)
    processing = HeieProcessing(processor, heatmap.max_tiles, mllm.question)
    if heatmap.tile != processing.tile:
        raise ArtifactNetError(
            f"model.heatmap.tile={heatmap.tile}, but {mllm.base} takes tiles of "
            f"{processing.tile} pixels: set model.heatmap.tile={processing.tile} and "
            f"model.image_size=[{processing.tile}, {processing.tile}]"
        )
    return processing
