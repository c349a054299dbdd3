"""Verdicts on the test images of a folder as they are, and saved again as JPEG."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from artifactnet import load_model
from artifactnet.cli.arguments import positive
from artifactnet.data.image_folders import FolderImage, find_images
from artifactnet.data.images import decode_image, encode_jpeg
from artifactnet.inference.base import BasePredictor, need_answer
from artifactnet.inference.inputs import ImageInput
from artifactnet.metrics.authenticity import auc
from artifactnet.types import ArtifactNetError
from perf.harness import check_out, machine, write_report

QUALITIES = (85, 75, 60, 40)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of the benchmark."""
    option = parser.add_argument
    option("folder", metavar="FOLDER", help="real and fake images, as data.name=folder reads them")
    option("--model", default="student-nano", help="as for predict (student-nano)")
    option("--quality", type=positive, nargs="+", default=list(QUALITIES), metavar="Q")
    option("--device", default="auto")
    option("--out", metavar="FILE", help="write the figures as JSON")


def run(args: argparse.Namespace) -> int:
    """Run, print and write the report."""
    check_out(args.out)
    predictor = load_model(args.model, args.device)
    items, _ = find_images(Path(args.folder))
    images = [item for item in items if item.split in (None, "test")]
    if not images:
        raise ArtifactNetError(f"{args.folder}: no test images")
    rows = [score(predictor, images, quality) for quality in (None, *args.quality)]
    for row in rows:
        name = "as is" if row["quality"] is None else f"JPEG {row['quality']}"
        print(
            f"{name:8s} balanced accuracy {row['balanced_accuracy']:.3f}, AUC {row['auc']:.3f}, "
            f"real images called fake {row['real_called_fake']:.3f}"
        )
    report = {"benchmark": "recompressed", "model": args.model, "images": len(images)}
    write_report(args.out, {**report, "rows": rows, "machine": machine()})
    return 0


def score(
    predictor: BasePredictor, images: Sequence[FolderImage], quality: int | None
) -> dict[str, Any]:
    """Figures of all images, each saved as JPEG of ``quality`` before it is predicted."""

    def inputs() -> Iterator[ImageInput]:
        for item in images:
            path = str(item.record.path)
            if quality is None:
                yield ImageInput(path, path)
            else:
                yield ImageInput(path, encode_jpeg(decode_image(path, path), quality))

    answers = [need_answer(a) for a in predictor.predict_stream(inputs(), heatmaps=False)]
    labels = torch.tensor([item.record.label for item in images])
    called = [answer.is_fake for answer in answers]
    fakes = sum(label and fake for label, fake in zip(labels.tolist(), called, strict=True))
    false_alarms = sum(called) - fakes
    real = int((labels == 0).sum())
    recall = fakes / int(labels.sum())
    return {
        "quality": quality,
        "balanced_accuracy": (recall + 1 - false_alarms / real) / 2,
        "auc": auc(labels, torch.tensor([answer.probability for answer in answers])),
        "recall": recall,
        "real_called_fake": false_alarms / real,
    }
