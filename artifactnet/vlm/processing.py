"""From images and texts to what an InternVL takes, and which tiles and tokens belong together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from artifactnet.types import ArtifactNetError, UInt8Array
from artifactnet.vlm.text.chain_of_thought import MAP, SCORE

IGNORED = -100  # label of a token that nobody learns
STRETCHED = 1.5  # a grid that changes an image's aspect ratio by more is worth a warning


@dataclass(slots=True)
class ProcessedInputs:
    """A batch for `artifactnet.vlm.heie.model.HEIE`.

    Attributes:
        input_ids: (B, L) int64, padded on the left.
        attention_mask: (B, L) int64, 0 on padding.
        pixel_values: (T, 3, t, t) float32: of each image its tiles row by row, then its
            thumbnail. An image of one tile has no thumbnail beside it: that tile is both.
        grids: (rows, columns) of each image.
        labels: (B, L) int64: the token where it belongs to the answer, else -100; None for
            prompts.
    """

    input_ids: Tensor
    attention_mask: Tensor
    pixel_values: Tensor
    grids: list[tuple[int, int]]
    labels: Tensor | None = None

    def to(self, device: torch.device | str) -> ProcessedInputs:
        """Copy with its tensors on ``device``."""
        tensors = ("input_ids", "attention_mask", "pixel_values", "labels")
        moved = {k: getattr(self, k) for k in tensors if getattr(self, k) is not None}
        return replace(self, **{k: v.to(device) for k, v in moved.items()})


class Processing:
    """Tiling, prompts and tokens of one base model.

    An image becomes tiles and a thumbnail as InternVL cuts them. A text's mark ``[MAP]`` becomes
    1 + N tokens: one for the thumbnail, then one for each of the N tiles (HEIE Sec. 3.2.2).

    Args:
        processor: of the base model, with ``[MAP]`` and ``[SCORE]`` in its tokenizer.
        max_tiles: most tiles of an image, the thumbnail not counted.
        question: asked of images that come without one.

    Attributes:
        tile: side of a tile, pixels.
        map_id: token of ``[MAP]``.
        score_id: token of ``[SCORE]``.
        end_id: token that ends an answer.
        forbidden_ids: tokens of images and of the chat format that have no place in an answer.
        pad_id: token that fills up.
    """

    def __init__(self, processor: Any, max_tiles: int, question: str) -> None:
        self.processor = processor
        self.max_tiles, self.question = max_tiles, question
        size = processor.image_processor.size
        self.tile = int(size["height"])
        tokenizer = processor.tokenizer
        self.map_id, self.score_id = tokenizer.convert_tokens_to_ids([MAP, SCORE])
        self.end_id = int(tokenizer.eos_token_id)
        self.pad_id = int(
            tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
        )
        # control words of the chat format: written into a text they would break out of it
        special = {t.content: k for k, t in tokenizer.added_tokens_decoder.items() if t.special}
        special |= {t: tokenizer.convert_tokens_to_ids(t) for t in tokenizer.all_special_tokens}
        del special[MAP], special[SCORE]
        self._reserved = sorted(special, key=len)
        self.forbidden_ids = sorted(set(special.values()) - {self.end_id})

    def encode(
        self,
        images: Sequence[UInt8Array],
        texts: Sequence[str],
        questions: Sequence[str | None] | None = None,
    ) -> ProcessedInputs:
        """Question and answer of each image, with labels on the answer.

        Args:
            images: (H, W, 3) sRGB, any sizes.
            texts: answers with exactly one ``[MAP]`` and one ``[SCORE]`` each.
            questions: None asks the default one.

        Raises:
            ArtifactNetError: a text has not just one of each mark, or holds a control word.
        """
        for number, text in enumerate(texts):
            self.check(text, f"text {number}")
            for mark in (MAP, SCORE):
                if text.count(mark) != 1:
                    raise ArtifactNetError(
                        f"text {number}: {mark} must stand in it once, not {text.count(mark)} times"
                    )
        return self._batch(images, questions, texts)

    def prompt(
        self, images: Sequence[UInt8Array], questions: Sequence[str | None] | None = None
    ) -> ProcessedInputs:
        """Question about each image, for a model that shall answer.

        Args:
            images: (H, W, 3) sRGB, any sizes.
            questions: None asks the default one.

        Raises:
            ArtifactNetError: a question holds a control word.
        """
        return self._batch(images, questions, None)

    def decode(self, ids: Tensor) -> str:
        """Text that a model wrote, up to its end; its run of map tokens is one mark again.

        Args:
            ids: (L,) what came after the prompt.
        """
        written = ids.tolist()
        for stop in (self.end_id, self.pad_id):
            if stop in written:
                written = written[: written.index(stop)]
        kept = [
            token
            for k, token in enumerate(written)
            if token not in self.forbidden_ids
            and (token != self.map_id or k == 0 or written[k - 1] != self.map_id)
        ]
        return str(self.processor.tokenizer.decode(kept, skip_special_tokens=False))

    def without_control(self, text: str) -> str:
        """A text that a model wrote, without words that would break out of the chat format."""
        while any(word in text for word in self._reserved):  # removing one may make another
            for word in self._reserved:
                text = text.replace(word, "")
        return text

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """(rows, columns) of tiles into which an image of this size is cut."""
        from transformers.models.got_ocr2.image_processing_got_ocr2 import get_optimal_tiled_canvas

        columns, rows = get_optimal_tiled_canvas(
            (height, width), (self.tile, self.tile), 1, self.max_tiles
        )
        return rows, columns

    def notes(self, height: int, width: int) -> list[str]:
        """What a reader must know of how an image of this size was cut; often nothing."""
        rows, columns = self.grid(height, width)
        stretch = (width / height) / (columns / rows)
        factor = math.exp(abs(math.log(stretch)))
        if factor <= STRETCHED:
            return []
        return [
            f"aspect ratio {width}:{height} is beyond {self.max_tiles} tiles: the image was "
            f"distorted by a factor of {factor:.1f} to fit {rows} x {columns} of them"
        ]

    def check(self, text: str, what: str) -> None:
        """Refuse a text that would break out of the chat format.

        Args:
            text: of a question or an answer.
            what: to call it in the error.

        Raises:
            ArtifactNetError: it holds a control word.
        """
        for word in self._reserved:
            if word in text:
                raise ArtifactNetError(
                    f"{what}: holds {word!r}, a control word of the language model; remove it"
                )

    def _batch(
        self,
        images: Sequence[UInt8Array],
        questions: Sequence[str | None] | None,
        texts: Sequence[str] | None,
    ) -> ProcessedInputs:
        asked = [None] * len(images) if questions is None else list(questions)
        if len(asked) != len(images) or (texts is not None and len(texts) != len(images)):
            raise ValueError("as many questions and texts as images are needed")
        pixels, grids, prompts, answers = [], [], [], []
        for number, (image, question) in enumerate(zip(images, asked, strict=True)):
            tiles, grid = self._tiles(image)
            pixels.append(tiles)
            grids.append(grid)
            if question is not None:
                self.check(question, f"question {number}")
            prompts.append(self._ids(self._prompt(question or self.question, len(tiles))))
            if texts is not None:
                marks = MAP * (1 + grid[0] * grid[1])
                answers.append([*self._ids(texts[number].replace(MAP, marks)), self.end_id])
        ids, mask, labels = self._pad(prompts, answers)
        return ProcessedInputs(ids, mask, torch.cat(pixels), grids, labels if answers else None)

    def _tiles(self, image: UInt8Array) -> tuple[Tensor, tuple[int, int]]:
        """(n, 3, t, t) tiles, row by row, and thumbnail of an image; its grid."""
        found = self.processor.image_processor(
            images=[image],
            crop_to_patches=True,
            min_patches=1,
            max_patches=self.max_tiles,
            input_data_format="channels_last",  # one of three rows would be taken for channels
            return_tensors="pt",
        )
        rows, columns = self.grid(image.shape[0], image.shape[1])
        tiles: Tensor = found["pixel_values"]
        expected = rows * columns + (rows * columns > 1)
        if len(tiles) != expected:
            raise ArtifactNetError(
                f"the base model's processor cut an image of {image.shape[1]}x{image.shape[0]} "
                f"into {len(tiles)} pieces, not {expected}; this transformers is not supported"
            )
        return tiles, (rows, columns)

    def _prompt(self, question: str, pieces: int) -> str:
        content = [{"type": "image"}, {"type": "text", "text": question}]
        text: str = self.processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
        )
        processor = self.processor
        count = processor.image_seq_length * pieces
        shown = processor.start_image_token + processor.image_token * count
        return text.replace(processor.image_token, shown + processor.end_image_token, 1)

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self.processor.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def _pad(
        self, prompts: list[list[int]], answers: list[list[int]]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Ids, mask and labels, all (B, L), padded on the left."""
        rows = [(prompt, answers[k] if answers else []) for k, prompt in enumerate(prompts)]
        length = max(len(prompt) + len(answer) for prompt, answer in rows)
        shape = (len(rows), length)
        ids = torch.full(shape, self.pad_id, dtype=torch.long)
        mask, labels = torch.zeros(shape, dtype=torch.long), torch.full(shape, IGNORED)
        for k, (prompt, answer) in enumerate(rows):
            start = length - len(prompt) - len(answer)
            ids[k, start:] = torch.tensor([*prompt, *answer])
            mask[k, start:] = 1
            if answer:
                labels[k, length - len(answer) :] = torch.tensor(answer)
        return ids, mask, labels
