"""``pack``: a trained model in half the space, the form of packaged models."""

from __future__ import annotations

import argparse
import sys

from artifactnet.cli import arguments


def add_pack_options(parser: argparse.ArgumentParser) -> None:
    """Options of ``pack``."""
    option = parser.add_argument
    option("model", metavar="RUN_OR_FILE", help="folder of a run, or a .safetensors file")
    option("--out", required=True, metavar="FILE", help="the .safetensors file to write")
    option("--card", metavar="FILE", help="model card in Markdown, copied beside --out")
    option(
        "--trained-on",
        metavar="TEXT",
        help="the training data, in a few words, for those who start from these weights",
    )
    arguments.add_images_option(
        parser, "what to compare the answers on: files, folders, shards, patterns; by default noise"
    )
    arguments.add_value(
        parser, "--check", arguments.positive, 16, "of more images, N evenly spread (16)"
    )
    option(
        "--share-backbone",
        action="store_true",
        help="leave out what equals the published weights in the package, which loading then needs",
    )
    option("--overwrite", action="store_true", help="replace existing files")


def run_pack(args: argparse.Namespace) -> int:
    """Run ``pack``; returns the exit code."""
    from artifactnet.exporters.pack import pack_model

    done = pack_model(
        args.model, args.out, args.images, check=args.check, card=args.card,
        trained_on=args.trained_on, share_backbone=args.share_backbone, overwrite=args.overwrite,
    )  # fmt: skip
    differences = ", ".join(f"{name} {value:.2g}" for name, value in done.differences.items())
    kind = "images" if args.images else "images of noise"
    print(
        f"{done.path}: {done.size / 1e6:.2f} MB of {done.original_size / 1e6:.2f}; largest "
        f"difference on {done.images} {kind}: {differences}"
    )
    if not args.card:
        print("no model card; add one with --card before sharing the model", file=sys.stderr)
    return 0
