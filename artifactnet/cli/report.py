"""``report``: many images, verdicts and maps on one page that a person can read."""

from __future__ import annotations

import argparse

from artifactnet.cli.arguments import Commands, add_text, positive, print_failures, print_warnings
from artifactnet.cli.explain import add_method_options


def add_report(commands: Commands, common: argparse.ArgumentParser) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "report", parents=[common], help="write an HTML page of verdicts and maps of many images"
    )
    option = parser.add_argument
    option("model", metavar="RUN", help="folder of the run; its test images are shown")
    option(
        "overrides",
        nargs="*",
        metavar="KEY=VALUE",
        help="data.*, train.device, model.threshold; right after RUN",
    )
    option(
        "--images",
        nargs="+",
        default=[],
        metavar="PATH",
        help="show these instead, without labels: files, folders (searched recursively), X-AIGD "
        "parquet shards, patterns; RUN may then be a .safetensors file or a packaged model",
    )
    option("--out", metavar="DIR", help="folder for the report (RUN/report)")
    option(
        "--limit", type=positive, default=500, metavar="N", help="of more images, N evenly spread"
    )
    option("--title", metavar="TEXT", help="of the page")
    add_method_options(parser)
    add_text(parser)
    option("--device", metavar="NAME", help="auto, cpu, cuda, cuda:1, mps, ...")
    parser.set_defaults(run=_report)


def _report(args: argparse.Namespace) -> int:
    from artifactnet.explanation.report.build import report

    result = report(
        args.model, args.images, args.out, overrides=args.overrides, methods=args.methods,
        limit=args.limit, title=args.title, text=args.text, device=args.device,
        batch_size=args.batch_size, window=args.window, stride=args.stride,
    )  # fmt: skip
    print_warnings(result.warnings)
    print_failures(result.failures)
    print(
        f"{result.images} of {result.of} images in the report, {result.called_fake} called fake; "
        f"figures in {result.json} and {len(result.pngs)} pictures beside it"
    )
    print(result.html)
    return 0 if result.images else 1
