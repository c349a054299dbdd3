"""``explain`` and ``judge``: where a model looks, and whether that is where the artifacts are."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from artifactnet.cli.arguments import (
    Commands,
    add_batch_size,
    add_images,
    names,
    natural,
    positive,
    print_failures,
    print_warnings,
)


def add_explain(commands: Commands, common: argparse.ArgumentParser) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "explain", parents=[common], help="draw where a model looks, by one or more methods"
    )
    option = parser.add_argument
    option("model", metavar="RUN", help="a run folder, a .safetensors file, or a packaged model")
    add_images(parser)
    option("--out", required=True, metavar="DIR", help="folder for the maps")
    add_method_options(parser)
    option("--device", default="auto", help="auto, cpu, cuda, cuda:1, ...")
    parser.set_defaults(run=_explain)


def add_judge(commands: Commands, common: argparse.ArgumentParser) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "judge", parents=[common], help="score explanations against annotated artifacts"
    )
    option = parser.add_argument
    option("run_dir", metavar="RUN", help="folder of the run")
    option(
        "overrides", nargs="*", metavar="KEY=VALUE", help="data.*, train.device, model.threshold"
    )
    add_method_options(parser)
    option("--out", metavar="DIR", help="folder for the table (RUN/explanations)")
    option(
        "--threshold", type=float, default=0.5, metavar="X", help="artifact where the map is above"
    )
    option(
        "--faithfulness",
        type=natural,
        default=0,
        metavar="N",
        help="also deletion and insertion curves of N images",
    )
    option(
        "--sanity",
        type=natural,
        default=0,
        metavar="N",
        help="also compare with randomised weights on N images",
    )
    parser.set_defaults(run=_judge)


def add_method_options(parser: argparse.ArgumentParser) -> None:
    """Options that say how maps are made."""
    option = parser.add_argument
    option(
        "--methods",
        type=names,
        metavar="A,B",
        help="names of methods, or all (default: relevance for ViTs, "
        "grad_cam_smooth for others, predicted_heatmap for models that see tiles)",
    )
    add_batch_size(parser)
    option("--window", type=positive, default=224, metavar="PIXELS", help="of sliding_patch")
    option("--stride", type=positive, default=224, metavar="PIXELS", help="of sliding_patch")


def _explain(args: argparse.Namespace) -> int:
    from artifactnet.explanation.folder import explain_to_folder
    from artifactnet.inference.load import find_weights, load_model

    predictor = load_model(find_weights(args.model), device=args.device)
    print_warnings(predictor.warnings)
    summary = explain_to_folder(
        predictor, args.images, args.out, args.methods, batch_size=args.batch_size or 8,
        window=args.window, stride=args.stride,
        report=lambda e: print(f"{e.probability:.4f} {'fake' if e.is_fake else 'real'} {e.name}"),
    )  # fmt: skip
    total = summary.images + len(summary.failures)
    print(
        f"{summary.images} of {total} images explained by {', '.join(summary.methods)}; "
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
    from artifactnet.explanation.judge import judge, scores_table

    result = judge(
        args.run_dir, args.overrides, args.methods, threshold=args.threshold,
        faithfulness_images=args.faithfulness, sanity_images=args.sanity,
        batch_size=args.batch_size or 8, window=args.window, stride=args.stride, out=args.out,
    )  # fmt: skip
    print_warnings(result["notices"])
    print(scores_table(result))
    print(f"\ntable in {args.out or Path(args.run_dir) / 'explanations'}")
    return 0
