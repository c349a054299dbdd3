"""``explain`` and ``judge``: where a model looks, and whether that is where the artifacts are."""

from __future__ import annotations

import argparse
import sys

from artifactnet.cli.arguments import (
    Commands,
    add_batch_size,
    add_images,
    batch_size_of,
    names,
    natural,
    positive,
    print_failures,
)


def add_explain(commands: Commands, common: argparse.ArgumentParser) -> None:
    """Add the subcommand.

    Args:
        commands: what ``add_subparsers`` returned.
        common: parent parser with the options that every subcommand takes.
    """
    parser = commands.add_parser(
        "explain", parents=[common], help="draw where a model looks, by one or more methods"
    )
    parser.add_argument(
        "model", metavar="RUN", help="a run folder, a .safetensors file, or a packaged model"
    )
    add_images(parser)
    parser.add_argument("--out", required=True, metavar="DIR", help="folder for the maps")
    add_method_options(parser)
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ...")
    parser.set_defaults(run=_explain)


def add_judge(commands: Commands, common: argparse.ArgumentParser) -> None:
    """Add the subcommand.

    Args:
        commands: what ``add_subparsers`` returned.
        common: parent parser with the options that every subcommand takes.
    """
    parser = commands.add_parser(
        "judge", parents=[common], help="score explanations against annotated artifacts"
    )
    parser.add_argument("run_dir", metavar="RUN", help="folder of the run")
    parser.add_argument(
        "overrides", nargs="*", metavar="KEY=VALUE", help="data.*, train.device, model.threshold"
    )
    add_method_options(parser)
    parser.add_argument("--out", metavar="DIR", help="folder for the table (RUN/explanations)")
    parser.add_argument(
        "--threshold", type=float, default=0.5, metavar="X", help="artifact where the map is above"
    )
    parser.add_argument(
        "--faithfulness",
        type=natural,
        default=0,
        metavar="N",
        help="also deletion and insertion curves of N images",
    )
    parser.add_argument(
        "--sanity",
        type=natural,
        default=0,
        metavar="N",
        help="also compare with randomised weights on N images",
    )
    parser.set_defaults(run=_judge)


def add_method_options(parser: argparse.ArgumentParser) -> None:
    """Options that say how maps are made.

    Args:
        parser: of a subcommand.
    """
    parser.add_argument(
        "--methods",
        type=names,
        metavar="A,B",
        help="names of methods, or all (default: relevance for ViTs, "
        "grad_cam_smooth for others, predicted_heatmap for models that see tiles)",
    )
    add_batch_size(parser)
    parser.add_argument(
        "--window", type=positive, default=224, metavar="PIXELS", help="of sliding_patch"
    )
    parser.add_argument(
        "--stride", type=positive, default=224, metavar="PIXELS", help="of sliding_patch"
    )


def _explain(args: argparse.Namespace) -> int:
    from artifactnet import load_model
    from artifactnet.explanation.explainer import Explainer, Options
    from artifactnet.explanation.folder import explain_to_folder

    predictor = load_model(args.model, device=args.device)
    for notice in predictor.warnings:
        print(f"artifactnet: warning: {notice}", file=sys.stderr)
    options = Options(batch_size_of(args.model, args.batch_size), args.window, args.stride)
    explainer = Explainer(predictor, args.methods, options)
    summary = explain_to_folder(
        explainer,
        args.images,
        args.out,
        options.batch_size,
        report=lambda e: print(f"{e.probability:.4f} {'fake' if e.is_fake else 'real'} {e.name}"),
    )
    total = summary.images + len(summary.failures)
    print(
        f"{summary.images} of {total} images explained by {', '.join(explainer.methods)}; "
        f"maps in {args.out}"
    )
    if summary.constant:
        print(
            f"{summary.constant} maps are constant and show nothing; {summary.answers} says which",
            file=sys.stderr,
        )
    print_failures(summary.failures)
    return 0 if summary.images else 1


def _judge(args: argparse.Namespace) -> int:
    from pathlib import Path

    from artifactnet.evaluation.samples import open_samples
    from artifactnet.explanation.explainer import Options
    from artifactnet.explanation.judge import judge, table, write

    data = open_samples(args.run_dir, args.overrides)
    for warning in data.warnings:
        print(f"artifactnet: warning: {warning}", file=sys.stderr)
    found = judge(
        data.model,
        data.each(),
        args.methods,
        threshold=args.threshold,
        faithfulness_images=args.faithfulness,
        sanity_images=args.sanity,
        seed=data.config.seed,
        options=Options(batch_size_of(args.run_dir, args.batch_size), args.window, args.stride),
    )
    folder = Path(args.out) if args.out else data.folder / "explanations"
    write(folder, found)
    print(table(found))
    print(f"\ntable in {folder}")
    return 0
