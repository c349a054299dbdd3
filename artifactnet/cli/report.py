"""``report``: many images, verdicts and maps on one page that a person can read."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from artifactnet.cli.arguments import Commands, positive, print_failures
from artifactnet.cli.explain import add_method_options

if TYPE_CHECKING:
    from artifactnet.explanation.report.build import ReportResult


def add_report(commands: Commands, common: argparse.ArgumentParser) -> None:
    """Add the subcommand.

    Args:
        commands: what ``add_subparsers`` returned.
        common: parent parser with the options that every subcommand takes.
    """
    parser = commands.add_parser(
        "report", parents=[common], help="write an HTML page of verdicts and maps of many images"
    )
    parser.add_argument("model", metavar="RUN", help="folder of the run; its test images are shown")
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="KEY=VALUE",
        help="data.*, train.device, model.threshold; right after RUN",
    )
    parser.add_argument(
        "--images",
        nargs="+",
        metavar="PATH",
        help="show these instead, without labels: files, folders (searched deeply), X-AIGD parquet "
        "shards, patterns; RUN may then be a .safetensors file",
    )
    parser.add_argument("--out", metavar="DIR", help="folder for the report (RUN/report)")
    parser.add_argument(
        "--limit", type=positive, default=500, metavar="N", help="of more images, N evenly spread"
    )
    parser.add_argument("--title", metavar="TEXT", help="of the page")
    add_method_options(parser)
    parser.add_argument("--device", metavar="NAME", help="auto, cpu, cuda, cuda:1, ...")
    parser.set_defaults(run=_report)


def _report(args: argparse.Namespace) -> int:
    from artifactnet.explanation.explainer import Options
    from artifactnet.explanation.report.build import report

    model, items, out, about = _files(args) if args.images else _run(args)
    for warning in about.warnings:
        print(f"artifactnet: warning: {warning}", file=sys.stderr)
    result = report(
        model,
        items,
        out,
        methods=args.methods,
        limit=args.limit,
        about=about,
        options=Options(args.batch_size, args.window, args.stride),
    )
    _print(result)
    return 0 if result.images else 1


def _run(args: argparse.Namespace) -> tuple[Any, Any, Any, Any]:
    """Model, images, folder and head of a report on a run's own data."""
    from artifactnet.engine.samples import open_samples
    from artifactnet.explanation.report.build import About
    from artifactnet.explanation.report.items import record_items

    device = [f"train.device={args.device}"] if args.device else []
    data = open_samples(args.model, [*args.overrides, *device])
    about = About(args.title, data.name, data.config.data.name, data.split, data.warnings)
    items = record_items(data.records, data.load)
    return data.model, items, args.out or data.folder / "report", about


def _files(args: argparse.Namespace) -> tuple[Any, Any, Any, Any]:
    """Model, images, folder and head of a report on files."""
    from pathlib import Path

    from artifactnet import load_model
    from artifactnet.explanation.report.build import About
    from artifactnet.explanation.report.items import file_items
    from artifactnet.types import ArtifactNetError

    if args.overrides:
        raise ArtifactNetError(
            f"{args.overrides[0]} changes the data of the run, but --images names other images; "
            "leave one of them out"
        )
    predictor = load_model(args.model, device=args.device or "auto")
    run = Path(args.model)
    named = not run.exists()  # a model of the package, in no folder of the user's
    folder = run.resolve() if run.is_dir() else run.resolve().parent
    out = Path(args.out) if args.out else Path("report") if named else folder / "report"
    data = ", ".join(Path(path).name or str(path) for path in args.images[:3])
    data += f" and {len(args.images) - 3} more" if len(args.images) > 3 else ""
    name = args.model if named else folder.name
    about = About(args.title, name, data, None, predictor.warnings)
    return predictor, file_items(args.images, skip=out), out, about


def _print(result: ReportResult) -> None:
    print_failures(result.failures)
    print(
        f"{result.images} of {result.of} images in the report, {result.called_fake} called fake; "
        f"figures in {result.json} and {len(result.pngs)} pictures beside it"
    )
    print(result.html)
