"""Verdicts on the test images of a folder as they are, saved again as JPEG, and at half size."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from artifactnet import load_model
from artifactnet.cli.arguments import positive
from artifactnet.data.damage import halve
from artifactnet.data.image_folders import FolderImage, find_images
from artifactnet.data.images import decode_image, encode_jpeg, encode_png
from artifactnet.inference.base import BasePredictor, need_answer
from artifactnet.inference.inputs import ImageInput
from artifactnet.metrics.authenticity import auc
from artifactnet.types import ArtifactNetError
from perf.harness import check_out, machine, write_report

AS_IS, HALF = "as is", "half"
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
    rows = []
    for level in (AS_IS, *args.quality, HALF):
        row = score(predictor, images, level)
        rows.append(row)
        print(
            f"{row['level']:8s} balanced accuracy {row['balanced_accuracy']:.3f}, AUC "
            f"{row['auc']:.3f}, real images called fake {row['real_called_fake']:.3f}; verdict "
            f"fake: {row['verdict_fake_of_real']:.3f} of real, {row['verdict_fake_of_fake']:.3f} "
            "of fake images",
            flush=True,
        )
    report = {"benchmark": "recompressed", "model": args.model, "images": len(images)}
    write_report(args.out, {**report, "rows": rows, "machine": machine()})
    return 0


def score(
    predictor: BasePredictor, images: Sequence[FolderImage], level: int | str
) -> dict[str, Any]:
    """Figures of all images, each changed by ``level``: a JPEG quality, `AS_IS` or `HALF`."""
    inputs = (ImageInput(str(i.record.path), changed(str(i.record.path), level)) for i in images)
    answers = [need_answer(a) for a in predictor.predict_stream(inputs, heatmaps=False)]
    labels = torch.tensor([item.record.label for item in images])
    fake = labels == 1
    called = torch.tensor([answer.is_fake for answer in answers])
    verdicts = torch.tensor([answer.verdict == "fake" for answer in answers])
    recall, false_alarms = (float(called[group].double().mean()) for group in (fake, ~fake))
    return {
        "level": f"JPEG {level}" if isinstance(level, int) else level,
        "balanced_accuracy": (recall + 1 - false_alarms) / 2,
        "auc": auc(labels, torch.tensor([answer.probability for answer in answers])),
        "recall": recall,
        "real_called_fake": false_alarms,
        "verdict_fake_of_real": float(verdicts[~fake].double().mean()),
        "verdict_fake_of_fake": float(verdicts[fake].double().mean()),
    }


def changed(path: str, level: int | str) -> str | bytes:
    """The path of an image as it is, or the content of a file of the changed image."""
    if level == AS_IS:
        return path
    pixels = decode_image(path, path)
    if isinstance(level, int):
        return encode_jpeg(pixels, level)
    return encode_png(halve(pixels))
