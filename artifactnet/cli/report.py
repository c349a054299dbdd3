"""``report``: many images, verdicts and maps on one page that a person can read."""

from __future__ import annotations

import argparse

from artifactnet.cli import arguments
from artifactnet.cli.explain import add_method_options
from artifactnet.weights import DEFAULT


def add_report_options(parser: argparse.ArgumentParser) -> None:
    """Options of ``report``."""
    option = parser.add_argument
    option(
        "run_dir",
        nargs="?",
        metavar="RUN",
        help="folder of the run; its test images are shown. With --images it can be any model, "
        f"as can --model, and can be left out: the packaged {DEFAULT} then answers",
    )
    arguments.add_overrides(parser, "data.*, train.device, model.threshold; right after RUN")
    arguments.add_images_option(
        parser,
        "show these instead, without labels: files, folders (searched recursively), parquet "
        "shards with images, patterns",
    )
    arguments.add_model(parser)
    option("--out", metavar="DIR", help="folder for the report (RUN/report)")
    arguments.add_value(
        parser, "--limit", arguments.positive, 500, "of more images, N evenly spread"
    )
    option("--title", metavar="TEXT", help="of the page")
    add_method_options(parser)
    arguments.add_levels(parser)
    arguments.add_text(parser)
    option("--device", metavar="NAME", help="auto, cpu, cuda, cuda:1, mps, ...")


def run_report(args: argparse.Namespace) -> int:
    """Run ``report``; returns the exit code."""
    from artifactnet.explanation.report.build import report
    from artifactnet.explanation.report.tables import LABELS
    from artifactnet.types import ArtifactNetError

    if args.run_dir is not None and args.model is not None:
        raise ArtifactNetError(f"{args.run_dir} and --model {args.model}: name one model")
    named = args.model if args.run_dir is None else args.run_dir
    if named is None and not args.images:
        raise ArtifactNetError("name the folder of a run, or images with --images")
    model = arguments.choose_model(named)
    result = report(
        model, args.images, args.out, overrides=args.overrides, methods=args.methods,
        limit=args.limit, title=args.title, text=args.text, device=args.device,
        batch_size=args.batch_size, window=args.window, stride=args.stride,
        levels=args.levels,
    )  # fmt: skip
    arguments.print_warnings(result.warnings)
    arguments.print_failures(result.failures)
    uncertain = f", {result.uncertain} uncertain" if result.uncertain else ""
    called = LABELS[result.judges]["fake"].lower()
    arguments.print_line(
        f"{result.images} of {result.of} images in the report, {result.called_fake} {called}"
        f"{uncertain}; figures in {result.json} and {len(result.pngs)} pictures beside it"
    )
    arguments.print_line(str(result.html))
    return 0 if result.images else 1
