"""``pack``: a trained model in half the space, as it travels in the package."""

from __future__ import annotations

import argparse
import sys
from itertools import chain
from typing import TYPE_CHECKING

from artifactnet.cli.arguments import Commands, positive

if TYPE_CHECKING:
    from artifactnet.inference.inputs import ImageInput


def add_pack(commands: Commands, common: argparse.ArgumentParser) -> None:
    """Add the subcommand.

    Args:
        commands: what ``add_subparsers`` returned.
        common: parent parser with the options that every subcommand takes.
    """
    parser = commands.add_parser(
        "pack", parents=[common], help="write a model in half precision, checked against it"
    )
    parser.add_argument(
        "model", metavar="RUN_OR_FILE", help="folder of a run, or a .safetensors file"
    )
    parser.add_argument(
        "--out", required=True, metavar="FILE", help="the .safetensors file to write"
    )
    parser.add_argument(
        "--card", metavar="FILE", help="model card in Markdown, copied beside --out"
    )
    parser.add_argument(
        "--trained-on",
        metavar="TEXT",
        help="the data, in a few words; who starts from these weights is told",
    )
    parser.add_argument(
        "--images",
        nargs="+",
        default=[],
        metavar="IMAGES",
        help="what to compare the answers on: files, folders, shards, patterns; by default noise",
    )
    parser.add_argument(
        "--check",
        type=positive,
        default=16,
        metavar="N",
        help="of more images, N evenly spread (16)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace existing files")
    parser.set_defaults(run=_pack)


def _pack(args: argparse.Namespace) -> int:
    from artifactnet.exporters.pack import pack_model

    images = _chosen(args.images, args.check) if args.images else []
    done = pack_model(
        args.model,
        args.out,
        images,
        card=args.card,
        trained_on=args.trained_on,
        overwrite=args.overwrite,
    )
    differences = ", ".join(f"{name} {value:.2g}" for name, value in done.differences.items())
    kind = "images" if args.images else "images of noise"
    print(
        f"{done.path}: {done.size / 1e6:.2f} MB of {done.original_size / 1e6:.2f}; largest "
        f"difference on {done.images} {kind}: {differences}"
    )
    if not args.card:
        print("no model card; add one with --card if others shall use it", file=sys.stderr)
    return 0


def _chosen(inputs: list[str], count: int) -> list[ImageInput]:
    """Some of the images that the user names, spread evenly over all of them.

    Raises:
        ArtifactNetError: an input stands for nothing, or there is no image at all.
    """
    from artifactnet.inference.collect import resolve, spread
    from artifactnet.inference.inputs import Failure
    from artifactnet.types import ArtifactNetError

    found = resolve(inputs, skip="")
    sources = []
    for item in chain(found.failures, spread(found, count)):
        if isinstance(item, Failure):
            raise ArtifactNetError(f"{item.path}: {item.reason}")
        sources.append(item)
    if not sources:
        raise ArtifactNetError(f"{', '.join(inputs)}: no images to compare on")
    return sources
