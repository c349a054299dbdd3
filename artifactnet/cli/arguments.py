"""Arguments that several subcommands share."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TextIO

from artifactnet.names import visible
from artifactnet.weights import DEFAULT

if TYPE_CHECKING:
    from artifactnet.data.image_files import Skipped
    from artifactnet.inference.inputs import Failure
    from artifactnet.llm.client import Chat
    from artifactnet.vlm.fakexplainer.endpoint import EndpointPredictor


Options = Callable[[argparse.ArgumentParser], None]
Work = Callable[[argparse.Namespace], int]


def add_commands(
    parser: argparse.ArgumentParser,
    commands: Iterable[tuple[str, str, Options, Work]],
    title: str = "commands",
) -> None:
    """Commands of a command: name, line in ``--help``, options, and what ``args.work`` becomes."""
    steps = parser.add_subparsers(title=title, metavar="NAME", required=True)
    for name, summary, add_options, work in commands:
        step = steps.add_parser(name, help=summary)
        # after the command as well as before it; without default, which would undo the latter
        step.add_argument(
            "--debug",
            action="store_true",
            default=argparse.SUPPRESS,
            help="show the traceback of an error",
        )
        add_options(step)
        step.set_defaults(work=work)


def add_value(
    parser: argparse.ArgumentParser,
    flag: str,
    kind: Callable[[str], Any],
    default: Any,
    summary: str,
    metavar: str = "N",
) -> None:
    """Add an option that takes one value, parsed by ``kind``."""
    parser.add_argument(flag, type=kind, default=default, metavar=metavar, help=summary)


def natural(text: str) -> int:
    """An integer of 0 or more.

    Raises:
        argparse.ArgumentTypeError: it is below 0.
        ValueError: it is not an integer.
    """
    return _at_least(0, text)


def positive(text: str) -> int:
    """An integer of 1 or more.

    Raises:
        argparse.ArgumentTypeError: it is below 1.
        ValueError: it is not an integer.
    """
    return _at_least(1, text)


def share(text: str) -> float:
    """A number in [0, 1].

    Raises:
        argparse.ArgumentTypeError: it is outside.
        ValueError: it is no number.
    """
    value = float(text)
    if not 0 <= value <= 1:  # NaN too
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return value


def names(text: str) -> list[str]:
    """Names with commas between them."""
    return [name.strip() for name in text.split(",") if name.strip()]


def add_images(parser: argparse.ArgumentParser) -> None:
    """The positional argument of subcommands that look at files."""
    parser.add_argument(
        "images",
        nargs="+",
        metavar="IMAGES",
        help="files, folders (searched deeply), parquet shards with images, patterns; - is one "
        "image on standard input",
    )


def add_model(parser: argparse.ArgumentParser) -> None:
    """The option that names a model, for commands with a default."""
    parser.add_argument(
        "--model",
        metavar="PATH",
        help="a run folder, a .safetensors file, a packaged model by name (student-nano), an "
        "exported .onnx, .xml or .pt2 file, the folder of a HEIE on a language model, or "
        "hf:OWNER/NAME[@REVISION], a detector on the Hugging Face Hub; by "
        f"default the packaged {DEFAULT}",
    )


def choose_model(named: str | None) -> str:
    """The model that was named, or else the packaged default, which is said on standard error."""
    if named is not None:
        return named
    print_line(f"model {DEFAULT} (packaged; --model names another)", sys.stderr)
    return DEFAULT


def add_config(parser: argparse.ArgumentParser, example: str = "optim.lr=1e-4") -> None:
    """The positional arguments of commands that take a configuration."""
    text = "a YAML file, or the name of a recipe: dinov2_align"
    parser.add_argument("config", metavar="CONFIG", help=text)
    add_overrides(parser, f"dotted keys that replace values of the config: {example}")


def add_overrides(parser: argparse.ArgumentParser, summary: str) -> None:
    """The positional argument of overrides."""
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help=summary)


def add_images_option(parser: argparse.ArgumentParser, summary: str) -> None:
    """Images as an option, for commands that can do without."""
    parser.add_argument("--images", nargs="+", default=[], metavar="IMAGES", help=summary)


def print_line(text: str, file: TextIO | None = None, flush: bool = False) -> None:
    """Print one line, on standard output by default, that may hold names from data.

    Control characters in it are spelled out: they would move the cursor or end the line.
    """
    print(visible(text), file=file, flush=flush)


def print_warnings(warnings: Iterable[str]) -> None:
    """Print, on standard error, what must be known before trusting an answer."""
    for warning in warnings:
        print_line(f"artifactnet: warning: {warning}", sys.stderr)


def print_failures(failures: Sequence[Failure]) -> None:
    """List, on standard error, the images that could not be used; nothing where all could."""
    if failures:
        print(f"{len(failures)} could not be used:", file=sys.stderr)
    for failure in failures:
        print_line(f"  {failure.path}: {failure.reason}", sys.stderr)


def print_skipped(skipped: Skipped) -> None:
    """Say, on standard error, which files of the folders are no images; nothing if there are none.

    The first few of each kind are named.
    """
    total = sum(skipped.counts.values())
    if total:
        files = "1 file is no image" if total == 1 else f"{total} files are no images"
        print(f"{files} and left out:", file=sys.stderr)
    for line in skipped.lines():
        print_line(f"  {line}", sys.stderr)


def _at_least(least: int, text: str) -> int:
    value = int(text)
    if value < least:
        raise argparse.ArgumentTypeError(f"{text} is below {least}")
    return value


def add_allow_missing(parser: argparse.ArgumentParser) -> None:
    """The option of commands that read annotations of Q-Real."""
    parser.add_argument(
        "--allow-missing",
        action="store_true",
        help="read annotations in which a problem has no description",
    )


def add_levels(parser: argparse.ArgumentParser) -> None:
    """What value is white in deep images, for commands that look at files."""
    parser.add_argument(
        "--levels",
        type=positive,
        metavar="N",
        help="value of white in images of more than 8 bits (255, 1023, 4095, 65535, ...), where "
        "their files do not say it and it is not evident",
    )


def add_text(parser: argparse.ArgumentParser) -> None:
    """The option that a HEIE on a language model takes."""
    parser.add_argument(
        "--text",
        choices=("generate", "template"),
        help="of a HEIE on a language model: it writes its explanation (generate, the default of "
        "one that learnt to write), or a fixed text takes its place, which is far faster and "
        "explains nothing (template, the default of one trained with mllm.text=none or short)",
    )


def add_batch_size(parser: argparse.ArgumentParser) -> None:
    """How many images pass through a model together; the predictor knows the default."""
    parser.add_argument(
        "--batch-size",
        type=positive,
        metavar="N",
        help="images that pass through the model together (default: 8; 1 of a HEIE on a "
        "language model, which takes far more memory)",
    )


def add_endpoint(parser: argparse.ArgumentParser) -> None:
    """Options that name a vision-language model behind an endpoint."""
    add_vlm_server(
        parser,
        "instead of a model here: an OpenAI-compatible endpoint, http://localhost:8000/v1, whose "
        "vision-language model is asked FakeXplainer's question",
        "qwen2_5_vl, qwen3_vl, internvl, ... (model_type of its checkpoint)",
    )
    option = parser.add_argument
    option(
        "--vlm-layout",
        choices=("user", "system", "brief"),
        help="turn of the chat that describes the task (user); brief: none does",
    )
    add_value(parser, "--vlm-max-tokens", positive, None, "tokens of an answer (1024)")
    add_value(
        parser,
        "--vlm-max-pixels",
        positive,
        None,
        "of qwen2_5_vl: limit to which the server resizes images (12845056)",
    )


def add_vlm_server(parser: argparse.ArgumentParser, url: str, family: str) -> None:
    """Options that say where a vision-language model is, and what its coordinates mean.

    Args:
        parser: of a command.
        url: help of ``--vlm-url``.
        family: end of the help of ``--vlm-family``.
    """
    option = parser.add_argument
    option("--vlm-url", metavar="URL", help=url)
    option("--vlm-model", metavar="NAME", help="as that server calls it")
    option("--vlm-family", metavar="FAMILY", help=f"what its coordinates mean: {family}")
    option(
        "--vlm-key-env",
        metavar="VARIABLE",
        help="environment variable that holds that server's key (OPENAI_API_KEY)",
    )


def open_endpoint(args: argparse.Namespace) -> EndpointPredictor | None:
    """The model behind the endpoint that was named; None if none was.

    Raises:
        ArtifactNetError: an option is missing, or without ``--vlm-url``; see `load_endpoint`.
    """
    from artifactnet.types import ArtifactNetError

    given = {
        "layout": args.vlm_layout,
        "max_tokens": args.vlm_max_tokens,
        "max_pixels": args.vlm_max_pixels,
        "key_variable": args.vlm_key_env,
    }
    given = {name: value for name, value in given.items() if value is not None}
    named = (args.vlm_url, args.vlm_model, args.vlm_family)
    if not any(named) and not given:
        return None
    if not all(named):
        raise ArtifactNetError("--vlm-url, --vlm-model and --vlm-family come together")
    from artifactnet.vlm.fakexplainer.endpoint import load_endpoint

    return load_endpoint(*named, **given)


def add_judge_endpoint(parser: argparse.ArgumentParser, judges: str) -> None:
    """Options that name a model behind an endpoint that compares texts.

    Args:
        parser: of a command.
        judges: what it does, for the help.
    """
    option = parser.add_argument
    option("--judge-url", metavar="URL", help=f"OpenAI-compatible endpoint that judges {judges}")
    option("--judge-model", metavar="NAME", help="as that server calls it")
    option(
        "--judge-key-env",
        metavar="VARIABLE",
        help="environment variable that holds that server's key (OPENAI_API_KEY)",
    )


def open_judge(args: argparse.Namespace) -> Chat | None:
    """The judge that was named, or None.

    Raises:
        ArtifactNetError: its options contradict each other, or it cannot be used.
    """
    from artifactnet.types import ArtifactNetError

    if (args.judge_url is None) != (args.judge_model is None):
        raise ArtifactNetError("--judge-url and --judge-model come together")
    if args.judge_url is None:
        if args.judge_key_env is not None:
            raise ArtifactNetError("--judge-key-env needs --judge-url and --judge-model")
        return None
    return open_chat_at(args.judge_url, args.judge_model, args.judge_key_env)


def open_chat_at(url: str, model: str, key_variable: str | None) -> Chat:
    """A model at an endpoint; ``key_variable`` None: the usual environment variable."""
    from artifactnet.llm.client import KEY_VARIABLE, Chat, Endpoint

    return Chat(Endpoint(url, key_variable or KEY_VARIABLE), model)
