"""Judging files and folders, with the answers written to a folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

import numpy as np
from PIL import Image

from artifactnet.files import atomic_path
from artifactnet.inference import collect
from artifactnet.inference.predictor import Failure, Predictor
from artifactnet.types import ArtifactNetError, Float32Array, Prediction


@dataclass(slots=True)
class Summary:
    """What became of the images.

    Attributes:
        answers: the file with one JSON object per judged image.
        images: number of images judged.
        fakes: number of them called fake.
        failures: the images that could not be judged, and inputs that stand for none.
    """

    answers: Path
    images: int = 0
    fakes: int = 0
    failures: list[Failure] = field(default_factory=list)


def predict_to_folder(
    predictor: Predictor,
    inputs: Sequence[str | Path],
    out: str | Path,
    *,
    heatmaps: bool = True,
    batch_size: int = 8,
    workers: int = 0,
    report: Callable[[Prediction], None] | None = None,
) -> Summary:
    """Judge files and write ``predictions.jsonl`` and ``heatmaps/<name>.png`` into ``out``.

    The pictures are 8-bit gray at the image's own size, 255 times the heatmap, without any
    stretching per image. Names keep folder and suffix, so that ``a.jpg``, ``a.png`` and
    ``b/a.png`` stay apart. An image that cannot be judged is listed and stops nothing.

    Args:
        predictor: the model.
        inputs: files, folders (searched deeply) and glob patterns.
        out: folder to write to; files of the same names are replaced.
        heatmaps: False writes no pictures.
        batch_size: images that pass through the model together.
        workers: threads that decode images.
        report: called with every answer as it comes.

    Raises:
        ArtifactNetError: ``out`` cannot be written; earlier answers are untouched.
    """
    found = collect.resolve(inputs, skip=out)
    summary = Summary(Path(out) / "predictions.jsonl", failures=list(found.failures))
    stream = predictor.predict_stream(collect.walk(found), batch_size, workers, heatmaps)
    try:
        with atomic_path(summary.answers) as temporary, open(temporary, "w", encoding="utf-8") as f:
            for answer in stream:
                if isinstance(answer, Failure):
                    summary.failures.append(answer)
                    continue
                _write(answer, found, Path(out), f)
                summary.images += 1
                summary.fakes += answer.is_fake
                if report is not None:
                    report(answer)
    except BrokenPipeError:
        raise  # whoever read the reports has left
    except OSError as error:
        raise ArtifactNetError(f"{out}: the answers cannot be written: {error}") from error
    return summary


def _write(answer: Prediction, found: collect.Found, out: Path, lines: TextIO) -> None:
    assert answer.path is not None  # the stream is made of paths
    entry = answer.to_json()
    entry["heatmap"] = None
    if answer.heatmap is not None:
        entry["heatmap"] = f"heatmaps/{collect.answer_name(answer.path, found)}.png"
        save_heatmap(answer.heatmap, out / entry["heatmap"])
    lines.write(json.dumps(entry, allow_nan=False) + "\n")


def save_heatmap(heatmap: Float32Array, path: str | Path) -> None:
    """Write a heatmap as 8-bit gray PNG, 255 times its values, atomically.

    Args:
        heatmap: (H, W) in [0, 1].
        path: the file to write.

    Raises:
        OSError: the file cannot be written.
    """
    levels = np.round(np.clip(heatmap, 0.0, 1.0) * 255).astype(np.uint8)
    with atomic_path(path) as temporary:
        Image.fromarray(levels).save(temporary, format="PNG")
