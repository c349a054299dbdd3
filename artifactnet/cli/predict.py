"""``predict``: predict images and draw where the model looks."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from artifactnet.cli import arguments, predict_ray, progress

if TYPE_CHECKING:
    from artifactnet.inference.base import BasePredictor
    from artifactnet.inference.collect import Urls
    from artifactnet.inference.lines import Counts
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
    option("--out", metavar="DIR", help="folder for the answers; may be left out with --json")
    option(
        "--json",
        action="store_true",
        help="print the answers on standard output, one JSON object per image as in "
        "predictions.jsonl, and everything else on standard error",
    )
    option("--allow-urls", action="store_true", help="fetch inputs that are http or https URLs")
    option(
        "--allow-private-urls",
        action="store_true",
        help="with --allow-urls: also from this machine and from private networks",
    )
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
    predict_ray.add_ray_options(parser)


def run_predict(args: argparse.Namespace) -> int:
    """Run ``predict``; returns the exit code."""
    from artifactnet import load_model
    from artifactnet.inference.folder import Summary
    from artifactnet.types import ArtifactNetError

    _check_options(args)
    if args.engine == "ray":
        return predict_ray.run_on_ray(args, _overlap(args))
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
    notes = sys.stderr if args.json else sys.stdout
    counts = _predict(args, predictor)
    earlier = where = ""
    if isinstance(counts, Summary):
        arguments.print_warnings(counts.warnings)
        earlier = f" ({counts.resumed} of them earlier)" if args.resume else ""
        where = f"; answers in {counts.answers}"
    total = counts.images + len(counts.failures)
    called_real = counts.images - counts.fakes - counts.uncertain
    # models without limits are never uncertain
    uncertain = "" if predictor.limits is None else f", {counts.uncertain} uncertain"
    arguments.print_line(
        f"{counts.images} of {total} images predicted{earlier}, {counts.fakes} called fake"
        f"{uncertain}, {called_real} called real{where}",
        notes,
    )
    if args.stability:
        unstable = f"the verdict flips between re-encodings of {counts.unstable} images"
        arguments.print_line(unstable, notes)
    if isinstance(counts, Summary) and counts.uncategorized:
        print(
            f"{counts.uncategorized} regions without a category are not in instances.csv, which "
            f"has no name for them; {counts.answers.name} has them all",
            file=sys.stderr,
        )
    arguments.print_skipped(counts.skipped)
    arguments.print_failures(counts.failures)
    return 0 if counts.images else 1


def _check_options(args: argparse.Namespace) -> None:
    """Refuse options that do not fit together."""
    from artifactnet.types import ArtifactNetError

    predict_ray.check_engine(args)
    if args.overlap is not None and not args.tiles:
        raise ArtifactNetError("--overlap needs --tiles")
    if args.allow_private_urls and not args.allow_urls:
        raise ArtifactNetError("--allow-private-urls needs --allow-urls")
    if args.json and args.resume:
        raise ArtifactNetError("--json prints new answers only: leave out --resume")
    if args.out is None:
        if not args.json:
            raise ArtifactNetError(
                "name a folder for the answers with --out, or print them: --json"
            )
        if args.save_masks:
            raise ArtifactNetError("--save-masks needs --out")


def _predict(args: argparse.Namespace, predictor: BasePredictor) -> Counts:
    """Predict, and show the answers: as lines, or on a terminal as a bar and a table."""
    watches = progress.on_terminal() and not args.json
    if not (watches or progress.bar_alone()):
        return _answer(args, predictor, None if args.json else _print_prediction, None)
    with progress.Watched(table=watches) as bar:

        def show(prediction: Prediction) -> None:
            bar.add(prediction.path, prediction.verdict, _probability(prediction))
            if not (watches or args.json):
                _print_prediction(prediction)

        # those that are resumed are not shown, so the number of those that are is unknown
        return _answer(args, predictor, show, None if args.resume else bar.expect)


def _answer(
    args: argparse.Namespace,
    predictor: BasePredictor,
    report: Callable[[Prediction], None] | None,
    expect: Callable[[int], None] | None,
) -> Counts:
    """Predict into the folder that was named, or else only print."""
    from artifactnet.inference.folder import predict_to_folder
    from artifactnet.inference.lines import predict_lines

    overlap = _overlap(args)
    urls: Urls = "none"
    if args.allow_urls:
        urls = "private" if args.allow_private_urls else "public"
    if args.out is None:
        return predict_lines(
            predictor, args.images, _print_json, tiles=args.tiles, overlap=overlap,
            min_area=args.min_area, stability=args.stability, levels=args.levels,
            batch_size=args.batch_size, workers=args.workers, report=report, expect=expect,
            urls=urls,
        )  # fmt: skip
    return predict_to_folder(
        predictor, args.images, args.out, heatmaps=not args.no_heatmaps, save_masks=args.save_masks,
        tiles=args.tiles, overlap=overlap, min_area=args.min_area, stability=args.stability,
        levels=args.levels, batch_size=args.batch_size, workers=args.workers, resume=args.resume,
        report=report, report_line=_print_json if args.json else None, expect=expect,
        urls=urls,
    )  # fmt: skip


def _overlap(args: argparse.Namespace) -> float:
    return _OVERLAP if args.overlap is None else float(args.overlap)


def _print_json(line: dict[str, Any]) -> None:
    # ASCII, so nothing in it moves a cursor; at once, for what reads it in a pipe
    print(json.dumps(line, allow_nan=False), flush=True)


def _print_prediction(prediction: Prediction) -> None:
    shown = f"{prediction.probability:.4f} {prediction.verdict} {_spread(prediction)}"
    arguments.print_line(f"{shown}{prediction.path}")


def _probability(prediction: Prediction) -> str:
    return f"{prediction.probability:.4f} {_spread(prediction)}".strip()


def _spread(prediction: Prediction) -> str:
    """The range of probabilities of the re-encodings, if they were predicted, and a space."""
    found = prediction.stability
    if found is None:
        return ""
    return f"[{found.lowest:.4f}..{found.highest:.4f}{', unstable' if found.unstable else ''}] "
