"""X-AIGD's question and answers with categories in the terms of one base model (App. C.3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from artifactnet.config import MllmConfig
from artifactnet.data.regions import CAPTIONS
from artifactnet.taxonomy import BY_LABEL, Category
from artifactnet.types import ArtifactNetError, Region
from artifactnet.vlm.coordinates import Size, rule_of
from artifactnet.vlm.fakexplainer import grammar
from artifactnet.vlm.image_chat import ImageChat, load_image_chat, question_messages
from artifactnet.vlm.xaigd.prompts import instances_question

DROP: grammar.Drop = "tags"
FORM: grammar.Form = "category"
_BY_CAPTION = {caption: BY_LABEL[label] for label, caption in CAPTIONS.items()}


class PadProcessing(ImageChat):
    """Question, answers and tokens of perceptual artifact detection (PAD).

    Attributes:
        messages: the question as chat messages, that of ``benchmark-xaigd instances``.
    """

    drop = DROP

    def __init__(self, processor: Any, family: str) -> None:
        super().__init__(processor, family)
        self.messages = question_messages(instances_question(rule_of(family) == "pixels"))

    def answer(
        self, is_fake: bool, regions: Sequence[Region], tags: Sequence[str], image_size: Size
    ) -> str:
        """The answer that the model should give; tags are not in it."""
        named = [replace(region, caption=category_of(region).short) for region in regions]
        return grammar.write(
            is_fake, named, (), image_size, self.input_size(image_size), DROP, FORM
        )


def load_pad_processing(mllm: MllmConfig) -> PadProcessing:
    """Question and tokens of ``mllm.base``; raises as `load_image_chat`, loads no weights."""
    chat = load_image_chat(mllm)
    return PadProcessing(chat.processor, chat.family)


def category_of(region: Region) -> Category:
    """The category that a region's caption stands for (`artifactnet.data.regions.CAPTIONS`).

    Raises:
        ArtifactNetError: it stands for none.
    """
    found = _BY_CAPTION.get(region.caption)
    if found is None:
        raise ArtifactNetError(f"region {region.caption!r:.60} is of no category of X-AIGD")
    return found
