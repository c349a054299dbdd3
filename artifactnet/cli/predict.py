"""``predict``: predict images and draw where the model looks."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from artifactnet.cli import arguments

if TYPE_CHECKING:
    from artifactnet.types import Prediction

_OVERLAP = 0.25


def add_predict_options(parser: argparse.ArgumentParser) -> None:
    """Options of ``predict``."""
    arguments.add_images(parser)
    option = parser.add_argument
    arguments.add_model(parser)
    arguments.add_text(parser)
    arguments.add_endpoint(parser)
    option(
        "--backend",
        choices=("torch", "onnx", "openvino"),
        help="what runs the model; by default what its file is made for",
    )
    arguments.add_value(
        parser,
        "--threads",
        arguments.natural,
        0,
        "processor threads of the model; 0 leaves it to the backend",
    )
    option("--out", required=True, metavar="DIR", help="folder for the answers")
    arguments.add_batch_size(parser)
    option("--device", default="auto", help="auto, cpu, cuda, cuda:1, ...")
    option("--no-heatmaps", action="store_true", help="write no pictures")
    option(
        "--resume",
        action="store_true",
        help="keep the predictions of an interrupted or finished run into DIR, and predict only "
        "images that are new or have changed",
    )
    arguments.add_value(parser, "--workers", arguments.natural, 0, "threads that decode images")
    option(
        "--save-masks",
        action="store_true",
        help="also write masks/ and instances.csv in the layouts that X-AIGD's scripts score",
    )
    option(
        "--tiles",
        action="store_true",
        help="look for artifacts at the image's own resolution, in overlapping tiles",
    )
    option(
        "--overlap",
        type=float,
        metavar="X",
        help=f"with --tiles: least share of a tile that its neighbour sees too ({_OVERLAP})",
    )
    arguments.add_value(
        parser,
        "--min-area",
        arguments.positive,
        1,
        "leave smaller regions out of the instances",
        metavar="PIXELS",
    )
    arguments.add_levels(parser)
    option(
        "--stability",
        action="store_true",
        help="also predict each image saved as JPEG of three qualities and resized to 90 %%, and "
        "say how the probability changes; takes four more forward passes per image",
    )


def run_predict(args: argparse.Namespace) -> int:
    """Run ``predict``; returns the exit code."""
    from artifactnet import load_model
    from artifactnet.inference.base import BasePredictor
    from artifactnet.inference.folder import predict_to_folder
    from artifactnet.types import ArtifactNetError

    if args.overlap is not None and not args.tiles:
        raise ArtifactNetError("--overlap needs --tiles")
    predictor: BasePredictor | None = arguments.open_endpoint(args)
    if predictor is None:
        model = arguments.choose_model(args.model)
        predictor = load_model(
            model, args.device, backend=args.backend, threads=args.threads, text=args.text
        )
    elif args.model or args.backend or args.text or args.threads or args.device != "auto":
        raise ArtifactNetError(
            "--vlm-url asks a server: leave out --model, --backend, --text, --threads and --device"
        )
    arguments.print_warnings(predictor.warnings)
    summary = predict_to_folder(
        predictor, args.images, args.out, heatmaps=not args.no_heatmaps, save_masks=args.save_masks,
        tiles=args.tiles, overlap=_OVERLAP if args.overlap is None else args.overlap,
        min_area=args.min_area, stability=args.stability, levels=args.levels,
        batch_size=args.batch_size, workers=args.workers, resume=args.resume,
        report=lambda p: arguments.print_line(
            f"{p.probability:.4f} {p.verdict} {_spread(p)}{p.path}"
        ),
    )  # fmt: skip
    arguments.print_warnings(summary.warnings)
    total = summary.images + len(summary.failures)
    earlier = f" ({summary.resumed} of them earlier)" if args.resume else ""
    called_real = summary.images - summary.fakes - summary.uncertain
    # models without limits are never uncertain
    uncertain = "" if predictor.limits is None else f", {summary.uncertain} uncertain"
    arguments.print_line(
        f"{summary.images} of {total} images predicted{earlier}, {summary.fakes} called fake"
        f"{uncertain}, {called_real} called real; answers in {summary.answers}"
    )
    if args.stability:
        arguments.print_line(f"the verdict flips between re-encodings of {summary.unstable} images")
    if summary.uncategorized:
        print(
            f"{summary.uncategorized} regions without a category are not in instances.csv, which "
            f"has no name for them; {summary.answers.name} has them all",
            file=sys.stderr,
        )
    arguments.print_skipped(summary.skipped)
    arguments.print_failures(summary.failures)
    return 0 if summary.images else 1


def _spread(prediction: Prediction) -> str:
    """The range of probabilities of the re-encodings, if they were predicted, and a space."""
    found = prediction.stability
    if found is None:
        return ""
    return f"[{found.lowest:.4f}..{found.highest:.4f}{', unstable' if found.unstable else ''}] "
