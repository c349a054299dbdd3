"""``explain`` and ``judge``: where a model looks, and whether that is where the artifacts are."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from artifactnet.cli import arguments
from artifactnet.weights import DEFAULT


def add_explain_options(parser: argparse.ArgumentParser) -> None:
    """Options of ``explain``."""
    option = parser.add_argument
    arguments.add_images(parser)
    option(
        "--model",
        metavar="PATH",
        help="a run folder, a .safetensors file, or a packaged model; without this option the "
        f"first of IMAGES, if it is one of these, else the packaged {DEFAULT}",
    )
    option("--out", required=True, metavar="DIR", help="folder for the maps")
    add_method_options(parser)
    arguments.add_levels(parser)
    option("--device", default="auto", help="auto, cpu, cuda, cuda:1, ...")


def add_judge_options(parser: argparse.ArgumentParser) -> None:
    """Options of ``judge``."""
    option = parser.add_argument
    option("run_dir", metavar="RUN", help="folder of the run")
    arguments.add_overrides(parser, "data.*, train.device, model.threshold")
    add_method_options(parser)
    option("--out", metavar="DIR", help="folder for the table (RUN/explanations)")
    arguments.add_value(
        parser, "--threshold", float, 0.5, "artifact where the map is above", metavar="X"
    )
    arguments.add_value(
        parser,
        "--faithfulness",
        arguments.natural,
        0,
        "also deletion and insertion curves of N images",
    )
    arguments.add_value(
        parser, "--sanity", arguments.natural, 0, "also compare with randomised weights on N images"
    )


def add_method_options(parser: argparse.ArgumentParser) -> None:
    """Options that say how maps are made."""
    option = parser.add_argument
    option(
        "--methods",
        type=arguments.names,
        metavar="A,B",
        help="names of methods, or all (default: relevance for ViTs, "
        "grad_cam_smooth for others, predicted_heatmap for models that see tiles)",
    )
    arguments.add_batch_size(parser)
    arguments.add_value(
        parser, "--window", arguments.positive, 224, "of sliding_patch", metavar="PIXELS"
    )
    arguments.add_value(
        parser, "--stride", arguments.positive, 224, "of sliding_patch", metavar="PIXELS"
    )


def run_explain(args: argparse.Namespace) -> int:
    """Run ``explain``; returns the exit code."""
    from artifactnet.explanation.folder import explain_to_folder
    from artifactnet.inference.load import find_weights, load_model, names_model
    from artifactnet.types import ArtifactNetError

    images, named = args.images, args.model
    if named is None and names_model(images[0]):
        named, images = images[0], images[1:]
        if not images:
            raise ArtifactNetError(f"{named} is a model; name the images after it")
    model = find_weights(arguments.choose_model(named))
    predictor = load_model(model, device=args.device)
    arguments.print_warnings(predictor.warnings)
    summary = explain_to_folder(
        predictor, images, args.out, args.methods, batch_size=args.batch_size or 8,
        window=args.window, stride=args.stride, levels=args.levels,
        report=lambda e: arguments.print_line(
            f"{e.probability:.4f} {e.verdict} {e.name}"
        ),
    )  # fmt: skip
    total = summary.images + len(summary.failures)
    arguments.print_line(
        f"{summary.images} of {total} images explained by {', '.join(summary.methods)}; "
        f"maps in {args.out}"
    )
    if summary.constant:
        arguments.print_line(
            f"{summary.constant} maps are constant and show nothing; {summary.answers} says which",
            sys.stderr,
        )
    arguments.print_skipped(summary.skipped)
    arguments.print_failures(summary.failures)
    return 0 if summary.images else 1


def run_judge(args: argparse.Namespace) -> int:
    """Run ``judge``; returns the exit code."""
    from artifactnet.explanation.judge import judge, scores_table

    result = judge(
        args.run_dir, args.overrides, args.methods, threshold=args.threshold,
        faithfulness_images=args.faithfulness, sanity_images=args.sanity,
        batch_size=args.batch_size or 8, window=args.window, stride=args.stride, out=args.out,
    )  # fmt: skip
    arguments.print_warnings(result["notices"])
    print(scores_table(result))
    print(f"\ntable in {args.out or Path(args.run_dir) / 'explanations'}")
    return 0
