"""Chats about images with any supported family of models: their tokens, and what is written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from artifactnet.config import MllmConfig
from artifactnet.types import UInt8Array
from artifactnet.vlm import coordinates
from artifactnet.vlm.base import check_family, load_processor
from artifactnet.vlm.coordinates import Size
from artifactnet.vlm.processing import ChatProcessing

_HINT = "it must be known what a family's coordinates mean"


class ImageChat(ChatProcessing):
    """Tokens, coordinates and chat format of one base model.

    Args:
        processor: of the base model; it will pad on the left.
        family: ``model_type`` of the base, a key of `coordinates.FAMILIES`.
        marks: special tokens that answers may contain.
    """

    def __init__(self, processor: Any, family: str, marks: Sequence[str] = ()) -> None:
        self.family = family
        super().__init__(processor, marks)
        # generation needs it, and M-RoPE positions of Qwen crash with padding on the right
        processor.tokenizer.padding_side = "left"
        if processor.tokenizer.pad_token is None:
            processor.tokenizer.pad_token = processor.tokenizer.eos_token

    def input_size(self, image_size: Size) -> Size:
        """(width, height) of the coordinates in which the model sees an image of that size.

        Raises:
            ArtifactNetError: the model cannot take an image of this shape.
        """
        self.check_shape(image_size)
        if coordinates.rule_of(self.family) != "pixels":
            return coordinates.THOUSANDTHS
        return self._qwen_size(image_size)

    def check_shape(self, image_size: Size) -> None:
        """Refuse an image of (width, height) pixels of which the processor would make an error.

        Raises:
            ArtifactNetError: one side is more than 200 times the other, which no Qwen takes.
        """
        if self.family.startswith("qwen"):
            self._qwen_size(image_size)

    def _qwen_size(self, image_size: Size) -> Size:
        images = self.processor.image_processor
        limits = images.size["shortest_edge"], images.size["longest_edge"]
        return coordinates.qwen_input_size(
            image_size, limits, images.patch_size * images.merge_size
        )

    def render(self, messages: Sequence[dict[str, Any]]) -> str:
        """Messages of transformers as the text that an answer follows."""
        text: str = self.processor.apply_chat_template(
            list(messages), tokenize=False, add_generation_prompt=True
        )
        return text

    def encode_chats(self, images: Sequence[UInt8Array], texts: Sequence[str]) -> Any:
        """Rendered chats, one about each (H, W, 3) image.

        Returns:
            What the base model's ``generate`` and ``forward`` take, (B, L) padded on the left.
        """
        return self.processor(
            images=[[Image.fromarray(image)] for image in images],
            text=list(texts),
            padding=True,
            padding_side="left",
            return_tensors="pt",
            add_special_tokens=False,  # the chat template has written them
        )

    def decode(self, ids: Sequence[int]) -> str:
        """Text of generated token ids up to their end.

        Special tokens are kept: a native form writes boxes with them, and skipping them would
        delete the boxes.
        """
        kept = []
        for token in ids:
            if token in (self.end_id, self.pad_id):
                break
            kept.append(int(token))
        return str(self.processor.tokenizer.decode(kept, skip_special_tokens=False))

    def is_cut_off(self, ids: Sequence[int]) -> bool:
        """Whether generated token ids have no end: they reached the limit of their length."""
        return not {self.end_id, self.pad_id} & set(map(int, ids))


def question_messages(text: str) -> list[dict[str, Any]]:
    """A question about one image as chat messages of transformers."""
    content = [{"type": "image"}, {"type": "text", "text": text}]
    return [{"role": "user", "content": content}]


def load_image_chat(mllm: MllmConfig, marks: Sequence[str] = ()) -> ImageChat:
    """Tokens and chat format of ``mllm.base``; loads no weights.

    ``marks`` are special tokens that answers may contain; those that the base lacks are left out.

    Raises:
        ArtifactNetError: the base cannot be read, or is of a family without a coordinates rule.
    """
    family = check_family(mllm, tuple(coordinates.FAMILIES), _HINT)
    processor = load_processor(mllm)
    return ImageChat(processor, family, special_tokens(processor, marks))


def special_tokens(processor: Any, names: Sequence[str]) -> list[str]:
    """Which of some names are special tokens of a processor."""
    special = {t.content for t in processor.tokenizer.added_tokens_decoder.values() if t.special}
    return [name for name in names if name in special]


class Sampling:
    """Logits processor with which greedy decoding draws tokens from the whole distribution.

    With Gumbel noise added to the logits, each token has the largest one with its probability
    (Gumbel-max). Each row has a generator of its own, so that an answer does not depend on the
    others of its batch.

    Args:
        temperature: above 0; divides the logits.
        seeds: one for each row.
    """

    def __init__(self, temperature: float, seeds: Sequence[int]) -> None:
        self._temperature = temperature
        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """(B, V) scores of the next token, with noise."""
        size = scores.shape[1]
        drawn = [torch.empty(size).exponential_(generator=each) for each in self._generators]
        noise = torch.stack(drawn).clamp_min(1e-30).log()  # of 0 it would be infinite
        return scores.float() / self._temperature - noise.to(scores.device)


def generate_answers(
    chat: ImageChat,
    model: Any,
    inputs: Any,
    max_new_tokens: int,
    logits: bool = False,
    sampling: Sampling | None = None,
) -> Any:
    """What ``model.generate`` returns, whatever the base's own settings are.

    Args:
        chat: of the model.
        model: the base, with or without adapters.
        inputs: of `ImageChat.encode_chats`, on the model's device.
        max_new_tokens: at which an answer is cut off.
        logits: keep them, which takes gigabytes for long answers.
        sampling: None: greedy decoding.

    Returns:
        ``sequences`` (B, L + new) with the prompts, and ``logits``: (B, V) for each new token,
        before any token is forbidden; None if they are not kept.
    """
    return model.generate(
        **inputs,
        max_new_tokens=max_new_tokens,
        suppress_tokens=chat.forbidden_ids,
        eos_token_id=chat.end_id,
        pad_token_id=chat.pad_id,
        do_sample=False,
        num_beams=1,
        repetition_penalty=1.0,
        temperature=None,
        top_p=None,
        top_k=None,
        logits_processor=None if sampling is None else [sampling],
        return_dict_in_generate=True,
        output_logits=logits,
    )
