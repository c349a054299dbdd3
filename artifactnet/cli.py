"""The ``artifactnet`` command. Each subcommand parses, calls one library function and prints.

Heavy packages are imported by the subcommand that needs them, so that ``--help`` is instant.
"""

from __future__ import annotations

import argparse
import errno
import os
import sys
import traceback
from collections.abc import Sequence

INTERRUPTED = 130  # 128 + SIGINT, what shells expect
BROKEN_PIPE = 141  # 128 + SIGPIPE
# a full, read-only or forbidden disk
DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand.

    Args:
        argv: arguments after the program's name; None takes them from ``sys.argv``.

    Returns:
        The exit code: 0 for success, 1 where no image could be used, 2 for a mistake the
        user can mend, 130 after Ctrl-C.

    Raises:
        SystemExit: the arguments do not parse (code 2), or help was asked for (code 0).
    """
    args = _parser().parse_args(argv)
    try:
        return int(args.run(args))
    except KeyboardInterrupt:
        print("artifactnet: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # the reader left (`| head`); Python would complain once more while closing stdout
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except Exception as error:
        if not _can_be_mended(error):
            raise
        if args.debug:
            traceback.print_exc()
        print(f"artifactnet: error: {error}", file=sys.stderr)
        return 2


def _can_be_mended(error: Exception) -> bool:
    """Whether the user, not the program, can help: the message says it all."""
    from artifactnet.types import ArtifactNetError

    return isinstance(error, ArtifactNetError) or (
        isinstance(error, OSError) and error.errno in DISK_ERRORS
    )


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--debug", action="store_true", help="show the traceback of an error")
    parser = argparse.ArgumentParser(
        prog="artifactnet",
        description="Detect AI-generated images by looking at perceptual artifacts.",
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    train = commands.add_parser("train", parents=[common], help="train, evaluate and save")
    _add_config_arguments(train)
    train.set_defaults(run=_train)

    evaluate = commands.add_parser("evaluate", parents=[common], help="evaluate a trained run")
    evaluate.add_argument("folder", metavar="RUN", help="folder of the run")
    _add_overrides(evaluate)
    evaluate.set_defaults(run=_evaluate)

    predict = commands.add_parser(
        "predict", parents=[common], help="judge images and draw where the model looks"
    )
    _add_predict_arguments(predict)
    predict.set_defaults(run=_predict)

    synthesize = commands.add_parser(
        "synthesize", parents=[common], help="make an annotated data set from your photographs"
    )
    _add_synthesize_arguments(synthesize)
    synthesize.set_defaults(run=_synthesize)

    config = commands.add_parser("config", parents=[common], help="print the resolved config")
    _add_config_arguments(config)
    config.set_defaults(run=_config)

    version = commands.add_parser("version", parents=[common], help="print versions")
    version.set_defaults(run=_version)
    return parser


def _add_config_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "config", metavar="CONFIG", help="a YAML file, or the name of a recipe: dinov2_align"
    )
    _add_overrides(parser)


def _add_overrides(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="KEY=VALUE",
        help="dotted keys that replace values of the config: optim.lr=1e-4",
    )


def _add_predict_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "images", nargs="+", metavar="IMAGES", help="files, folders (searched deeply), patterns"
    )
    parser.add_argument(
        "--model", required=True, metavar="PATH", help="a run folder or a .safetensors file"
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="folder for the answers")
    parser.add_argument("--batch-size", type=_positive, default=8, metavar="N")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ...")
    parser.add_argument("--no-heatmaps", action="store_true", help="write no pictures")
    parser.add_argument(
        "--workers", type=_natural, default=0, metavar="N", help="threads that decode images"
    )


def _add_synthesize_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("photos", metavar="PHOTOS", help="folder of your photographs")
    parser.add_argument("out", metavar="OUT", help="folder for the data set; must be new")
    parser.add_argument("--seed", type=_natural, default=0, metavar="N")
    parser.add_argument(
        "--per-photo", type=_positive, default=1, metavar="N", help="fakes per photograph"
    )
    size = parser.add_mutually_exclusive_group()
    size.add_argument(
        "--size", type=_positive, default=512, metavar="PIXELS", help="side of square crops"
    )
    size.add_argument("--full-size", action="store_true", help="keep shape and resolution instead")
    parser.add_argument(
        "--test-fraction", type=float, default=0.2, metavar="X", help="photographs kept for testing"
    )
    parser.add_argument(
        "--val-fraction", type=float, default=0.1, metavar="X", help="... and for validation"
    )
    parser.add_argument(
        "--categories", nargs="+", default=(), metavar="LABEL", help="kinds of artifacts; all"
    )


def _natural(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is below 0")
    return value


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is below 1")
    return value


def _train(args: argparse.Namespace) -> int:
    from artifactnet import load_config

    config = load_config(args.config, args.overrides)  # a mistake shows before the slow import
    from artifactnet import train

    train(config)
    return 0


def _evaluate(args: argparse.Namespace) -> int:
    from artifactnet import evaluate

    evaluate(args.folder, args.overrides)
    return 0


def _predict(args: argparse.Namespace) -> int:
    from artifactnet import load_model
    from artifactnet.inference.folder import predict_to_folder

    predictor = load_model(args.model, device=args.device)
    for notice in predictor.warnings:
        print(f"artifactnet: warning: {notice}", file=sys.stderr)
    summary = predict_to_folder(
        predictor,
        args.images,
        args.out,
        heatmaps=not args.no_heatmaps,
        batch_size=args.batch_size,
        workers=args.workers,
        report=lambda p: print(f"{p.probability:.4f} {'fake' if p.is_fake else 'real'} {p.path}"),
    )
    total = summary.images + len(summary.failures)
    print(
        f"{summary.images} of {total} images judged, {summary.fakes} called fake; "
        f"answers in {summary.answers}"
    )
    if summary.failures:
        print(f"{len(summary.failures)} could not be used:", file=sys.stderr)
    for failure in summary.failures:
        print(f"  {failure.path}: {failure.reason}", file=sys.stderr)
    return 0 if summary.images else 1


def _synthesize(args: argparse.Namespace) -> int:
    from pathlib import Path

    from artifactnet import synthesize

    made = synthesize(
        Path(args.photos),
        Path(args.out),
        seed=args.seed,
        per_photo=args.per_photo,
        size=None if args.full_size else args.size,
        test_fraction=args.test_fraction,
        val_fraction=args.val_fraction,
        categories=args.categories,
    )
    counts = ", ".join(f"{count} {split}" for split, count in made.counts.items())
    print(f"{made.photographs} photographs became {counts} pairs in {made.out}")
    print(f"train on them: artifactnet train dinov2_align data.name=xaigd data.root={made.out}")
    if made.skipped:
        print(f"{len(made.skipped)} could not be used:", file=sys.stderr)
    for line in made.skipped:
        print(f"  {line}", file=sys.stderr)
    return 0


def _config(args: argparse.Namespace) -> int:
    import yaml

    from artifactnet.config import load, to_dict

    print(yaml.safe_dump(to_dict(load(args.config, args.overrides)), sort_keys=False), end="")
    return 0


def _version(args: argparse.Namespace) -> int:
    import platform
    from importlib.metadata import version

    from artifactnet import __version__

    print(f"artifactnet {__version__}")
    print(f"python {platform.python_version()}")
    for package in ("torch", "timm", "lightning"):
        print(f"{package} {version(package)}")
    return 0
