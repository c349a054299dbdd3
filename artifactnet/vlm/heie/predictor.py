"""HEIE's answers about images: text, heatmap, deviation and score, at the image's own size."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from artifactnet.config import MllmConfig
from artifactnet.inference.base import BasePredictor, PredictOptions, need_answer
from artifactnet.inference.inputs import Failure, ImageLike, OpenedImage, open_image
from artifactnet.models.heads.decoder import HeatmapOutput
from artifactnet.models.state import evaluating, exclusive
from artifactnet.types import ArtifactNetError, Float32Array, Prediction, UInt8Array
from artifactnet.vlm.heie.model import HEIE, generate_texts
from artifactnet.vlm.heie.saving import load_heie
from artifactnet.vlm.text.chain_of_thought import parse_cot, parse_rationale, repair_cot
from artifactnet.vlm.text.template import TEMPLATE

MODES = ("generate", "template")
_NO_VERDICT = "HEIE judges how plausible an image is, not who made it: probability is 1 - score"
_NO_TEXT = "no text was generated: heatmap and score were read from a fixed one (mode template)"


@dataclass(slots=True)
class _Ready:
    """A decoded image, with the text from which heatmap and score are read, once there is one."""

    name: str
    path: str | None
    pixels: UInt8Array
    notes: list[str] = field(default_factory=list)
    text: str = ""


class HeiePredictor(BasePredictor):
    """Answers about images, with a text that the model wrote, was given, or a fixed one.

    HEIE cuts its images into tiles itself and names no regions: it takes neither ``tiles`` nor
    masks, and ``min_area`` changes nothing.

    Args:
        model: on the device where it should run.
        mode: ``generate``: the model writes its chain of thought, then heatmap and score are
            read from its tokens; ``template``: a fixed text takes its place, which is many times
            faster, and the answers carry no explanation.

    Raises:
        ArtifactNetError: no such mode.
    """

    default_batch_size = 1  # a language model takes far more memory
    threshold: float = 0.5
    judges_plausibility = True

    def __init__(self, model: HEIE, mode: str = "generate") -> None:
        if mode not in MODES:
            raise ArtifactNetError(f"unknown mode {mode!r} of HEIE: one of {', '.join(MODES)}")
        self.model, self.mode = model, mode
        self.warnings: tuple[str, ...] = (*model.notices, _NO_VERDICT)
        if mode == "template":
            self.warnings += (_NO_TEXT,)

    @property
    def generation(self) -> str | None:
        """What a text depends on beside weights and image; None where none is written."""
        mllm = self.model.mllm
        biases = sorted(mllm.sequence_bias.items())
        asked = (self.model.processing.question, mllm.max_new_tokens, biases)
        return repr(asked) if self.mode == "generate" else None

    def predict_from_texts(
        self, images: Sequence[ImageLike], texts: Sequence[str], batch_size: int | None = None
    ) -> list[Prediction]:
        """Predict from given texts, whatever the mode (the paper's "GT CoT").

        Args:
            images: as for `predict`.
            texts: a chain of thought for each image, with one ``[MAP]`` and one ``[SCORE]``, from
                which heatmap and score are read.
            batch_size: images that pass through the model together.

        Raises:
            ArtifactNetError: an image or text cannot be used, the message names it; not one text
                per image; or ``batch_size`` below 1.
        """
        options = self.options(batch_size)
        if len(texts) != len(images):
            raise ArtifactNetError(f"{len(texts)} texts for {len(images)} images: one each")
        ready: list[_Ready] = []
        for number, (image, text) in enumerate(zip(images, texts, strict=True)):
            opened = open_image(number, image)
            if isinstance(opened, Failure):
                raise ArtifactNetError(f"{opened.path}: {opened.reason}")
            try:
                parse_cot(text)
            except ArtifactNetError as error:
                raise ArtifactNetError(f"{opened.name}: its text: {error}") from None
            ready.append(self._prepare(opened, options))
            ready[-1].text = text
        return [
            need_answer(answer)
            for start in range(0, len(ready), options.batch_size)
            for answer in self._read(ready[start : start + options.batch_size], True, options)
        ]

    def _prepare(self, image: OpenedImage, options: PredictOptions) -> _Ready:
        notes = self.model.processing.tiling_warnings(*image.pixels.shape[:2])
        return _Ready(image.name, image.path, image.pixels, notes)

    def _answer_batch(
        self, batch: list[_Ready], options: PredictOptions
    ) -> Iterator[Prediction | Failure]:
        if self.mode == "template":
            for item in batch:
                item.text = TEMPLATE
        else:
            with exclusive(self.model):  # a tokenizer serves one thread at a time
                texts = generate_texts(self.model, [item.pixels for item in batch])
            for item, text in zip(batch, texts, strict=True):
                item.text, repairs = repair_cot(self.model.processing.remove_control_words(text))
                item.notes += repairs
        return self._read(batch, self.mode == "generate", options)

    def _read(
        self, batch: list[_Ready], explain: bool, options: PredictOptions
    ) -> Iterator[Prediction | Failure]:
        """Heatmap and score from the texts; with ``explain`` the answers carry them."""
        with evaluating(self.model), torch.no_grad():  # a tokenizer serves one thread at a time
            inputs = self.model.processing.encode(
                [item.pixels for item in batch], [item.text for item in batch]
            )
            inputs.labels = None  # spares the output layer
            output = self.model(inputs.to(self.model.device))
        for item, maps in zip(batch, output.heatmaps, strict=True):
            yield self._answer(item, maps, explain, options.heatmaps)

    def _answer(
        self, item: _Ready, maps: HeatmapOutput, explain: bool, heatmaps: bool
    ) -> Prediction | Failure:
        score = float(maps.score)
        if math.isnan(score) or bool(maps.heatmap.isnan().any() | maps.sigma.isnan().any()):
            return Failure(item.name, "the model's answer is not a number (NaN)")
        answer = Prediction(
            probability=1 - score,
            is_fake=1 - score >= self.threshold,
            score=score,
            path=item.path,
            warnings=(*self.warnings, *item.notes),
            explanation=parse_rationale(item.text) if explain else None,
        )
        if heatmaps:
            size = item.pixels.shape[0], item.pixels.shape[1]
            answer.heatmap = _at_size(maps.heatmap, size).clip(0, 1)
            answer.sigma = _at_size(maps.sigma, size)
        return answer


def _at_size(maps: Tensor, size: tuple[int, int]) -> Float32Array:
    """A (1, h, w) map as (H, W) float32: tiles and thumbnail cover the whole image."""
    full = F.interpolate(maps[None].float(), size, mode="bilinear")
    return np.ascontiguousarray(full[0, 0].cpu().numpy())


def default_mode(config: MllmConfig) -> str:
    """Where a model's text comes from by default: from itself, if it learned to explain."""
    return "template" if config.text in ("short", "none") else "generate"


def load_heie_predictor(
    folder: str | Path, device: str | torch.device = "cpu", mode: str | None = None
) -> HeiePredictor:
    """A saved HEIE, ready to predict; `artifactnet.load_model` chooses the device, too.

    Args:
        folder: see `load_heie`.
        device: where it runs.
        mode: see `HeiePredictor`; None: `default_mode`.
    """
    model = load_heie(folder, device, merge=True)
    return HeiePredictor(model, mode or default_mode(model.mllm))
