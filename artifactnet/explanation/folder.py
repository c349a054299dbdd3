"""Explaining files and folders, with maps and overlays written to a folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TextIO

from PIL import Image

from artifactnet.explanation import overlay
from artifactnet.explanation.explainer import Explained, Explainer
from artifactnet.files import atomic_path
from artifactnet.inference import collect
from artifactnet.inference.folder import save_heatmap
from artifactnet.inference.inputs import Failure, ImageInput, to_pixels
from artifactnet.types import ArtifactNetError, Explanation, UInt8Array

ANSWERS = "explanations.jsonl"


@dataclass(slots=True)
class Summary:
    """What became of the images.

    Attributes:
        answers: the file with one JSON object per explained image.
        images: number of images explained.
        constant: number of maps that are constant and so show nothing.
        failures: the images that could not be explained, and inputs that stand for none.
    """

    answers: Path
    images: int = 0
    constant: int = 0
    failures: list[Failure] = field(default_factory=list)


def explain_to_folder(
    explainer: Explainer,
    inputs: Sequence[str | Path],
    out: str | Path,
    batch_size: int = 8,
    report: Callable[[Explained], None] | None = None,
) -> Summary:
    """Explain files; write ``explanations.jsonl`` and ``METHOD/NAME.png`` into ``out``.

    For every method ``NAME.png`` is the map at the image's own size, 8-bit gray, 255 times its
    values, and ``NAME.overlay.png`` the image with the map laid over it. An image that cannot
    be explained is listed and stops nothing.

    Args:
        explainer: model and methods.
        inputs: files, folders (searched deeply), parquet shards of X-AIGD and glob patterns.
        out: folder to write to; files of the same names are replaced.
        batch_size: images decoded and explained together.
        report: called with every answer as it comes.

    Raises:
        ArtifactNetError: ``out`` cannot be written; earlier answers are untouched.
    """
    found = collect.resolve(inputs, skip=out)
    summary = Summary(Path(out) / ANSWERS, failures=list(found.failures))
    try:
        with (
            atomic_path(summary.answers) as temporary,
            open(temporary, "w", encoding="utf-8") as lines,
        ):
            for answer in explained(explainer, collect.walk(found), batch_size):
                if isinstance(answer, Failure):
                    summary.failures.append(answer)
                    continue
                _write(answer, found, Path(out), lines)
                summary.images += 1
                summary.constant += sum(bool(e.warnings) for e in answer.explanations.values())
                if report is not None:
                    report(answer)
    except BrokenPipeError:
        raise  # whoever read the reports has left
    except OSError as error:
        raise ArtifactNetError(f"{out}: the answers cannot be written: {error}") from error
    return summary


def explained(
    explainer: Explainer, sources: Iterator[ImageInput | Failure], batch_size: int
) -> Iterator[Explained | Failure]:
    """Decode and explain images, a batch in memory at a time.

    Args:
        explainer: model and methods.
        sources: read lazily; a failure is passed on.
        batch_size: images decoded and explained together.

    Yields:
        One answer per source, in order.
    """
    while few := list(islice(sources, batch_size)):
        decoded = [_decode(source) for source in few]
        usable = [item for item in decoded if not isinstance(item, Failure)]
        answers = iter(explainer.batch(usable))
        for item in decoded:
            yield item if isinstance(item, Failure) else next(answers)


def _decode(source: ImageInput | Failure) -> tuple[str, UInt8Array] | Failure:
    if isinstance(source, Failure):
        return source
    try:
        return source.name, to_pixels(source.image, source.name)
    except ArtifactNetError as error:
        return Failure(source.name, str(error).removeprefix(f"{source.name}: "))


def _write(answer: Explained, found: collect.Found, out: Path, lines: TextIO) -> None:
    name = collect.answer_name(answer.name, found)
    maps = {}
    for method, explanation in answer.explanations.items():
        save_heatmap(explanation.heatmap, out / method / f"{name}.png")
        shown = overlay.overlay(answer.pixels, explanation.heatmap)
        with atomic_path(out / method / f"{name}.overlay.png") as temporary:
            Image.fromarray(shown).save(temporary, format="PNG")
        maps[method] = _entry(explanation, f"{method}/{name}.png")
    entry = {
        "path": answer.name,
        "probability": answer.probability,
        "is_fake": answer.is_fake,
        "maps": maps,
    }
    lines.write(json.dumps(entry, allow_nan=False) + "\n")


def _entry(explanation: Explanation, heatmap: str) -> dict[str, object]:
    return {
        "heatmap": heatmap,
        "scale": explanation.scale,
        "grid": list(explanation.raw.shape),
        "warnings": list(explanation.warnings),
    }
