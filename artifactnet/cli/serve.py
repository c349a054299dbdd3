"""``serve``: a model behind HTTP."""

from __future__ import annotations

import argparse
import sys
from importlib.util import find_spec

from artifactnet.cli import arguments

_PACKAGES = ("fastapi", "uvicorn", "python_multipart", "prometheus_client")


def add_serve_options(parser: argparse.ArgumentParser) -> None:
    """Options of ``serve``."""
    option, value = parser.add_argument, arguments.add_value
    positive, natural = arguments.positive, arguments.natural
    arguments.add_model(parser)
    arguments.add_text(parser)
    option("--device", default="auto", help="auto, cpu, cuda, cuda:1, ...")
    option(
        "--backend",
        choices=("torch", "onnx", "openvino"),
        help="what runs the model; by default what its file is made for",
    )
    value(
        parser, "--threads", natural, 0, "processor threads of the model; 0: as the backend has it"
    )
    option(
        "--host", default="127.0.0.1", help="address to answer at (127.0.0.1: this machine only)"
    )
    value(parser, "--port", natural, 8000, "port to answer at; 0 takes any (8000)")
    value(parser, "--max-batch", positive, None, "images that pass through the model together (8)")
    value(
        parser, "--batch-wait-ms", float, 5.0,
        "for which an image may wait for others that are being decoded (5)", "MS",
    )  # fmt: skip
    value(parser, "--queue", positive, 64, "images in the server; more are refused with 503 (64)")
    value(parser, "--workers", positive, None, "threads that decode images (cores, at most 4)")
    value(parser, "--max-images", positive, 16, "images of one request (16)")
    value(parser, "--max-bytes", positive, 32 << 20, "size of one request (33554432)", "BYTES")
    value(parser, "--max-pixels", positive, 40_000_000, "of one image (40000000)", "PIXELS")
    value(
        parser, "--max-buffered", positive, 256 << 20,
        "of all requests held at a time (268435456)", "BYTES",
    )  # fmt: skip
    value(parser, "--max-connections", positive, 1000, "open connections (1000)")
    value(
        parser, "--timeout", float, 30.0,
        "for a client to send its request, and for the answer then (30)", "SECONDS",
    )  # fmt: skip
    value(
        parser, "--drain", float, 0.0,
        "after SIGTERM: answer on for so long, while /readyz says 503 (0)", "SECONDS",
    )  # fmt: skip
    option("--access-log", action="store_true", help="log client, path and status of requests")


def run_serve(args: argparse.Namespace) -> int:
    """Run ``serve`` until it is told to stop; returns the exit code."""
    from artifactnet import load_model
    from artifactnet.serving.settings import API_KEY_VARIABLE, ServerSettings, read_api_key
    from artifactnet.types import ArtifactNetError

    lacking = [name for name in _PACKAGES if find_spec(name) is None]
    if lacking:
        raise ArtifactNetError(
            f"serve needs {', '.join(lacking)}: pip install 'artifactnet[serve]'"
        )
    settings = ServerSettings(
        max_batch=args.max_batch, batch_wait=args.batch_wait_ms / 1000, queue=args.queue,
        workers=args.workers, max_images=args.max_images, max_bytes=args.max_bytes,
        max_pixels=args.max_pixels, max_buffered=args.max_buffered,
        max_connections=args.max_connections, timeout=args.timeout, drain=args.drain,
        access_log=args.access_log,
    )  # fmt: skip
    key = read_api_key()
    from artifactnet.serving.model_info import describe_model
    from artifactnet.serving.server import address_of, open_socket, serve

    with open_socket(args.host, args.port) as opened:
        address = address_of(opened)
        if key is None and not opened.getsockname()[0].startswith(("127.", "::1")):
            arguments.print_warnings(
                [f"{address} may be reached from other machines, and no {API_KEY_VARIABLE} is set"]
            )
        source = arguments.choose_model(args.model)
        predictor = load_model(
            source, args.device, backend=args.backend, threads=args.threads, text=args.text
        )
        arguments.print_warnings(predictor.warnings)
        model = describe_model(predictor, source, args.backend)
        arguments.print_line(f"loaded {model.name} on {model.device} ({model.backend})", sys.stderr)
        ready = f"serving at {address}, documentation at {address}/docs"
        serve(
            predictor, model, opened, settings, key,
            lambda: arguments.print_line(ready, flush=True),
        )  # fmt: skip
    arguments.print_line("stopped", sys.stderr)
    return 0
