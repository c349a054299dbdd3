"""Compares the outputs of an exported file with those of its model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from artifactnet.inference.backends.metadata import HEAD, SEGMENTATION, ExportFacts
from artifactnet.inference.backends.session import Session
from artifactnet.metrics.correlation import pearson
from artifactnet.models.artifact_net import ArtifactNet
from artifactnet.models.heads.segmentation import any_artifact
from artifactnet.models.state import evaluating
from artifactnet.types import UInt8Array

OutputArrays = dict[str, npt.NDArray[np.float32]]  # by output; (N,) or (N, h, w)
FLAT = 0.01  # standard deviation of a map below which its correlation is that of noise
_BATCHES = (1, 3, 8)  # sizes that a file is run with, in turn; the last for all further images


@dataclass(frozen=True, slots=True)
class Limits:
    """How far a file may be from its model."""

    differences: dict[str, float]  # largest absolute one of each output
    correlation: float | None = None  # least mean CC of heatmaps
    flat: float | None = None  # largest absolute difference of flat maps, which have no CC


FLOAT_LIMITS = Limits({"probability": 1e-3, "heatmap": 1e-3, "sigma": 1e-3, "score": 1e-3})

# without a limit for single pixels, but none may be NaN
INT8_LIMITS = Limits(
    {"probability": 0.1, "heatmap": math.inf, "sigma": math.inf, "score": 0.1},
    correlation=0.98,
    flat=0.05,
)


@dataclass(frozen=True, slots=True)
class Agreement:
    """How the outputs of a file compare with those of its model.

    Attributes:
        images: number of images compared.
        differences: largest absolute difference of probability, heatmap, sigma and score.
        correlation: mean Pearson correlation of heatmaps that are not flat; None without any.
        flat: number of images whose map is flat (standard deviation below `FLAT`).
        flat_difference: largest absolute difference of their maps.
    """

    images: int
    differences: dict[str, float]
    correlation: float | None
    flat: int
    flat_difference: float

    def problem(self, limits: Limits) -> str | None:
        """What exceeds the limits, in one line; None if nothing does."""
        problems = [
            f"{name} differs by {self.differences[name]:.2g} (limit {limit:g})"
            for name, limit in limits.differences.items()
            # also for NaN
            if name in self.differences and not self.differences[name] <= limit
        ]
        least, most = limits.correlation, limits.flat
        if least is not None and self.correlation is not None and not self.correlation >= least:
            problems.append(f"heatmaps have a mean CC of {self.correlation:.3f} (limit {least:g})")
        if most is not None and self.flat and not self.flat_difference <= most:
            problems.append(f"flat heatmaps differ by {self.flat_difference:.2g} (limit {most:g})")
        return "; ".join(problems) or None

    def __str__(self) -> str:
        parts = [f"{name} {value:.2g}" for name, value in self.differences.items()]
        text = f"largest difference on {self.images} images: {', '.join(parts)}"
        if self.correlation is None:
            return text
        return f"{text}; mean CC of heatmaps {self.correlation:.4f}"


def compare(model: OutputArrays, file: OutputArrays) -> Agreement:
    """Compare the outputs of a model and of a file on the same images.

    Raises:
        ValueError: their names or shapes differ.
    """
    shapes = [{name: x.shape for name, x in side.items()} for side in (model, file)]
    if shapes[0] != shapes[1]:
        raise ValueError(f"the model answers {shapes[0]}, the file {shapes[1]}")
    differences = {
        "probability" if name == "logit" else name: _largest(shown(name, model), shown(name, file))
        for name in model
    }
    correlations: list[float] = []
    flat: list[float] = [0.0]
    pairs = zip(model["heatmap"], file["heatmap"], strict=True) if "heatmap" in model else ()
    for ours, theirs in pairs:
        if ours.std() < FLAT:
            flat.append(_largest(ours, theirs))
        else:
            correlations.append(pearson(ours, theirs) or 0.0)  # 0 where theirs is constant
    return Agreement(
        images=len(model["logit"]),
        differences=differences,
        correlation=float(np.mean(correlations)) if correlations else None,
        flat=len(flat) - 1,
        flat_difference=float(np.max(flat)),
    )


def shown(name: str, answers: OutputArrays) -> npt.NDArray[np.float64]:
    """One output as users see it: the logit as a probability, the others unchanged."""
    values = answers[name].astype(np.float64)
    return 1 / (1 + np.exp(-values)) if name == "logit" else values


def _largest(first: npt.NDArray[np.floating], second: npt.NDArray[np.floating]) -> float:
    return float(np.abs(first - second).max())  # NaN where either has one


def answers_of_model(
    model: ArtifactNet, facts: ExportFacts, frames: Sequence[UInt8Array]
) -> OutputArrays:
    """Outputs of a model on the CPU for (H, W, 3) uint8 frames, normalised outside of any graph."""
    mean, std = (np.asarray(values, np.float64) for values in (model.mean, model.std))
    rows: list[OutputArrays] = []
    for frame in frames:
        pixels = ((frame / 255.0 - mean) / std).astype(np.float32).transpose(2, 0, 1)
        with evaluating(model), torch.no_grad():
            output = model(
                torch.from_numpy(np.ascontiguousarray(pixels))[None],
                heatmap=facts.heatmap == HEAD,
                segmentation=facts.heatmap == SEGMENTATION,
            )
        if output.segmentation is not None:
            output.heatmap = any_artifact(output.segmentation, facts.image_size)
        rows.append({name: getattr(output, name).numpy() for name in facts.outputs})
    return _stack(rows)


def answers_of_file(session: Session, frames: Sequence[UInt8Array]) -> OutputArrays:
    """Outputs of a file for (H, W, 3) uint8 frames, run in batches of several sizes."""
    rows: list[OutputArrays] = []
    start = 0
    while start < len(frames):
        size = _BATCHES[min(len(rows), len(_BATCHES) - 1)]
        outputs = session.run(np.stack(frames[start : start + size]))
        rows.append(dict(zip(session.facts.outputs, outputs, strict=True)))
        start += size
    return _stack(rows)


def _stack(rows: Sequence[OutputArrays]) -> OutputArrays:
    return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}
