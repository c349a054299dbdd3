"""``train``, ``evaluate``, ``config`` and ``version``."""

from __future__ import annotations

import argparse

from artifactnet.cli.arguments import Commands


def add_train(commands: Commands, common: argparse.ArgumentParser) -> None:
    """Add the subcommand.

    Args:
        commands: what ``add_subparsers`` returned.
        common: parent parser with the options that every subcommand takes.
    """
    train = commands.add_parser("train", parents=[common], help="train, evaluate and save")
    _add_config_arguments(train)
    train.set_defaults(run=_train)


def add_evaluate(commands: Commands, common: argparse.ArgumentParser) -> None:
    """Add the subcommand.

    Args:
        commands: what ``add_subparsers`` returned.
        common: parent parser with the options that every subcommand takes.
    """
    evaluate = commands.add_parser("evaluate", parents=[common], help="evaluate a trained run")
    evaluate.add_argument("folder", metavar="RUN", help="folder of the run")
    _add_overrides(evaluate)
    evaluate.set_defaults(run=_evaluate)


def add_config(commands: Commands, common: argparse.ArgumentParser) -> None:
    """Add the subcommand.

    Args:
        commands: what ``add_subparsers`` returned.
        common: parent parser with the options that every subcommand takes.
    """
    config = commands.add_parser("config", parents=[common], help="print the resolved config")
    _add_config_arguments(config)
    config.set_defaults(run=_config)


def add_version(commands: Commands, common: argparse.ArgumentParser) -> None:
    """Add the subcommand.

    Args:
        commands: what ``add_subparsers`` returned.
        common: parent parser with the options that every subcommand takes.
    """
    version = commands.add_parser("version", parents=[common], help="print versions")
    version.set_defaults(run=_version)


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
