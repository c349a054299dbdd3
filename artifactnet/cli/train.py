"""``train``, ``evaluate``, ``config`` and ``version``."""

from __future__ import annotations

import argparse

from artifactnet.cli.arguments import (
    add_endpoint,
    add_judge_endpoint,
    add_overrides,
    open_endpoint,
    open_judge,
)


def add_evaluate_options(parser: argparse.ArgumentParser) -> None:
    """Options of ``evaluate``."""
    option = parser.add_argument
    option(
        "folder",
        nargs="?",
        metavar="RUN",
        help="folder of the run; or a file of weights, a packaged model by name (student-nano), or "
        "an exported .onnx, .xml or .pt2 file; left out with --vlm-url",
    )
    add_overrides(parser, "dotted keys that replace values of the config: data.root=PATH")
    option(
        "--text",
        choices=("generate", "template", "given"),
        help="of a HEIE on a language model: read heatmap and score from what it writes "
        "(generate), from a fixed text (template), or from the annotated one (given); of one with "
        "mllm.text=short, generate compares its short answers and reads no heatmap",
    )
    add_judge_endpoint(parser, "how similar generated texts are to annotated ones")
    add_endpoint(parser)


def run_train(args: argparse.Namespace) -> int:
    """Run ``train``; returns the exit code."""
    from artifactnet import load_config

    config = load_config(args.config, args.overrides)  # user errors first, then the slow import
    from artifactnet.api import train

    train(config)
    return 0


def run_evaluate(args: argparse.Namespace) -> int:
    """Run ``evaluate``; returns the exit code."""
    from artifactnet.api import evaluate
    from artifactnet.types import ArtifactNetError
    from artifactnet.vlm.heie.saving import is_heie

    endpoint = open_endpoint(args)
    if endpoint is not None:
        # without a run, the first key of the data stands in its place
        overrides = [*filter(None, [args.folder]), *args.overrides]
        for option in ("text", "judge_url", "judge_model", "judge_key_env"):
            if getattr(args, option) is not None:
                raise ArtifactNetError(
                    f"--{option.replace('_', '-')} is for a HEIE, not for --vlm-url"
                )
        if args.folder is not None and "=" not in args.folder:
            raise ArtifactNetError(f"{args.folder} and --vlm-url: name one model")
        evaluate(endpoint, overrides)
        return 0
    if args.folder is None or "=" in args.folder:
        raise ArtifactNetError("name the folder of a run, or a model with --vlm-url")
    if not is_heie(args.folder):
        for option in ("text", "judge_url", "judge_model", "judge_key_env"):
            if getattr(args, option) is not None:
                raise ArtifactNetError(
                    f"--{option.replace('_', '-')} is for a HEIE on a language model, which "
                    f"{args.folder} is not; leave it out"
                )
    chat = open_judge(args)
    evaluate(args.folder, args.overrides, text=args.text, chat=chat)
    return 0


def run_config(args: argparse.Namespace) -> int:
    """Run ``config``; returns the exit code."""
    import yaml

    from artifactnet.config import load, to_dict

    print(yaml.safe_dump(to_dict(load(args.config, args.overrides)), sort_keys=False), end="")
    return 0


def run_version(args: argparse.Namespace) -> int:
    """Run ``version``; returns the exit code."""
    import platform
    from importlib.metadata import version

    from artifactnet import __version__

    print(f"artifactnet {__version__}")
    print(f"python {platform.python_version()}")
    for package in ("torch", "timm", "lightning"):
        print(f"{package} {version(package)}")
    return 0
