"""HEIE's answers about images: text, heatmap, deviation and score, at the image's own size."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TypeVar, overload

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from artifactnet.config import MllmConfig
from artifactnet.inference.inputs import Failure, ImageInput, ImageLike, need_counts, open_image
from artifactnet.inference.predictor import pick_device
from artifactnet.inference.stream import prefetch
from artifactnet.models.heads.decoder import HeatmapOutput
from artifactnet.models.state import evaluating
from artifactnet.types import ArtifactNetError, Float32Array, Prediction, UInt8Array
from artifactnet.vlm.heie.model import HEIE, generate
from artifactnet.vlm.heie.saving import load
from artifactnet.vlm.text.chain_of_thought import complete, parse, rationale
from artifactnet.vlm.text.template import TEMPLATE

MODES = ("generate", "template")
_NO_VERDICT = "HEIE judges how plausible an image is, not who made it: probability is 1 - score"
_NO_TEXT = "no text was generated: heatmap and score were read from a fixed one (mode template)"
_FAKE = 0.5  # probability from which `is_fake` is said
_Usable = TypeVar("_Usable")


@dataclass(slots=True)
class _Ready:
    """A decoded image, with its text as soon as there is one."""

    name: str
    path: str | None
    pixels: UInt8Array
    notes: list[str] = field(default_factory=list)
    text: str = ""


class HeiePredictor:
    """Answers about images, with a text that the model wrote, was given, or a fixed one.

    Args:
        model: on the device where it shall run.
        mode: ``generate``: the model writes its chain of thought, then heatmap and score are
            read from its tokens; ``template``: a fixed text takes its place, which is many times
            faster, and the answers carry no explanation.

    Attributes:
        model: as given.
        mode: as given.
        threshold: an image is called fake if its probability is not below.
        warnings: what must be known before trusting an answer; repeated in each of them.

    Raises:
        ArtifactNetError: no such mode.
    """

    def __init__(self, model: HEIE, mode: str = "generate") -> None:
        if mode not in MODES:
            raise ArtifactNetError(f"unknown mode {mode!r} of HEIE: one of {', '.join(MODES)}")
        self.model, self.mode = model, mode
        self.threshold: float = _FAKE
        self.warnings: tuple[str, ...] = (*model.notices, _NO_VERDICT)
        if mode == "template":
            self.warnings += (_NO_TEXT,)

    @overload
    def predict(
        self,
        images: list[ImageLike] | tuple[ImageLike, ...],
        batch_size: int = 1,
        *,
        texts: Sequence[str] | None = None,
    ) -> list[Prediction]: ...

    @overload
    def predict(
        self, images: ImageLike, batch_size: int = 1, *, texts: Sequence[str] | None = None
    ) -> Prediction: ...

    def predict(
        self,
        images: ImageLike | list[ImageLike] | tuple[ImageLike, ...],
        batch_size: int = 1,
        *,
        texts: Sequence[str] | None = None,
    ) -> Prediction | list[Prediction]:
        """Judge one image or a list of them.

        Args:
            images: see `artifactnet.inference.predictor.Predictor.predict`.
            batch_size: images that pass through the model together.
            texts: a chain of thought for each image, with one ``[MAP]`` and one ``[SCORE]``, from
                which heatmap and score are read (the paper's "GT CoT").

        Returns:
            One answer for one image; for a list, a list in its order.

        Raises:
            ArtifactNetError: an image or text cannot be used, the message names it; or
                ``batch_size`` below 1.
        """
        need_counts(batch_size)
        each = list(images) if isinstance(images, list | tuple) else [images]
        if texts is not None and len(texts) != len(each):
            raise ArtifactNetError(f"{len(texts)} texts for {len(each)} images: one each")
        ready = [_need(self._prepare(number, image)) for number, image in enumerate(each)]
        answers: list[Prediction] = []
        for start in range(0, len(ready), batch_size):
            batch = ready[start : start + batch_size]
            given = None if texts is None else texts[start : start + batch_size]
            answers += map(_need, self._answers(batch, given, heatmaps=True))
        return answers if isinstance(images, list | tuple) else answers[0]

    def predict_stream(
        self,
        paths: Iterable[str | Path | ImageInput | Failure],
        batch_size: int = 1,
        workers: int = 0,
        heatmaps: bool = True,
        *,
        tiles: bool = False,
        overlap: float = 0.25,
        min_area: int = 1,
    ) -> Iterator[Prediction | Failure]:
        """Judge any number of files, with the meaning of `Predictor.predict_stream`.

        Args:
            paths: image files, or sources; a failure is passed on.
            batch_size: images that pass through the model together.
            workers: threads that decode ahead of the model; 0 decodes in between.
            heatmaps: False leaves heatmap and sigma out.
            tiles: not to be had: HEIE cuts tiles itself.
            overlap: of such tiles; unused.
            min_area: of regions, which HEIE does not name; unused.

        Yields:
            For every path, in order, its answer or why there is none.

        Raises:
            ArtifactNetError: ``tiles``; ``batch_size`` below 1 or ``workers`` below 0.
        """
        if tiles:
            raise ArtifactNetError("tiles: HEIE cuts its images into tiles itself; leave it out")
        need_counts(batch_size, workers)

        def prepare(numbered: tuple[int, ImageLike | ImageInput | Failure]) -> _Ready | Failure:
            return self._prepare(*numbered)

        prepared = prefetch(prepare, enumerate(paths), workers, batch_size + workers)
        while batch := list(islice(prepared, batch_size)):
            ready = [item for item in batch if isinstance(item, _Ready)]
            answers = iter(self._answers(ready, None, heatmaps))
            for item in batch:
                yield item if isinstance(item, Failure) else next(answers)

    def _prepare(self, number: int, source: ImageLike | ImageInput | Failure) -> _Ready | Failure:
        opened = open_image(number, source)
        if isinstance(opened, Failure):
            return opened
        pixels = opened.pixels
        notes = self.model.processing.notes(*pixels.shape[:2])
        return _Ready(opened.name, opened.path, pixels, notes)

    def _answers(
        self, batch: list[_Ready], given: Sequence[str] | None, heatmaps: bool
    ) -> list[Prediction | Failure]:
        if not batch:
            return []
        self._set_texts(batch, given)
        inputs = self.model.processing.encode(
            [item.pixels for item in batch], [item.text for item in batch]
        )
        inputs.labels = None  # spares the output layer
        with evaluating(self.model), torch.no_grad():
            output = self.model(inputs.to(self.model.device))
        told = given is not None or self.mode == "generate"
        return [
            self._answer(item, found, told, heatmaps)
            for item, found in zip(batch, output.heatmaps, strict=True)
        ]

    def _set_texts(self, batch: list[_Ready], given: Sequence[str] | None) -> None:
        """Give each image the text from which its heatmap and score are read."""
        if given is not None:
            for item, text in zip(batch, given, strict=True):
                try:
                    parse(text)
                except ArtifactNetError as error:
                    raise ArtifactNetError(f"{item.name}: its text: {error}") from None
                item.text = text
        elif self.mode == "template":
            for item in batch:
                item.text = TEMPLATE
        else:
            texts = generate(self.model, [item.pixels for item in batch])
            for item, text in zip(batch, texts, strict=True):
                item.text, mended = complete(self.model.processing.without_control(text))
                item.notes += mended

    def _answer(
        self, item: _Ready, found: HeatmapOutput, told: bool, heatmaps: bool
    ) -> Prediction | Failure:
        score = float(found.score)
        if math.isnan(score) or bool(found.heatmap.isnan().any() | found.sigma.isnan().any()):
            return Failure(item.name, "the model's answer is not a number (NaN)")
        answer = Prediction(
            probability=1 - score,
            is_fake=1 - score >= self.threshold,
            score=score,
            path=item.path,
            warnings=(*self.warnings, *item.notes),
            explanation=rationale(item.text) if told else None,
        )
        if heatmaps:
            size = item.pixels.shape[0], item.pixels.shape[1]
            answer.heatmap = at_size(found.heatmap, size).clip(0, 1)
            answer.sigma = at_size(found.sigma, size)
        return answer


def _need(item: _Usable | Failure) -> _Usable:
    if isinstance(item, Failure):
        raise ArtifactNetError(f"{item.path}: {item.reason}")
    return item


def at_size(maps: Tensor, size: tuple[int, int]) -> Float32Array:
    """A (1, h, w) map as (H, W) float32: tiles and thumbnail cover the whole image."""
    full = F.interpolate(maps[None].float(), size, mode="bilinear")
    return np.ascontiguousarray(full[0, 0].cpu().numpy())


def usual_text(config: MllmConfig) -> str:
    """Where a model's text comes from unless it is said: from itself, if it learned to write."""
    return "template" if config.text == "none" else "generate"


def load_predictor(
    path: str | Path, device: str | torch.device = "auto", mode: str | None = None
) -> HeiePredictor:
    """A saved HEIE, ready for use.

    Args:
        path: its folder, or the folder of the run that trained it.
        device: see `artifactnet.inference.predictor.load_model`.
        mode: see `HeiePredictor`; None: ``generate``, unless the model never learnt to write.

    Raises:
        ArtifactNetError: see `artifactnet.vlm.heie.saving.load`; no such device; or no such mode.
    """
    model = load(path, pick_device(device), merge=True)
    return HeiePredictor(model, mode or usual_text(model.mllm))
