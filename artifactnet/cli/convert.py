"""``convert``: data sets of other forms become manifests."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from artifactnet.cli.arguments import Commands

if TYPE_CHECKING:
    from artifactnet.data.converters.common import Conversion

FORMATS = ("richhf", "expl_aigi_eval", "abhuman", "folder", "demo")


def add_convert(commands: Commands, common: argparse.ArgumentParser) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "convert", parents=[common], help="make a manifest of annotated images, to train on or mix"
    )
    parser.add_argument("format", choices=FORMATS, metavar="FORMAT", help=", ".join(FORMATS))
    parser.add_argument(
        "source",
        metavar="SOURCE",
        help="richhf: folder of TFRecords; expl_aigi_eval: JSON lines; abhuman: folder of masks or "
        "COCO JSON of boxes; folder: real/ and fake/; demo: a config (dinov2_align, ...) whose "
        "data.demo_* keys say which images",
    )
    parser.add_argument("--images", metavar="DIR", help="the images; not with folder, demo")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder for manifest and maps")
    parser.add_argument("--name", metavar="NAME", help="of the manifest; default: the format's")
    parser.add_argument("--generator", metavar="NAME", help="what made the images; not with folder")
    parser.add_argument(
        "--overwrite", action="store_true", help="replace a manifest of the same name"
    )
    parser.set_defaults(run=_convert)


def _convert(args: argparse.Namespace) -> int:
    made = _make(args)
    print(", ".join(f"{count} {what}" for what, count in made.counts.items()))
    for line in made.warnings:
        print(f"warning: {line}", file=sys.stderr)
    print(f"{made.manifest}: train on it with data.name=manifest data.root={made.manifest}")
    return 0


def _make(args: argparse.Namespace) -> Conversion:
    """Call the converter that the arguments name.

    Raises:
        ArtifactNetError: an option is missing or has no meaning for the format, or the converter
            says so.
    """
    from pathlib import Path

    from artifactnet.types import ArtifactNetError

    source, out = Path(args.source), Path(args.out)
    name = args.name or args.format
    if args.format in ("folder", "demo"):
        if args.images or args.generator:
            raise ArtifactNetError(
                f"convert {args.format} takes neither --images nor --generator: both are in it"
            )
        if args.format == "demo":
            from artifactnet.config import load
            from artifactnet.data.converters import demo

            data = load(args.source).data
            return demo.convert_demo_data(data, out, name=name, overwrite=args.overwrite)
        from artifactnet.data.converters import folder

        return folder.convert_folder(source, out, name=name, overwrite=args.overwrite)
    if not args.images:
        raise ArtifactNetError(
            f"convert {args.format} needs --images DIR: its annotations hold no pixels"
        )
    from artifactnet.data.converters import abhuman, expl_aigi_eval, richhf

    converters = {
        "richhf": (richhf.convert_richhf, "pickapic"),
        "expl_aigi_eval": (expl_aigi_eval.convert_expl_aigi_eval, "pickapic"),
        "abhuman": (abhuman.convert_abhuman, "abhuman"),
    }
    convert, generator = converters[args.format]
    return convert(
        source,
        Path(args.images),
        out,
        name=name,
        generator=args.generator or generator,
        overwrite=args.overwrite,
    )
