"""FakeXplainer's question to a model behind an OpenAI-compatible endpoint, such as vLLM's.

The model is asked as a local one is, with the same prompt and the same parser. Nothing is removed
from its answer: what stands inside ``<think>`` are the regions. A server that takes the model's
thoughts out of the answer (a "reasoning parser") gets them put back.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Sequence
from typing import Any

from artifactnet.data.images import encode_png
from artifactnet.inference.base import PredictOptions
from artifactnet.inference.inputs import Failure
from artifactnet.llm.ask import run_concurrently
from artifactnet.llm.client import (
    KEY_VARIABLE,
    Answer,
    Chat,
    Endpoint,
    LogprobsError,
    Message,
    Token,
    image_part,
)
from artifactnet.llm.server_watch import ServerWatch
from artifactnet.types import ArtifactNetError, Prediction
from artifactnet.vlm import coordinates
from artifactnet.vlm.coordinates import Size
from artifactnet.vlm.fakexplainer import grammar, prompts
from artifactnet.vlm.fakexplainer.answering import (
    CLOSING,
    CUT_OFF,
    OPENING,
    WORDS,
    AnswerPredictor,
    Question,
    verdict_probability,
)

NO_LIKELIHOOD = (
    "the server gave no likelihood of the verdict: probability is 1 for generated and 0 for real"
)
MAX_TOKENS = 1024  # of an answer, by default; as in the recipes
_CHOICES = 20  # the most that OpenAI's interface gives


class EndpointPredictor(AnswerPredictor):
    """Answers of a model behind an endpoint, ``batch_size`` images asked about at a time.

    An image to which no answer comes is a `Failure`; a wrong key, URL or model ends the work. The
    probability is taken from the likelihoods of the verdict's first token, if the server gives
    them, else it is 1 or 0.

    Args:
        chat: the model.
        family: ``model_type`` of its checkpoint, a key of `coordinates.FAMILIES`, which says what
            its coordinates mean.
        layout: where the task is described, see `prompts.prompt_messages`.
        drop: what its answers lack (Table 4).
        max_tokens: of an answer.
        min_pixels: with which the server resizes images, for a family that counts pixels.
        max_pixels: likewise.

    Raises:
        ArtifactNetError: the family's coordinates are unknown, or a number is out of range.
    """

    default_batch_size = 8

    def __init__(
        self,
        chat: Chat,
        family: str,
        *,
        layout: prompts.Layout = "user",
        drop: grammar.Drop = "none",
        max_tokens: int = MAX_TOKENS,
        min_pixels: int = coordinates.QWEN_PIXELS[0],
        max_pixels: int = coordinates.QWEN_PIXELS[1],
    ) -> None:
        self._rule = coordinates.rule_of(family)
        if max_tokens < 1 or not 1 <= min_pixels <= max_pixels:
            raise ArtifactNetError(
                f"max_tokens={max_tokens} must be 1 or more, and min_pixels={min_pixels} between 1 "
                f"and max_pixels={max_pixels}"
            )
        self.chat, self.drop = chat, drop
        self._messages = prompts.prompt_messages(layout, family, drop)
        self._max_tokens, self._limits = max_tokens, (min_pixels, max_pixels)
        self._likelihoods = True  # until the server refuses them
        self._watch = ServerWatch("images")
        self._lock = threading.Lock()
        about = (chat.endpoint.base_url, chat.model, family, self._messages, max_tokens)
        self.mode = f"{about} {self._limits}"  # for `model_fingerprint`

    def input_size(self, image_size: Size) -> Size:
        """See `AnswerPredictor.input_size`."""
        if self._rule != "pixels":
            return coordinates.THOUSANDTHS
        return coordinates.qwen_input_size(image_size, self._limits)

    def _answer_batch(
        self, batch: list[Question], options: PredictOptions
    ) -> Iterator[Prediction | Failure]:
        answers: list[Prediction | Failure] = []

        def take(question: Question, outcome: Answer | ArtifactNetError) -> None:
            if isinstance(outcome, ArtifactNetError):
                answers.append(Failure(question.name, str(outcome)))
                self._watch.failed(outcome)
            else:
                answers.append(self._read(question, outcome, options))
                self._watch.answered()

        run_concurrently(batch, self._ask, take, options.batch_size, [self.chat.limiter])
        yield from answers

    def _ask(self, question: Question) -> Answer:
        messages = self._conversation(encode_png(question.pixels))
        if self._likelihoods:
            try:
                return self.chat.ask(messages, 0.0, max_tokens=self._max_tokens, logprobs=_CHOICES)
            except LogprobsError:
                with self._lock:
                    self._likelihoods = False  # every prediction says so, see `_read`
        return self.chat.ask(messages, 0.0, max_tokens=self._max_tokens)

    def _conversation(self, png: bytes) -> list[Message]:
        """The prompt as the interface takes it, with the image."""
        found: list[Message] = []
        for message in self._messages:
            parts: list[dict[str, Any]] = [
                image_part(png, "png") if part["type"] == "image" else part
                for part in message["content"]
            ]
            only = parts[0]["text"] if len(parts) == 1 and parts[0]["type"] == "text" else parts
            found.append({"role": message["role"], "content": only})
        return found

    def _read(
        self, question: Question, answer: Answer, options: PredictOptions
    ) -> Prediction | Failure:
        text = answer.with_reasoning
        if not text.strip():
            why = answer.finish or "no reason given"
            return Failure(question.name, f"the server answered without a word ({why})")
        notes: tuple[str, ...] = (CUT_OFF,) if answer.finish == "length" else ()
        probability = first_token_probability(answer.tokens)
        if probability is None:
            notes += (NO_LIKELIHOOD,)
        return self._prediction(question, text, probability, notes, options)


def first_token_probability(tokens: Sequence[Token]) -> float | None:
    """Probability of the verdict ``generated`` against ``real``, from likelihoods of tokens.

    It is that of the first token behind ``<verdict>`` that begins one word or the other; a word
    that none of the given choices begins counts as impossible.

    Args:
        tokens: of the whole answer.

    Returns:
        In [0, 1]; None where no choice begins a verdict, or there is none.
    """
    text = ""
    for token in tokens:
        before, text = text, text + token.text
        start = text.find(OPENING)
        if start < 0 or not text[start + len(OPENING) :].strip():
            continue
        end = start + len(OPENING)
        likelihoods = [
            [
                likelihood
                for choice, likelihood in token.choices.items()
                if (before + choice)[:end] == text[:end] and _begins(word, (before + choice)[end:])
            ]
            for word in WORDS
        ]
        real, generated = map(_total, likelihoods)
        if max(real, generated) == -math.inf:
            return None
        return verdict_probability(generated, real)
    return None


def _begins(word: str, rest: str) -> bool:
    """Whether a text begins a verdict, or is one with what follows."""
    rest, whole = rest.lstrip().lower(), word + CLOSING
    return bool(rest) and (whole.startswith(rest) or rest.startswith(word))


def _total(likelihoods: Sequence[float]) -> float:
    """Log-likelihood of any of several tokens; -inf of none."""
    total = math.fsum(math.exp(value) for value in likelihoods)
    return math.log(total) if total > 0 else -math.inf


def load_endpoint(
    url: str,
    model: str,
    family: str,
    *,
    layout: prompts.Layout = "user",
    drop: grammar.Drop = "none",
    max_tokens: int = MAX_TOKENS,
    max_pixels: int = coordinates.QWEN_PIXELS[1],
    key_variable: str = KEY_VARIABLE,
) -> EndpointPredictor:
    """A vision-language model behind an OpenAI-compatible endpoint, ready to predict.

    Args:
        url: up to and including the version: ``http://localhost:8000/v1``.
        model: its name there.
        family, layout, drop, max_tokens, max_pixels: see `EndpointPredictor`.
        key_variable: environment variable with the API key.

    Raises:
        ArtifactNetError: the URL is not one, the key is unset, the family's coordinates are
            unknown, or the package openai is missing. The server is not asked yet.
    """
    chat = Chat(Endpoint(url, key_variable), model)
    return EndpointPredictor(
        chat, family, layout=layout, drop=drop, max_tokens=max_tokens, max_pixels=max_pixels
    )
