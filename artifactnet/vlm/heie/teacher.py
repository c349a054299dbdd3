"""HEIE as a teacher of students: its heatmap, deviation and score without writing a text."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import torch

from artifactnet.data.sources.base import Splits
from artifactnet.distillation.cache import Identity
from artifactnet.distillation.teachers import Teacher, content_hash, open_teacher
from artifactnet.inference.inputs import Failure, ImageInput
from artifactnet.training.components import UNSCORED
from artifactnet.types import ArtifactNetError, Record, TeacherAnswer, UInt8Array
from artifactnet.vlm.heie.predictor import HeiePredictor
from artifactnet.vlm.heie.saving import BASE, FACTS, WEIGHTS, is_heie, load, read_facts
from artifactnet.vlm.text.template import TEMPLATE


class Ready(NamedTuple):
    """An image on its way to the teacher."""

    where: str
    pixels: UInt8Array


class HeieTeacher:
    """A saved HEIE, reading its heatmap from a fixed text: one forward pass per batch.

    Args:
        folder: of the HEIE.
        device: where it runs.

    Raises:
        ArtifactNetError: no HEIE there, or not of this format.
    """

    gives_features = False

    def __init__(self, folder: Path, device: str | torch.device = "cpu") -> None:
        self._folder, self._device = folder, device
        facts = read_facts(folder)
        self.identity: Identity = {"kind": "heie", "hash": _hash(folder)}
        self.about: dict[str, Any] = {
            "name": folder.name,
            "path": str(folder),
            "base": facts["mllm"]["base"],
            "revision": facts["mllm"]["revision"],
            "notices": list(facts["extra"].get("notices", ())),
            "artifactnet": version("artifactnet"),
        }
        self.prepare: Callable[[Record, UInt8Array], Ready] = _ready

    @cached_property
    def predictor(self) -> HeiePredictor:
        """The teacher, loaded with the first question.

        Raises:
            ArtifactNetError: see `artifactnet.vlm.heie.saving.load`.
        """
        return HeiePredictor(load(self._folder, self._device, merge=True), "template")

    def check(self, splits: Splits) -> None:
        """HEIE takes any image."""

    def answer(self, prepared: Sequence[Ready]) -> list[TeacherAnswer]:
        """Answers about a batch; maps are (H, W) of the images, and there is no verdict.

        Raises:
            ArtifactNetError: an answer is not a number; the message names the image.
        """
        sources = [ImageInput(item.where, item.pixels) for item in prepared]
        answers = []
        for one in self.predictor.predict_stream(sources, len(prepared)):
            if isinstance(one, Failure):
                raise ArtifactNetError(f"{one.path}: {one.reason}")
            assert one.heatmap is not None
            assert one.sigma is not None
            assert one.score is not None
            score = math.nan if UNSCORED in self.predictor.model.notices else one.score
            answers.append(TeacherAnswer(one.heatmap, one.sigma, score))
        return answers


def open_any_teacher(path: str | Path, device: str | torch.device = "cpu") -> Teacher:
    """A saved HEIE as a teacher, or what `artifactnet.distillation.teachers.open_teacher` takes.

    Raises:
        ArtifactNetError: see there and `HeieTeacher`.
    """
    if is_heie(path):
        return HeieTeacher(Path(path), device)
    return open_teacher(path, device)


def _hash(folder: Path) -> str:
    """Of everything that decides the answers: learnt weights, configuration and fixed text."""
    tuned = sorted((folder / BASE).glob("*.safetensors"))  # where the whole base was tuned
    return content_hash((folder / FACTS, folder / WEIGHTS, *tuned), TEMPLATE.encode())


def _ready(record: Record, image: UInt8Array) -> Ready:
    return Ready(record.location, image)
