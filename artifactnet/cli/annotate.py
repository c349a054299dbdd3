"""``annotate``: language models explain what people have marked in images."""

from __future__ import annotations

import argparse
import math
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from artifactnet.cli.arguments import Commands, natural, positive, print_failures

if TYPE_CHECKING:
    from artifactnet.annotation.annotate import Summary
    from artifactnet.llm.client import Chat


def add_annotate(commands: Commands, common: argparse.ArgumentParser) -> None:
    """Add the subcommand.

    Args:
        commands: what ``add_subparsers`` returned.
        common: parent parser with the options that every subcommand takes.
    """
    parser = commands.add_parser(
        "annotate",
        parents=[common],
        help="let language models explain marked defects, in the form of Expl-AIGI-Eval",
    )
    parser.add_argument("images", metavar="IMAGES", help="folder of images, searched deeply")
    parser.add_argument(
        "masks",
        metavar="MASKS",
        help="folder of their masks or heatmaps, called alike: gray, 255 is artifact",
    )
    parser.add_argument("--out", required=True, metavar="FILE", help="JSON lines to write (.jsonl)")
    _add_endpoint(parser)
    parser.add_argument(
        "--format-model", metavar="NAME", help="model of the last stage; default: --model"
    )
    parser.add_argument(
        "--attempts",
        type=positive,
        default=3,
        metavar="N",
        help="answers per image and stage before it is set aside, earlier runs included (3)",
    )
    parser.add_argument(
        "--bit-fields",
        action="store_true",
        help="each bit of a mask's pixel is a category, as in the masks of manifests",
    )
    parser.add_argument(
        "--keep-pictures", metavar="DIR", help="keep the pictures with red lines that were shown"
    )
    parser.set_defaults(run=_annotate)


def _add_endpoint(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--base-url",
        required=True,
        metavar="URL",
        help="OpenAI-compatible endpoint, with its version: http://localhost:8000/v1",
    )
    parser.add_argument(
        "--model", required=True, metavar="NAME", help="as the server calls it; must see pictures"
    )
    parser.add_argument(
        "--api-key-env",
        default="OPENAI_API_KEY",
        metavar="VARIABLE",
        help="environment variable that holds the key (OPENAI_API_KEY)",
    )
    parser.add_argument(
        "--rate", type=_rate, default=0.0, metavar="N", help="requests per minute at most; 0: any"
    )
    parser.add_argument(
        "--workers", type=positive, default=1, metavar="N", help="images worked on at a time (1)"
    )
    parser.add_argument(
        "--retries",
        type=natural,
        default=6,
        metavar="N",
        help="repetitions of a request after 429, 5xx, a timeout or a lost connection (6)",
    )
    parser.add_argument(
        "--timeout",
        type=_seconds,
        default=180.0,
        metavar="SECONDS",
        help="silence after which a request has failed (180)",
    )


def _annotate(args: argparse.Namespace) -> int:
    from artifactnet.annotation.annotate import annotate
    from artifactnet.llm.client import Chat, Endpoint, Pace

    endpoint = Endpoint(args.base_url, args.api_key_env, args.retries, args.timeout)
    pace = Pace(args.rate)  # one for both models: it is the server that limits
    analyst = Chat(endpoint, args.model, pace)
    formatter = Chat(endpoint, args.format_model, pace) if args.format_model else analyst
    try:
        summary = annotate(
            Path(args.images),
            Path(args.masks),
            Path(args.out),
            analyst,
            formatter,
            attempts=args.attempts,
            workers=args.workers,
            bit_fields=args.bit_fields,
            pictures=Path(args.keep_pictures) if args.keep_pictures else None,
            report=lambda name, what: print(f"{name}: {what}", flush=True),
        )
    except KeyboardInterrupt as interrupt:
        if str(interrupt):  # where the finished ones are
            print(interrupt, file=sys.stderr)
        raise
    _print(summary, {id(chat): chat for chat in (analyst, formatter)}.values())
    return 0 if summary.records else 1


def _print(summary: Summary, chats: Iterable[Chat]) -> None:
    """Say what came of it; what a person should look at goes to standard error."""
    for line in summary.warnings:
        print(f"warning: {line}", file=sys.stderr)
    counts: Counter[str] = Counter()
    for chat in chats:
        counts += chat.counts
    total = summary.records + len(summary.set_aside) + len(summary.failures)
    print(
        f"{summary.records} of {total} images explained; {counts['requests']} requests, "
        f"{summary.asked} answers, {summary.invalid} of all answers of no use"
    )
    for what in sorted(counts):
        if what.startswith("retried"):
            print(f"{what}: {counts[what]}", file=sys.stderr)
    if summary.set_aside:
        print(f"{len(summary.set_aside)} set aside:", file=sys.stderr)
    for one in summary.set_aside:
        print(f"  {one.path}: {one.reason}", file=sys.stderr)
    print_failures(summary.failures)
    if summary.out is not None:
        print(summary.out)


def _rate(text: str) -> float:
    """Requests per minute.

    Raises:
        argparse.ArgumentTypeError: it is below 0 or not finite.
    """
    value = float(text)
    if not (math.isfinite(value) and value >= 0):
        raise argparse.ArgumentTypeError(f"{text}: must be 0 or more")
    return value


def _seconds(text: str) -> float:
    """A duration.

    Raises:
        argparse.ArgumentTypeError: it is not above 0, or not finite.
    """
    value = float(text)
    if not (math.isfinite(value) and value > 0):
        raise argparse.ArgumentTypeError(f"{text}: must be above 0")
    return value
