"""Explain files; write maps and overlays to a folder."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from PIL import Image

from artifactnet.data.image_files import Skipped
from artifactnet.explanation import overlay
from artifactnet.explanation.detector import Detector
from artifactnet.explanation.explainer import Explained, Explainer
from artifactnet.files import atomic_path, staging_folder
from artifactnet.inference import collect
from artifactnet.inference.answers import AnswerLines
from artifactnet.inference.base import BasePredictor
from artifactnet.inference.folder import save_heatmap
from artifactnet.inference.inputs import Failure, ImageInput, to_pixels
from artifactnet.models.artifact_net import ArtifactNet
from artifactnet.types import ArtifactNetError, UInt8Array

ANSWERS = "explanations.jsonl"
_STAGING = "explanations.partial"  # folder of temporary files


@dataclass(slots=True)
class ExplainSummary:
    """Counts of images and maps, and what could not be explained."""

    answers: Path  # one JSON object per explained image
    methods: tuple[str, ...]
    images: int = 0  # explained
    constant: int = 0  # maps that are constant and so show nothing
    failures: list[Failure] = field(default_factory=list)  # also inputs without images
    skipped: Skipped = field(default_factory=Skipped)  # files of the folders that are no images


def explain_to_folder(
    model: Detector | ArtifactNet | BasePredictor,
    inputs: Sequence[str | Path],
    out: str | Path,
    methods: Sequence[str] | None = None,
    *,
    batch_size: int = 8,
    window: int = 224,
    stride: int = 224,
    levels: int | None = None,
    report: Callable[[Explained], None] | None = None,
) -> ExplainSummary:
    """Explain files; write ``explanations.jsonl`` and ``METHOD/NAME.png`` into ``out``.

    For every method ``NAME.png`` is the map at the image's own size, 8-bit gray, 255 times its
    values, and ``NAME.overlay.png`` the image under the map; see `collect.answer_name` for NAME. An
    image that cannot be explained is listed in the result. Every answer is appended to
    ``explanations.partial.jsonl`` at once, which becomes ``explanations.jsonl`` at the end.

    Args:
        model, methods, batch_size, window, stride: see `Explainer`.
        inputs: files, folders (searched recursively), parquet shards with images and glob patterns.
        out: folder to write to; files of the same names are replaced.
        levels: the value of white in images of more than 8 bits, where it is not evident.
        report: called with every answer as it comes.

    Raises:
        ArtifactNetError: an error of `Explainer`, or ``out`` cannot be written; earlier answers
            are untouched.
    """
    explainer = Explainer(model, methods, batch_size=batch_size, window=window, stride=stride)
    resolved = collect.resolve_inputs(inputs, skip=out)
    failures = list(resolved.failures)
    summary = ExplainSummary(Path(out) / ANSWERS, explainer.methods, failures=failures)
    sources = collect.iterate_images(resolved, summary.skipped)
    try:
        with (
            staging_folder(Path(out) / _STAGING) as staging,
            AnswerLines(summary.answers, staging) as lines,
        ):
            order = array("q")
            while batch := [_decode(source, levels) for source in islice(sources, batch_size)]:
                usable = [item for item in batch if not isinstance(item, Failure)]
                answers = iter(explainer.explain_batch(usable))
                for item in batch:
                    answer = item if isinstance(item, Failure) else next(answers)
                    if isinstance(answer, Failure):
                        summary.failures.append(answer)
                        continue
                    name = collect.answer_name(answer.name, resolved)
                    order.append(lines.append(_write_maps(answer, name, Path(out), staging)))
                    summary.images += 1
                    summary.constant += sum(bool(e.warnings) for e in answer.explanations.values())
                    if report is not None:
                        report(answer)
            lines.finish(order)
    except BrokenPipeError:
        raise  # raised by `report`: the reader of the output left
    except OSError as error:
        raise ArtifactNetError(f"{out}: the answers cannot be written: {error}") from error
    return summary


def _decode(source: ImageInput | Failure, levels: int | None) -> tuple[str, UInt8Array] | Failure:
    if isinstance(source, Failure):
        return source
    try:
        return source.name, to_pixels(source.image, source.name, levels)
    except ArtifactNetError as error:
        return Failure(source.name, str(error).removeprefix(f"{source.name}: "))


def _write_maps(answer: Explained, name: str, out: Path, staging: Path) -> dict[str, Any]:
    """Write maps and overlays; returns the line about them."""
    maps = {}
    for method, explanation in answer.explanations.items():
        heatmap = f"{method}/{name}.png"
        save_heatmap(explanation.heatmap, out / heatmap, staging)
        shown = overlay.overlay(answer.pixels, explanation.heatmap)
        with atomic_path(out / method / f"{name}.overlay.png", staging) as temporary:
            Image.fromarray(shown).save(temporary, format="PNG")
        maps[method] = {
            "heatmap": heatmap,
            "scale": explanation.scale,
            "grid": list(explanation.raw.shape),
            "warnings": list(explanation.warnings),
        }
    return {
        "path": answer.name,
        "probability": answer.probability,
        "is_fake": answer.is_fake,
        "verdict": answer.verdict,
        "maps": maps,
    }
