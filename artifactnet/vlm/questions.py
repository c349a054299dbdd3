"""Any question about an image, asked of a local model or of one behind an endpoint.

Both answer the same list of `ImageQuestion`; what comes back is text, and of a local model also how
sure it is of Yes.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from artifactnet.config import MllmConfig
from artifactnet.data.images import encode_png
from artifactnet.inference.fingerprint import module_fingerprint
from artifactnet.llm.ask import run_concurrently
from artifactnet.llm.client import Answer, Chat, image_part
from artifactnet.models.state import evaluating
from artifactnet.types import ArtifactNetError, UInt8Array
from artifactnet.vlm import coordinates
from artifactnet.vlm.base import load_base, pin_base
from artifactnet.vlm.coordinates import Size
from artifactnet.vlm.fakexplainer.saving import is_fakexplainer, load_fakexplainer
from artifactnet.vlm.image_chat import (
    ImageChat,
    generate_answers,
    load_image_chat,
    question_messages,
)
from artifactnet.vlm.qreal.prompts import Context
from artifactnet.vlm.qreal.rows import OBJECT
from artifactnet.vlm.tuned_chat import MARKS, is_tuned_chat, load_tuned_chat, read_tuned_chat

YES = ("Yes", "yes", "YES", " Yes", " yes")
NO = ("No", "no", "NO", " No", " no")
MAX_TOKENS = 1024  # of an answer
_YES_NO_TOKENS = 8  # of an answer Yes or No


@dataclass(slots=True)
class ImageQuestion:
    """A question about an image.

    Attributes:
        pixels: (H, W, 3) of what is shown.
        text: of the question.
        yes_no: whether Yes or No is asked for.
    """

    pixels: UInt8Array
    text: str
    yes_no: bool = False

    @property
    def size(self) -> Size:
        """(width, height) of the image."""
        return self.pixels.shape[1], self.pixels.shape[0]


@dataclass(slots=True)
class Written:
    """The answer to one question.

    Attributes:
        text: of the answer; None without one.
        yes: probability of Yes against No in [0, 1]; None where it is unknown or not asked for.
        cut_off: whether the answer reached the limit of its length.
        problem: why there is no answer.
    """

    text: str | None
    yes: float | None = None
    cut_off: bool = False
    problem: ArtifactNetError | None = None


class Answerer(ABC):
    """A vision-language model that is asked questions.

    Attributes:
        name: for tables.
        notices: what must be known before trusting it.
        batch_size: questions that are asked together by default.
        taught_context: of a model that was fine-tuned on Q-Real's questions about entities: what
            it was shown; None: it was not.
    """

    name: str
    notices: tuple[str, ...] = ()
    batch_size: int
    taught_context: Context | None = None

    @property
    @abstractmethod
    def counts_pixels(self) -> bool:
        """Whether its coordinates are pixels of its image, and not from 0 to 1000."""

    @abstractmethod
    def input_size(self, image_size: Size) -> Size:
        """(width, height) of its coordinates for an image of (width, height) pixels.

        Raises:
            ArtifactNetError: it cannot take an image of this shape.
        """

    @abstractmethod
    def fingerprint(self) -> str:
        """Hash of all that decides its answers beside the questions."""

    def check_text(self, text: str, what: str) -> None:  # noqa: B027  # a server's are unknown
        """Refuse a text that would break out of a question.

        Raises:
            ArtifactNetError: it holds a control word of the model; begins with ``what``.
        """

    @abstractmethod
    def ask(self, questions: Sequence[ImageQuestion]) -> list[Written]:
        """Answers to all of some questions, at once; all of them of one kind.

        Raises:
            ArtifactNetError: no question can be answered, or one cannot be asked (`input_size`,
                `check_text`).
        """


class LocalAnswerer(Answerer):
    """A model on this machine, which answers by greedy decoding.

    Args:
        chat: its tokens.
        model: the base, with or without adapters, on the device where it runs.
        name: for tables.
        max_new_tokens: of an answer that is not Yes or No.
        notices, taught_context: see `Answerer`.
    """

    batch_size = 1  # a language model takes far more memory

    def __init__(
        self,
        chat: ImageChat,
        model: Any,
        name: str,
        max_new_tokens: int,
        notices: tuple[str, ...] = (),
        taught_context: Context | None = None,
    ) -> None:
        self.chat, self.model = chat, model
        self.name, self.notices, self.taught_context = name, notices, taught_context
        self.max_new_tokens = max_new_tokens

    @property
    def counts_pixels(self) -> bool:
        """See `Answerer.counts_pixels`."""
        return coordinates.rule_of(self.chat.family) == "pixels"

    def input_size(self, image_size: Size) -> Size:
        """See `Answerer.input_size`."""
        return self.chat.input_size(image_size)

    def fingerprint(self) -> str:
        """See `Answerer.fingerprint`."""
        return module_fingerprint(self.model, f"{self.chat.family} {self.max_new_tokens}")

    def check_text(self, text: str, what: str) -> None:
        """See `Answerer.check_text`."""
        self.chat.check_text(text, what)

    def ask(self, questions: Sequence[ImageQuestion]) -> list[Written]:
        """See `Answerer.ask`."""
        for question in questions:
            self.check_text(question.text, "the question")
            self.input_size(question.size)  # Qwen's processor refuses some shapes without a name
        yes_no = questions[0].yes_no
        texts = [self.chat.render(question_messages(question.text)) for question in questions]
        device = next(self.model.parameters()).device
        with evaluating(self.model), torch.inference_mode():
            inputs = self.chat.encode_chats([question.pixels for question in questions], texts)
            inputs = inputs.to(device, self.model.dtype)
            limit = _YES_NO_TOKENS if yes_no else self.max_new_tokens
            found = generate_answers(self.chat, self.model, inputs, limit, logits=yes_no)
        rows = found.sequences[:, inputs["input_ids"].shape[1] :].tolist()
        written = [Written(self.chat.decode(r), None, self.chat.is_cut_off(r)) for r in rows]
        if yes_no:
            chances = yes_probability(found.logits[0].float(), *yes_no_tokens(self.chat)).tolist()
            for one, chance in zip(written, chances, strict=True):
                if not math.isfinite(chance):
                    raise ArtifactNetError(f"{self.name}: the model's answer is not a number (NaN)")
                one.yes = chance
        return written


class EndpointAnswerer(Answerer):
    """A model behind an OpenAI-compatible endpoint, asked several questions at a time.

    It is not asked how sure it is: interfaces give the likelihoods of a few tokens at most, and
    many give none. A question to which no answer comes has a `Written.problem`.

    Args:
        chat: the model.
        family: ``model_type`` of its checkpoint, a key of `coordinates.FAMILIES`, or None: its
            coordinates go from 0 to 1000.
        max_tokens: of an answer.
        max_pixels: limit to which the server resizes images, for a family that counts pixels.

    Raises:
        ArtifactNetError: the family's coordinates are unknown.
    """

    batch_size = 8

    def __init__(
        self,
        chat: Chat,
        family: str | None,
        max_tokens: int,
        max_pixels: int = coordinates.QWEN_PIXELS[1],
    ) -> None:
        self._pixels = family is not None and coordinates.rule_of(family) == "pixels"
        self._chat, self._family = chat, family
        self._max_tokens, self._limits = max_tokens, (coordinates.QWEN_PIXELS[0], max_pixels)
        self.name = chat.model

    @property
    def counts_pixels(self) -> bool:
        """See `Answerer.counts_pixels`."""
        return self._pixels

    def input_size(self, image_size: Size) -> Size:
        """See `Answerer.input_size`."""
        if not self._pixels:
            return coordinates.THOUSANDTHS
        return coordinates.qwen_input_size(image_size, self._limits)

    def fingerprint(self) -> str:
        """See `Answerer.fingerprint`."""
        about = (self._chat.endpoint.base_url, self._chat.model, self._family, self._max_tokens)
        return module_fingerprint(None, f"{about} {self._limits}")

    def ask(self, questions: Sequence[ImageQuestion]) -> list[Written]:
        """See `Answerer.ask`."""
        written: list[Written] = []

        def take(_: ImageQuestion, outcome: Answer | ArtifactNetError) -> None:
            if isinstance(outcome, ArtifactNetError):
                written.append(Written(None, problem=outcome))
            elif outcome.text.strip():
                # an answer may be in the form that has its boxes in <think>
                text = outcome.with_reasoning
                written.append(Written(text, None, outcome.finish == "length"))
            else:
                why = outcome.finish or "no reason given"
                problem = ArtifactNetError(f"the server answered without a word ({why})")
                written.append(Written(None, problem=problem))

        limiters = [self._chat.limiter]
        run_concurrently(questions, self._ask, take, len(questions), limiters)
        return written

    def _ask(self, question: ImageQuestion) -> Answer:
        parts = [
            image_part(encode_png(question.pixels), "png"),
            {"type": "text", "text": question.text},
        ]
        message = {"role": "user", "content": parts}
        return self._chat.ask([message], 0.0, max_tokens=self._max_tokens)


def yes_probability(logits: Tensor, yes: Sequence[int], no: Sequence[int]) -> Tensor:
    """Probability of Yes against No from the logits of an answer's first token, in [0, 1].

    Each side is the log-sum-exp over its tokens (our reading of Q-Real's AUC).

    Args:
        logits: (..., V).
        yes: tokens that begin Yes.
        no: tokens that begin No.

    Returns:
        (...).
    """
    sides = [logits[..., list(side)].logsumexp(-1) for side in (yes, no)]
    return (sides[0] - sides[1]).sigmoid()


def yes_no_tokens(chat: ImageChat) -> tuple[list[int], list[int]]:
    """Tokens of Yes and of No: those of `YES` and `NO` that are one token.

    Raises:
        ArtifactNetError: one side has none.
    """
    sides = []
    for words in (YES, NO):
        tokens = [chat.tokenize(word) for word in words]
        single = sorted({token[0] for token in tokens if len(token) == 1})
        if not single:
            raise ArtifactNetError(
                f"the model's tokenizer has no single token for {words[0]}, so it cannot be said "
                "how sure the model is"
            )
        sides.append(single)
    return sides[0], sides[1]


def load_answerer(
    model: str | Path,
    device: str | torch.device,
    max_new_tokens: int | None = None,
    revision: str | None = None,
) -> LocalAnswerer:
    """A vision-language model on this machine, ready to answer.

    Args:
        model: name or folder of a checkpoint for transformers, or folder of a run of ours.
        device: where it runs.
        max_new_tokens: of an answer; None: `MAX_TOKENS`, or what a run learned if that is more.
        revision: commit, tag or branch of a checkpoint given by name.

    Raises:
        ArtifactNetError: it cannot be loaded, its coordinates are unknown, or a folder is given
            with a revision.
    """
    if revision is not None and Path(model).is_dir():
        raise ArtifactNetError(f"{model}: is a folder, which has no revision {revision}")
    if is_fakexplainer(model):
        trained = load_fakexplainer(model, device)
        chat: ImageChat = trained.processing
        limit = max_new_tokens or max(MAX_TOKENS, trained.mllm.max_new_tokens)
        return LocalAnswerer(chat, trained.model, str(model), limit, trained.notices)
    if is_tuned_chat(model):
        chat, base, mllm = load_tuned_chat(model, device)
        notices = tuple(read_tuned_chat(model)[1]["notices"])
        taught: Context | None = None
        if mllm.task == OBJECT:
            taught = "image" if mllm.context == "image" else "crop"
        limit = max_new_tokens or max(MAX_TOKENS, mllm.max_new_tokens)
        return LocalAnswerer(chat, base, str(model), limit, notices, taught)
    mllm = MllmConfig(base=str(model), revision=revision)
    chat = load_image_chat(mllm, MARKS)
    base = load_base(mllm, len(chat.processor.tokenizer), device).eval()
    pinned = pin_base(mllm, base)
    named = str(model) if pinned.revision is None else f"{model}@{pinned.revision}"
    return LocalAnswerer(chat, base, named, max_new_tokens or MAX_TOKENS)
