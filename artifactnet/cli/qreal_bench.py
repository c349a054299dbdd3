"""``score-qreal`` and ``benchmark-qreal``: how well models see what is wrong with entities."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from artifactnet.cli import arguments

if TYPE_CHECKING:
    from artifactnet.llm.client import Chat
    from artifactnet.vlm.questions import Answerer

JUDGES = "how similar descriptions are (LLM-Score)"
# options of a model on this machine, and of one behind an endpoint
_HERE, _THERE = ("revision", "device"), ("vlm_url", "vlm_model", "vlm_family", "vlm_key_env")


def add_score_qreal_options(parser: argparse.ArgumentParser) -> None:
    """Options of ``score-qreal``."""
    option = parser.add_argument
    _add_truth(parser)
    option(
        "predictions",
        nargs="+",
        metavar="PREDICTIONS.jsonl",
        help='lines {"entity", "question", "answer" or "score"} or {"image", "dimension", '
        '"answer" or "boxes"}, in any order',
    )
    option("--out", metavar="DIR", help="also write results.json and .md there")
    option(
        "--coordinates",
        choices=("image", "thousandths"),
        help="what the numbers of an answer mean whose line has no input_size: pixels of the "
        "image, or 0 to 1000 over it",
    )
    option(
        "--check-images",
        action="store_true",
        help="check that annotated boxes lie in their images, which must be there then",
    )
    _add_figures(parser)


def add_benchmark_qreal_options(parser: argparse.ArgumentParser) -> None:
    """Options of ``benchmark-qreal``."""
    option = parser.add_argument
    _add_truth(parser)
    option(
        "--model",
        metavar="MODEL",
        help="name or folder of a checkpoint for transformers, or folder of a run; or a model "
        "behind an endpoint, see --vlm-url",
    )
    option(
        "--chain",
        nargs=3,
        metavar=("DETECT", "FILTER", "DESCRIBE"),
        help="instead of a model: folders of three runs, which answer the task image together",
    )
    option("--out", required=True, metavar="DIR", help="folder for answers and tables")
    option(
        "--tasks",
        nargs="+",
        choices=("object", "image"),
        help="object: six questions about each entity; image: entities with a problem (both)",
    )
    option(
        "--context",
        choices=("crop", "image"),
        help="what is shown for a question about an entity (as a run was taught, else crop)",
    )
    option(
        "--tuned",
        action=argparse.BooleanOptionalAction,
        help='the model was taught to answer Yes or No: leave out "Answer with Yes or No." (of a '
        "run, as it was taught)",
    )
    add_answerer(parser)
    _add_figures(parser)


def add_answerer(parser: argparse.ArgumentParser) -> None:
    """Options of a model that answers any question, here or behind an endpoint."""
    option = parser.add_argument
    option("--revision", metavar="REV", help="commit, tag or branch of --model")
    arguments.add_value(
        parser, "--max-tokens", arguments.positive, None, "of an answer (1024; of a run also more)"
    )
    option("--device", help="of --model: auto, cpu, cuda, cuda:1, ... (auto)")
    arguments.add_value(
        parser, "--batch-size", arguments.positive, None, "questions asked together (1; endpoint 8)"
    )
    arguments.add_vlm_server(
        parser,
        "instead of a model here: an OpenAI-compatible endpoint, http://localhost:8000/v1",
        "qwen2_5_vl, internvl, ... (model_type of its checkpoint); left out: 0 to 1000",
    )


def answerer_options(args: argparse.Namespace) -> list[str]:
    """Those of `add_answerer` and ``--model`` that were given."""
    names = ("model", "max_tokens", "batch_size", *_HERE, *_THERE)
    return [_flag(name) for name in names if getattr(args, name) is not None]


def open_answerer(args: argparse.Namespace) -> Answerer:
    """The model that was named, local or behind an endpoint.

    Raises:
        ArtifactNetError: none or two were named, an option is of the other kind, or the model
            cannot be used.
    """
    from artifactnet.types import ArtifactNetError
    from artifactnet.vlm.questions import MAX_TOKENS, EndpointAnswerer, load_answerer

    if (args.model is None) == (args.vlm_url is None):
        raise ArtifactNetError("name one model: --model, or --vlm-url with --vlm-model")
    other = _HERE if args.model is None else _THERE
    given = [_flag(name) for name in other if getattr(args, name) is not None]
    if given:
        needed, named = ("--model", "--vlm-url") if args.model is None else ("--vlm-url", "--model")
        raise ArtifactNetError(f"{given[0]} belongs to {needed}, not to {named}")
    if args.model is not None:
        from artifactnet.runs.device import choose_device

        device = choose_device(args.device or "auto")
        return load_answerer(args.model, device, args.max_tokens, args.revision)
    if args.vlm_model is None:
        raise ArtifactNetError("--vlm-url and --vlm-model come together")
    chat = arguments.open_chat_at(args.vlm_url, args.vlm_model, args.vlm_key_env)
    return EndpointAnswerer(chat, args.vlm_family, args.max_tokens or MAX_TOKENS)


def run_score_qreal(args: argparse.Namespace) -> int:
    """Run ``score-qreal``; returns the exit code."""
    from artifactnet.vlm.qreal.score import score_qreal

    results = score_qreal(
        args.truth,
        args.predictions,
        args.out,
        split=args.split,
        unit=args.coordinates,
        area=args.auc,
        judge=arguments.open_judge(args),
        allow_missing=args.allow_missing,
        check_images=args.check_images,
    )
    return _finish(results, args.out)


def run_benchmark_qreal(args: argparse.Namespace) -> int:
    """Run ``benchmark-qreal``; returns the exit code."""
    from artifactnet.types import ArtifactNetError
    from artifactnet.vlm.qreal.benchmark import TASKS, run_benchmark

    judge = arguments.open_judge(args)
    if args.chain is not None:
        return _finish(_run_chain(args, judge), args.out)
    tasks = TASKS if args.tasks is None else args.tasks
    given = [_flag(name) for name in ("context", "tuned") if getattr(args, name) is not None]
    if given and "object" not in tasks:
        raise ArtifactNetError(f"{given[0]} is of questions about entities: --tasks object")
    answerer = open_answerer(args)
    results = run_benchmark(
        args.truth,
        answerer,
        args.out,
        tasks=tasks,
        split=args.split,
        context=args.context,
        tuned=args.tuned,
        area=args.auc,
        judge=judge,
        batch_size=args.batch_size,
        allow_missing=args.allow_missing,
        report=_report_answers,
    )
    return _finish(results, args.out)


def _run_chain(args: argparse.Namespace, judge: Chat | None) -> dict[str, Any]:
    from artifactnet.runs.device import choose_device
    from artifactnet.types import ArtifactNetError
    from artifactnet.vlm.qreal.chain import run_chain
    from artifactnet.vlm.qreal.rows import STAGES
    from artifactnet.vlm.questions import load_answerer
    from artifactnet.vlm.tuned_chat import read_tuned_chat

    names = ("model", "revision", "context", "tuned", *_THERE)
    given = [_flag(name) for name in names if getattr(args, name) is not None]
    if given:
        raise ArtifactNetError(f"{given[0]} does not go with --chain, which names its models")
    if args.tasks not in (None, ["image"]):
        raise ArtifactNetError("--chain answers --tasks image alone")
    device = choose_device(args.device or "auto")
    models: dict[str, Callable[[], Answerer]] = {}
    for stage, run in zip(STAGES, args.chain, strict=True):
        mllm, _ = read_tuned_chat(run)  # now, before the first of them answers
        if mllm.task != f"qreal_{stage}":
            raise ArtifactNetError(f"{run}: was trained with mllm.task={mllm.task}, not {stage}")
        limit = args.max_tokens or mllm.max_new_tokens
        models[stage] = partial(load_answerer, run, device, limit)
    return run_chain(
        args.truth,
        models,
        args.out,
        split=args.split,
        area=args.auc,
        judge=judge,
        batch_size=args.batch_size,
        allow_missing=args.allow_missing,
        report=_report_answers,
    )


def _report_answers(count: int) -> None:
    arguments.print_line(f"{count} answers", sys.stderr)


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _add_truth(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("truth", metavar="QREAL.jsonl", help="annotated images, see docs/qreal.md")


def _add_figures(parser: argparse.ArgumentParser) -> None:
    option = parser.add_argument
    option(
        "--split",
        choices=("train", "val", "test", "all"),
        help="by default test, or all where no image is in it",
    )
    option(
        "--auc",
        choices=("exact", "grid"),
        default="exact",
        help="area under the detection rate: exact, or trapezoids over 0, 0.1, ..., 1 (exact)",
    )
    arguments.add_allow_missing(parser)
    arguments.add_judge_endpoint(parser, JUDGES)


def _finish(results: dict[str, Any], out: str | None) -> int:
    from artifactnet.vlm.qreal.pages import results_page

    arguments.print_warnings(results["figures"]["warnings"])
    for line in results_page(results).splitlines():
        if not line.startswith("WARNING: "):
            arguments.print_line(line)
    if out is not None:
        arguments.print_line(f"tables in {Path(out) / 'results'}.md and .json")
    return 0
