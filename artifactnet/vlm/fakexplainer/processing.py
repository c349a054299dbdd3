"""FakeXplainer's chat: prompt, answers and coordinates in the terms of one base model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from PIL import Image

from artifactnet.config import MllmConfig
from artifactnet.types import ArtifactNetError, Region, UInt8Array
from artifactnet.vlm.base import check_family, load_processor
from artifactnet.vlm.fakexplainer import coordinates, grammar, prompts
from artifactnet.vlm.processing import ChatProcessing

_HINT = "fakexplainer must know what a family's coordinates mean"
_BOX_TOKENS = {  # which an answer of the form may hold; tokens of other forms are forbidden
    "qwen": ("<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>", "<|box_end|>"),
    "internvl": ("<ref>", "</ref>", "<box>", "</box>"),
}


class FakexplainerProcessing(ChatProcessing):
    """Prompts, answers and tokens of one base model.

    Args:
        processor: of the base model.
        mllm: ``layout``, ``region_form`` and ``drop`` are used.
        family: ``model_type`` of the base.

    Attributes:
        form: how regions are written: ``json``, ``qwen`` or ``internvl``.
        messages: the prompt as chat messages in the form of transformers, with one image.
        prompt_hash: SHA-256 of them.

    Raises:
        ArtifactNetError: the family has no native form of regions, but it is asked for.
    """

    def __init__(self, processor: Any, mllm: MllmConfig, family: str) -> None:
        self.family = family
        self.form: grammar.Form = _form(mllm, family)
        vocabulary = processor.tokenizer.get_vocab()
        allowed = [token for token in _BOX_TOKENS.get(self.form, ()) if token in vocabulary]
        special = {
            t.content for t in processor.tokenizer.added_tokens_decoder.values() if t.special
        }
        super().__init__(processor, [token for token in allowed if token in special])
        self.drop = cast(grammar.Drop, mllm.drop)
        layout = cast(prompts.Layout, mllm.layout)
        self.messages = prompts.prompt_messages(layout, family, self.drop, self.form)
        self.prompt_hash = prompts.prompt_hash(layout, family, self.drop, self.form)
        # generation needs it, and M-RoPE positions of Qwen crash with padding on the right
        processor.tokenizer.padding_side = "left"
        if processor.tokenizer.pad_token is None:
            processor.tokenizer.pad_token = processor.tokenizer.eos_token
        self._text = processor.apply_chat_template(
            self.messages, tokenize=False, add_generation_prompt=True
        )

    def input_size(self, image_size: tuple[int, int]) -> tuple[int, int]:
        """(width, height) of the coordinates in which the model sees an image of that size.

        Raises:
            ArtifactNetError: the model cannot take an image of this shape.
        """
        if coordinates.rule_of(self.family) != "pixels":
            return coordinates.THOUSANDTHS
        images = self.processor.image_processor
        factor = images.patch_size * images.merge_size
        width, height = image_size
        least, most = images.size["shortest_edge"], images.size["longest_edge"]
        resized = coordinates.smart_resize(height, width, factor, least, most)
        return resized[1], resized[0]

    def answer(
        self,
        is_fake: bool,
        regions: Sequence[Region],
        tags: Sequence[str],
        image_size: tuple[int, int],
    ) -> str:
        """The answer that the model should give; regions are in pixels of the image."""
        size = self.input_size(image_size)
        return grammar.write(is_fake, regions, tags, image_size, size, self.drop, self.form)

    def encode(self, images: Sequence[UInt8Array], answers: Sequence[str] | None = None) -> Any:
        """The prompt about each (H, W, 3) image, and the beginnings of its answer if given.

        Returns:
            What the base model's ``generate`` and ``forward`` take, (B, L) padded on the left.
        """
        answers = [""] * len(images) if answers is None else answers
        return self.processor(
            images=[[Image.fromarray(image)] for image in images],
            text=[self._text + answer for answer in answers],
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


def load_fakexplainer_processing(mllm: MllmConfig) -> FakexplainerProcessing:
    """Prompts and tokens of ``mllm.base``; loads no weights.

    Raises:
        ArtifactNetError: the base cannot be read, or is of a family without a coordinates rule.
    """
    family = check_family(mllm, tuple(coordinates.FAMILIES), _HINT)
    return FakexplainerProcessing(load_processor(mllm), mllm, family)


def _form(mllm: MllmConfig, family: str) -> grammar.Form:
    if mllm.region_form == "json":
        return "json"
    if family.startswith("qwen"):
        return "qwen"
    if family.startswith("internvl"):
        return "internvl"
    raise ArtifactNetError(
        f"mllm.region_form=native: {family} has no box tokens of its own; use json"
    )
