"""Chat tokens of a vision-language model: control words, and batches of prompts and answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from artifactnet.types import ArtifactNetError

IGNORE_INDEX = -100  # label of a token that is not trained on


class ChatProcessing:
    """Tokens of one base model and its chat format.

    Args:
        processor: of the base model.
        marks: special tokens that texts may contain.

    Attributes:
        end_id: token that ends an answer.
        pad_id: token used for padding.
        forbidden_ids: tokens of images and of the chat format, not allowed in an answer.
    """

    def __init__(self, processor: Any, marks: Sequence[str] = ()) -> None:
        self.processor = processor
        tokenizer = processor.tokenizer
        self.end_id = int(tokenizer.eos_token_id)
        self.pad_id = int(
            tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
        )
        # control words of the chat format: inside a text they would break out of it
        special = {t.content: k for k, t in tokenizer.added_tokens_decoder.items() if t.special}
        special |= {t: tokenizer.convert_tokens_to_ids(t) for t in tokenizer.all_special_tokens}
        for mark in marks:
            del special[mark]
        self._control_words = sorted(special, key=len)
        self.forbidden_ids = sorted(set(special.values()) - {self.end_id})

    def check_text(self, text: str, what: str) -> None:
        """Refuse a question or answer that would break out of the chat format.

        Raises:
            ArtifactNetError: it holds a control word; begins with ``what``.
        """
        for word in self._control_words:
            if word in text:
                raise ArtifactNetError(
                    f"{what}: holds {word!r}, a control word of the language model; remove it"
                )

    def remove_control_words(self, text: str) -> str:
        """A generated text without words that would break out of the chat format."""
        while any(word in text for word in self._control_words):  # removing one may make another
            for word in self._control_words:
                text = text.replace(word, "")
        return text

    def tokenize(self, text: str) -> list[int]:
        """Token ids of a text, without special tokens added."""
        ids: list[int] = self.processor.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def pad(
        self, prompts: list[list[int]], answers: list[list[int]]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Ids, mask and labels, all (B, L) int64, padded on the left.

        Answers follow their prompts and become the labels; none of them for prompts only.
        """
        rows = [(prompt, answers[k] if answers else []) for k, prompt in enumerate(prompts)]
        length = max(len(prompt) + len(answer) for prompt, answer in rows)
        shape = (len(rows), length)
        ids = torch.full(shape, self.pad_id, dtype=torch.long)
        mask, labels = torch.zeros(shape, dtype=torch.long), torch.full(shape, IGNORE_INDEX)
        for k, (prompt, answer) in enumerate(rows):
            start = length - len(prompt) - len(answer)
            ids[k, start:] = torch.tensor([*prompt, *answer])
            mask[k, start:] = 1
            if answer:
                labels[k, length - len(answer) :] = torch.tensor(answer)
        return ids, mask, labels

    def trim_answer(self, ids: Tensor) -> list[int]:
        """Generated token ids (L,) up to the end of the answer."""
        tokens: list[int] = ids.tolist()
        for stop in (self.end_id, self.pad_id):
            if stop in tokens:
                tokens = tokens[: tokens.index(stop)]
        return tokens
