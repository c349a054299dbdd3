"""``demo``: a page for the browser."""

from __future__ import annotations

import argparse
import sys
from threading import Event

from artifactnet.cli import arguments

_HOST, _PORT = "127.0.0.1", 7860
_MAX_BYTES, _MAX_PIXELS = 25_000_000, 50_000_000


def add_demo_options(parser: argparse.ArgumentParser) -> None:
    """Options of ``demo``."""
    option = parser.add_argument
    arguments.add_model(parser)
    arguments.add_text(parser)
    option("--device", default="auto", help="auto, cpu, cuda, cuda:1, ...")
    arguments.add_value(
        parser,
        "--threads",
        arguments.natural,
        0,
        "processor threads of the model; 0 leaves it to the backend",
    )
    option(
        "--host",
        default=_HOST,
        metavar="ADDRESS",
        help=f"address to listen on ({_HOST}, this machine alone); 0.0.0.0 lets the network in, "
        "without a password",
    )
    arguments.add_value(
        parser, "--port", arguments.natural, _PORT, f"({_PORT}); 0 takes any that is free"
    )
    option(
        "--root-path",
        default="",
        metavar="PATH",
        help="where a proxy in front of the page serves it, such as /detector",
    )
    for flag, default, what in (
        ("--max-bytes", _MAX_BYTES, "size of an image's file"),
        ("--max-pixels", _MAX_PIXELS, "size of an image"),
    ):
        arguments.add_value(
            parser, flag, arguments.positive, default, f"largest {what} that is taken ({default})"
        )


def run_demo(args: argparse.Namespace) -> int:
    """Run ``demo`` until Ctrl-C or SIGTERM; returns the exit code."""
    from artifactnet import load_model
    from artifactnet.demo.analysis import Analyst
    from artifactnet.demo.page import need_gradio, open_page
    from artifactnet.demo.upload import UploadLimits

    need_gradio()  # before the model, which takes seconds
    model = arguments.choose_model(args.model)
    predictor = load_model(model, args.device, threads=args.threads, text=args.text)
    arguments.print_warnings(predictor.warnings)
    limits = UploadLimits(args.max_bytes, args.max_pixels)
    with open_page(
        Analyst(predictor), model, limits=limits, host=args.host, port=args.port,
        root_path=args.root_path,
    ) as address:  # fmt: skip
        arguments.print_line(f"page at {address} (Ctrl-C ends it)", flush=True)
        try:
            Event().wait()
        except KeyboardInterrupt:  # or SIGTERM, see `main`; how a page ends
            arguments.print_line("page closed", sys.stderr)
    return 0
