"""FakeXplainer's chat: prompt, answers and coordinates in the terms of one base model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from artifactnet.config import MllmConfig
from artifactnet.types import ArtifactNetError, Region, UInt8Array
from artifactnet.vlm import boxes, coordinates
from artifactnet.vlm.base import check_family, load_processor
from artifactnet.vlm.fakexplainer import grammar, prompts
from artifactnet.vlm.image_chat import ImageChat, special_tokens

_HINT = "fakexplainer must know what a family's coordinates mean"
# which an answer of the form may hold; tokens of other forms are forbidden
_BOX_TOKENS = {"qwen": boxes.QWEN, "internvl": boxes.INTERNVL}


class FakexplainerProcessing(ImageChat):
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
        self.form: grammar.Form = _form(mllm, family)
        marks = special_tokens(processor, _BOX_TOKENS.get(self.form, ()))
        super().__init__(processor, family, marks)
        self.drop = cast(grammar.Drop, mllm.drop)
        layout = cast(prompts.Layout, mllm.layout)
        self.messages = prompts.prompt_messages(layout, family, self.drop, self.form)
        self.prompt_hash = prompts.prompt_hash(layout, family, self.drop, self.form)
        self._text = self.render(self.messages)

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
        return self.encode_chats(images, [self._text + answer for answer in answers])


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
