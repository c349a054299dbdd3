"""A trained FakeXplainer's predictions: it writes an answer, which is then read leniently."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from pathlib import Path

import torch

from artifactnet.inference.base import PredictOptions
from artifactnet.inference.inputs import Failure
from artifactnet.models.state import evaluating
from artifactnet.types import Prediction, UInt8Array
from artifactnet.vlm.coordinates import Size
from artifactnet.vlm.fakexplainer.answering import (
    CLOSING,
    CUT_OFF,
    WORDS,
    AnswerPredictor,
    Question,
    before_verdict,
    verdict_probability,
)
from artifactnet.vlm.fakexplainer.saving import Fakexplainer, load_fakexplainer
from artifactnet.vlm.image_chat import Sampling, generate_answers


class FakexplainerPredictor(AnswerPredictor):
    """Answers about images, at most ``mllm.max_new_tokens`` long.

    They come from greedy decoding, or with ``mllm.temperature`` above 0 are sampled: one answer
    for each image, with a seed made of its pixels.

    It looks at whole images and draws its own boxes: it takes neither ``tiles`` nor masks files.

    Args:
        trained: the model, on the device where it should run; without training, any base.
    """

    default_batch_size = 1  # a language model takes far more memory

    def __init__(self, trained: Fakexplainer) -> None:
        self.trained, self.model = trained, trained.model
        self.processing = trained.processing
        self.drop, self.form = self.processing.drop, self.processing.form
        self.warnings: tuple[str, ...] = trained.notices
        if trained.mllm.temperature:
            self.warnings += (f"answers are sampled at temperature {trained.mllm.temperature}",)
        # what its answers depend on beside weights and warnings, for `model_fingerprint`
        self.mode = f"{self.processing.messages} {trained.mllm.max_new_tokens}"

    def input_size(self, image_size: Size) -> Size:
        """See `AnswerPredictor.input_size`."""
        return self.processing.input_size(image_size)

    def _answer_batch(
        self, batch: list[Question], options: PredictOptions
    ) -> Iterator[Prediction | Failure]:
        images = [question.pixels for question in batch]
        with evaluating(self.model), torch.inference_mode():  # a tokenizer serves one thread
            texts, cut_off = self._write(images)
            likelihoods = [self._judge(*each) for each in zip(images, texts, strict=True)]
        for question, text, cut, each in zip(batch, texts, cut_off, likelihoods, strict=True):
            if each is not None and not all(map(math.isfinite, each)):
                yield Failure(question.name, "the model's answer is not a number (NaN)")
                continue
            probability = None if each is None else verdict_probability(each[1], each[0])
            notes = (CUT_OFF,) if cut else ()
            yield self._prediction(question, text, probability, notes, options)

    def _write(self, images: Sequence[UInt8Array]) -> tuple[list[str], list[bool]]:
        """An answer about each image, and whether it reached the limit of its length."""
        processing = self.processing
        inputs = processing.encode(images).to(self.trained.device, self.model.dtype)
        mllm, sampling = self.trained.mllm, None
        if mllm.temperature:
            sampling = Sampling(mllm.temperature, [_seed(image) for image in images])
        limit = mllm.max_new_tokens
        ids = generate_answers(processing, self.model, inputs, limit, sampling=sampling).sequences
        rows = ids[:, inputs["input_ids"].shape[1] :].tolist()
        return [processing.decode(row) for row in rows], [processing.is_cut_off(r) for r in rows]

    def _judge(self, image: UInt8Array, text: str) -> tuple[float, float] | None:
        """Log-likelihoods of both verdicts, of `WORDS`, after the same answer; None without one.

        Both answers are read as texts, so that their tokens are those of training. What they begin
        with is common to both, and only what differs is counted.
        """
        head = before_verdict(self.processing.remove_control_words(text))
        if head is None:
            return None
        answers = [f"{head}{word}{CLOSING}" for word in WORDS]
        inputs = self.processing.encode([image] * len(answers), answers)
        ids, mask = inputs["input_ids"], inputs["attention_mask"]
        rows = [row[kept.bool()].tolist() for row, kept in zip(ids, mask, strict=True)]
        shared = next(k for k, (a, b) in enumerate(zip(*rows, strict=False)) if a != b)
        counts = [len(row) - shared for row in rows]
        inputs = inputs.to(self.trained.device, self.model.dtype)
        logits = self.model(**inputs, logits_to_keep=max(counts) + 1).logits.float()
        likelihoods = logits.log_softmax(-1)
        sums = []
        for row, tokens, count in zip(likelihoods, rows, counts, strict=True):
            expected = torch.tensor(tokens[-count:], device=row.device)
            # the state at a place predicts the token behind it
            sums.append(float(row[-count - 1 : -1].gather(1, expected[:, None]).sum()))
        return sums[0], sums[1]


def _seed(image: UInt8Array) -> int:
    return int.from_bytes(blake2b(image.tobytes(), digest_size=7).digest(), "big")


def load_fakexplainer_predictor(
    folder: str | Path, device: str | torch.device = "cpu"
) -> FakexplainerPredictor:
    """A saved FakeXplainer, ready to predict; `artifactnet.load_model` chooses the device, too.

    Raises:
        ArtifactNetError: see `load_fakexplainer`.
    """
    return FakexplainerPredictor(load_fakexplainer(folder, device))
