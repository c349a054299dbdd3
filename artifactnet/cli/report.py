"""``report``: many images, verdicts and maps on one page that a person can read."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from artifactnet.cli.arguments import (
    Commands,
    add_text,
    positive,
    print_failures,
)
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
        "shards, patterns; RUN may then be a .safetensors file or a packaged model",
    )
    parser.add_argument("--out", metavar="DIR", help="folder for the report (RUN/report)")
    parser.add_argument(
        "--limit", type=positive, default=500, metavar="N", help="of more images, N evenly spread"
    )
    parser.add_argument("--title", metavar="TEXT", help="of the page")
    add_method_options(parser)
    add_text(parser)
    parser.add_argument("--device", metavar="NAME", help="auto, cpu, cuda, cuda:1, ...")
    parser.set_defaults(run=_report)


def _report(args: argparse.Namespace) -> int:
    from artifactnet.explanation.explainer import Options
    from artifactnet.explanation.report.build import report

    model, items, out, about = _files(args) if args.images else _run(args)
    for warning in about.warnings:
        print(f"artifactnet: warning: {warning}", file=sys.stderr)
    size = args.batch_size or getattr(model, "default_batch_size", 8)
    result = report(
        model,
        items,
        out,
        methods=args.methods,
        limit=args.limit,
        about=about,
        options=Options(size, args.window, args.stride),
    )
    _print(result)
    return 0 if result.images else 1


def _run(args: argparse.Namespace) -> tuple[Any, Any, Any, Any]:
    """Model, images, folder and head of a report on a run's own data."""
    from artifactnet.evaluation.samples import open_samples
    from artifactnet.explanation.report.build import About
    from artifactnet.explanation.report.content import record_items
    from artifactnet.types import ArtifactNetError
    from artifactnet.vlm.heie.saving import is_heie

    if is_heie(args.model):
        return _heie_run(args)
    if args.text is not None:
        raise ArtifactNetError(
            f"--text={args.text} is for a HEIE on a language model, which {args.model} is not; "
            "leave it out"
        )
    device = [f"train.device={args.device}"] if args.device else []
    data = open_samples(args.model, [*args.overrides, *device])
    about = About(args.title, data.name, data.config.data.name, data.split, data.warnings)
    items = record_items(data.records, data.load)
    return data.model, items, args.out or data.folder / "report", about


def _heie_run(args: argparse.Namespace) -> tuple[Any, Any, Any, Any]:
    """The same of a run that trained a HEIE on a language model."""
    from pathlib import Path

    from artifactnet import load_model
    from artifactnet.config import load
    from artifactnet.evaluation.samples import VALIDATION_ONLY
    from artifactnet.explanation.report.build import About
    from artifactnet.explanation.report.content import record_items
    from artifactnet.runs.run_folder import CONFIG
    from artifactnet.types import ArtifactNetError
    from artifactnet.vlm.heie.data import TextData
    from artifactnet.vlm.heie.predictor import HeiePredictor

    folder = Path(args.model)
    if not (folder / CONFIG).is_file():
        raise ArtifactNetError(
            f"{folder}: a HEIE without the {CONFIG} of its run has no images of its own; name "
            "some with --images"
        )
    for override in args.overrides:
        if not override.startswith(("data.", "train.device=")):
            raise ArtifactNetError(
                f"{override.partition('=')[0]} cannot be changed for a report of a HEIE; what "
                "can: data.*, train.device"
            )
    config = load(folder / CONFIG, ["data.check=counts", *args.overrides])
    predictor = load_model(args.model, args.device or config.train.device, text=args.text)
    assert isinstance(predictor, HeiePredictor)
    data = TextData(config, predictor.model.processing)
    told = [*data.summary["warnings"], *([VALIDATION_ONLY] if data.judged == "val" else [])]
    about = About(args.title, config.name, config.data.name, data.judged, tuple(told))
    source = data.splits[data.judged]
    items = record_items(source.records, source.load)
    return predictor, items, args.out or folder / "report", about


def _files(args: argparse.Namespace) -> tuple[Any, Any, Any, Any]:
    """Model, images, folder and head of a report on files."""
    from pathlib import Path

    from artifactnet import load_model
    from artifactnet.explanation.report.build import About
    from artifactnet.explanation.report.content import file_items
    from artifactnet.types import ArtifactNetError

    if args.overrides:
        raise ArtifactNetError(
            f"{args.overrides[0]} changes the data of the run, but --images names other images; "
            "leave one of them out"
        )
    predictor = load_model(args.model, args.device or "auto", text=args.text)
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
