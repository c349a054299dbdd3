"""Explain files; write maps and overlays to a folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TextIO

from PIL import Image

from artifactnet.explanation import overlay
from artifactnet.explanation.detector import Detector
from artifactnet.explanation.explainer import Explained, Explainer
from artifactnet.files import atomic_path
from artifactnet.inference import collect
from artifactnet.inference.base import BasePredictor
from artifactnet.inference.folder import save_heatmap
from artifactnet.inference.inputs import Failure, ImageInput, to_pixels
from artifactnet.models.artifact_net import ArtifactNet
from artifactnet.types import ArtifactNetError, UInt8Array

ANSWERS = "explanations.jsonl"


@dataclass(slots=True)
class ExplainSummary:
    """Counts of images and maps, and what could not be explained."""

    answers: Path  # one JSON object per explained image
    methods: tuple[str, ...]
    images: int = 0  # explained
    constant: int = 0  # maps that are constant and so show nothing
    failures: list[Failure] = field(default_factory=list)  # also inputs without images


def explain_to_folder(
    model: Detector | ArtifactNet | BasePredictor,
    inputs: Sequence[str | Path],
    out: str | Path,
    methods: Sequence[str] | None = None,
    *,
    batch_size: int = 8,
    window: int = 224,
    stride: int = 224,
    report: Callable[[Explained], None] | None = None,
) -> ExplainSummary:
    """Explain files; write ``explanations.jsonl`` and ``METHOD/NAME.png`` into ``out``.

    For every method ``NAME.png`` is the map at the image's own size, 8-bit gray, 255 times its
    values, and ``NAME.overlay.png`` the image under the map. An image that cannot be explained is
    listed in the result.

    Args:
        model, methods, batch_size, window, stride: see `Explainer`.
        inputs: files, folders (searched recursively), X-AIGD parquet shards and glob patterns.
        out: folder to write to; files of the same names are replaced.
        report: called with every answer as it comes.

    Raises:
        ArtifactNetError: an error of `Explainer`, or ``out`` cannot be written; earlier answers
            are untouched.
    """
    explainer = Explainer(model, methods, batch_size=batch_size, window=window, stride=stride)
    resolved = collect.resolve_inputs(inputs, skip=out)
    failures = list(resolved.failures)
    summary = ExplainSummary(Path(out) / ANSWERS, explainer.methods, failures=failures)
    sources = collect.iterate_images(resolved)
    try:
        with (
            atomic_path(summary.answers) as temporary,
            open(temporary, "w", encoding="utf-8") as lines,
        ):
            while batch := [_decode(source) for source in islice(sources, batch_size)]:
                usable = [item for item in batch if not isinstance(item, Failure)]
                answers = iter(explainer.explain_batch(usable))
                for item in batch:
                    answer = item if isinstance(item, Failure) else next(answers)
                    if isinstance(answer, Failure):
                        summary.failures.append(answer)
                        continue
                    _write(answer, resolved, Path(out), lines)
                    summary.images += 1
                    summary.constant += sum(bool(e.warnings) for e in answer.explanations.values())
                    if report is not None:
                        report(answer)
    except BrokenPipeError:
        raise  # raised by `report`: the reader of the output left
    except OSError as error:
        raise ArtifactNetError(f"{out}: the answers cannot be written: {error}") from error
    return summary


def _decode(source: ImageInput | Failure) -> tuple[str, UInt8Array] | Failure:
    if isinstance(source, Failure):
        return source
    try:
        return source.name, to_pixels(source.image, source.name)
    except ArtifactNetError as error:
        return Failure(source.name, str(error).removeprefix(f"{source.name}: "))


def _write(answer: Explained, resolved: collect.ResolvedInputs, out: Path, lines: TextIO) -> None:
    name = collect.answer_name(answer.name, resolved)
    maps = {}
    for method, explanation in answer.explanations.items():
        heatmap = f"{method}/{name}.png"
        save_heatmap(explanation.heatmap, out / heatmap)
        shown = overlay.overlay(answer.pixels, explanation.heatmap)
        with atomic_path(out / method / f"{name}.overlay.png") as temporary:
            Image.fromarray(shown).save(temporary, format="PNG")
        maps[method] = {
            "heatmap": heatmap,
            "scale": explanation.scale,
            "grid": list(explanation.raw.shape),
            "warnings": list(explanation.warnings),
        }
    entry = {
        "path": answer.name,
        "probability": answer.probability,
        "is_fake": answer.is_fake,
        "maps": maps,
    }
    lines.write(json.dumps(entry, allow_nan=False) + "\n")
