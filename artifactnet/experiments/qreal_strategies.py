"""Ways of teaching Q-Real's lists of problems, compared (Q-Real, Table 4)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from artifactnet.config import Config, load
from artifactnet.data.qreal import DIMENSIONS
from artifactnet.experiments.common import (
    check_seeds,
    compute_once,
    read_results,
    refuse_own_keys,
    train_once,
    write_table,
)
from artifactnet.files import hash_files, sha256_file
from artifactnet.llm.client import Chat
from artifactnet.names import visible
from artifactnet.runs import run_folder
from artifactnet.runs.device import choose_device
from artifactnet.types import ArtifactNetError
from artifactnet.vlm.qreal.benchmark import ANSWERS
from artifactnet.vlm.qreal.chain import run_chain
from artifactnet.vlm.qreal.figures import SPLIT
from artifactnet.vlm.qreal.rows import STAGES
from artifactnet.vlm.qreal.score import score_qreal
from artifactnet.vlm.qreal.trainer import BENCHMARK
from artifactnet.vlm.questions import Answerer, load_answerer
from artifactnet.vlm.tuned import BASE, WEIGHTS

NAME = "qreal-strategies"
TITLE = "Strategies of fine-tuning, judged on ImageQA (Q-Real Table 4)"
OBJECT, IMAGE = "paper/qreal_objectqa", "paper/qreal_imageqa"
CHAIN = "1"  # a key of `STRATEGIES`
JUDGED = "judged"  # folder below a run: the judge's answers, and figures with them
# the paper's numbers -> title
STRATEGIES = {
    CHAIN: "1: detection, filtering, description",
    "2": "2: ObjectQA, then ImageQA",
    "3": "3 (*): ImageQA from the base",
}
# column -> field of `artifactnet.metrics.entity_boxes.box_figures`
COLUMNS = {"IoU": "iou", "detection rate": "detection_rate", "AUC": "auc"}
SCORES = {"LLM-Score": "score", "LLM-Score, all": "all"}  # fields of "llm"
MORE = {"recall": "recall", "none": "silent", "boxes": "boxes"}  # an image
_OWN = ("mllm.task", "mllm.stage", "mllm.adapters", "data.name", "name", "out", "seed")
_NOTE = (
    "Strategy 1 is a chain of three models, each taught its part of the same data. The last stage "
    "of 2 and 3 is the same recipe. IoU, detection rate, AUC and "
    "LLM-Score reward silence, so recall (pairs above 0.5 over true boxes), the share of images "
    "whose answer is none, and boxes an image stand beside them."
)


def run_qreal_strategies(
    seeds: Sequence[int],
    out: str | Path,
    overrides: Sequence[str] = (),
    judge: Chat | None = None,
) -> dict[str, Any]:
    """Train and judge `STRATEGIES`; write ``qreal-strategies.json`` and ``.md`` (Q-Real, Sec. 5).

    Six trainings a seed, in ``out/qreal_STAGE_sSEED`` for the `STAGES` of the chain, whose answers
    are in ``out/qreal_chain_sSEED``, ``out/qreal_objectqa_sSEED`` and
    ``out/qreal_imageqa_KEY_sSEED``. Finished ones are reused and interrupted ones resumed, and no
    model or judge is asked anything twice, so the same command continues after an interruption.

    Args:
        seeds: each training is repeated with each of them.
        out: folder for runs and tables.
        overrides: ``dotted.key=value`` strings for all trainings, e.g. ``data.root=qreal.jsonl``.
        judge: model that compares descriptions; None: there is no LLM-Score.

    Returns:
        The content of ``qreal-strategies.json``.

    Raises:
        ArtifactNetError: no seed or one twice, an override that decides what is compared, a run in
            ``out`` was made with another config or other annotations, or any error of a training.
    """
    check_seeds(seeds)
    refuse_own_keys(overrides, _OWN, NAME)
    folder = Path(out)
    plans = {
        (key, seed): _plan(key, seed, folder, overrides) for seed in seeds for key in STRATEGIES
    }
    for plan in plans.values():  # check all of them before the first is trained
        for recipe, changes in plan:
            _check_annotations(load(recipe, changes))
    values: dict[tuple[str, int], dict[str, float | None]] = {}
    warnings: dict[str, list[str]] = {}  # text -> the runs that it is about
    for (key, seed), plan in plans.items():
        runs = [train_once(recipe, changes) for recipe, changes in plan]
        trained = read_results(runs[-1])
        answered, benchmark = runs[-1], trained["benchmark"]
        if key == CHAIN:
            answered = folder / f"qreal_chain_s{seed}"
            benchmark = _run_chain(dict(zip(STAGES, runs, strict=True)), answered)
        found = _score(answered, trained["data"], judge)
        for dimension in DIMENSIONS:
            values[f"{key}_{dimension}", seed] = _row(found["image"][dimension])
        learned = json.loads((runs[-1] / run_folder.DATA).read_text(encoding="utf-8"))
        said = [
            *(f"{trained['data']['root']}: {text}" for text in learned["warnings"]),
            *benchmark["figures"]["warnings"],
            *found["warnings"],
        ]
        for text in dict.fromkeys(said):
            warnings.setdefault(text, []).append(answered.name)
    about = {
        "experiment": NAME,
        "title": TITLE,
        "seeds": list(seeds),
        "overrides": list(overrides),
        "judge": None if judge is None else judge.model,
        "notes": [_NOTE, *_notes(warnings, len(plans))],
        "missing": "-",
    }
    rows = {
        f"{key}_{dimension}": {"title": title, "method": dimension}
        for dimension in DIMENSIONS
        for key, title in STRATEGIES.items()
    }
    return write_table(folder, about, rows, values, [*COLUMNS, *SCORES, *MORE])


def _plan(
    key: str, seed: int, folder: Path, overrides: Sequence[str]
) -> list[tuple[str, list[str]]]:
    """Recipe and overrides of each training of a strategy."""

    def run(recipe: str, name: str, *own: str) -> tuple[str, list[str]]:
        return recipe, [*overrides, *own, f"name={name}", f"out={folder}", f"seed={seed}"]

    if key == CHAIN:
        return [run(f"paper/qreal_{stage}", f"qreal_{stage}_s{seed}") for stage in STAGES]
    last = f"qreal_imageqa_{key}_s{seed}"
    if key == "3":
        return [run(IMAGE, last)]
    first = f"qreal_objectqa_s{seed}"
    return [run(OBJECT, first), run(IMAGE, last, f"mllm.adapters={folder / first}")]


def _check_annotations(config: Config) -> None:
    """Refuse a run that is there already, but was trained on another file."""
    run = Path(config.out) / config.name
    if not (run / run_folder.CONFIG).is_file():
        return
    was, now = (str(c.data.root) for c in (run_folder.read_config(run), config))
    if Path(was).resolve() != Path(now).resolve():
        raise ArtifactNetError(
            f"{run} was trained with data.root={was}, not {now}: a table compares runs on the same "
            "annotations; choose another --out or delete that run"
        )


def _run_chain(runs: Mapping[str, Path], out: Path) -> dict[str, Any]:
    """The benchmark's results of three runs in a chain, by stage; what is known is not asked again.

    Several 7B models take minutes to load, so those that have answered all are not.
    """
    config = run_folder.read_config(runs[STAGES[-1]])
    data = read_results(runs[STAGES[-1]])["data"]

    def loader(run: Path) -> Callable[[], Answerer]:
        device = choose_device(config.train.device)
        limit = run_folder.read_config(run).mllm.max_new_tokens
        return lambda: load_answerer(run, device, limit)

    def ask() -> dict[str, Any]:
        split = data["split"]
        return run_chain(
            data["root"],
            {stage: loader(run) for stage, run in runs.items()},
            out / BENCHMARK,
            split=split,
            batch_size=config.data.eval_batch_size or config.data.batch_size,
            replace=True,  # the folder is this experiment's alone
            warnings=[] if split == SPLIT else [f"no test split: these figures are of {split}"],
        )

    asked = {
        "runs": {stage: _weights_hash(run) for stage, run in runs.items()},
        "data": sha256_file(data["root"]),
    }
    return compute_once(out / "results.json", {"asked": asked}, ask)


def _weights_hash(run: Path) -> str:
    """SHA-256 of what a run has learned."""
    files = sorted([run / WEIGHTS, *(run / BASE).glob("*.safetensors")])
    return hash_files([file for file in files if file.is_file()], hashlib.sha256())


def _score(run: Path, data: Mapping[str, Any], judge: Chat | None) -> dict[str, Any]:
    """Figures of the answers that a benchmark saved below a folder, with the judge's."""
    results = score_qreal(
        data["root"],
        [run / BENCHMARK / ANSWERS["image"]],
        None if judge is None else run / JUDGED,
        split=data["split"],
        judge=judge,
        check_images=True,  # as the benchmark does, which clips boxes that stick out by rounding
    )
    figures: dict[str, Any] = results["figures"]
    return figures


def _row(found: Mapping[str, Any]) -> dict[str, float | None]:
    llm = found["llm"] or dict.fromkeys(SCORES.values())
    return {
        **{column: found[field] for column, field in COLUMNS.items()},
        **{column: llm[field] for column, field in SCORES.items()},
        **{column: found[field] for column, field in MORE.items()},
    }


def _notes(warnings: Mapping[str, Sequence[str]], runs: int) -> list[str]:
    """What runs have warned of, with their names unless all of them have."""
    return [
        f"WARNING: {visible(text)}" + ("" if len(names) == runs else f" ({', '.join(names)})")
        for text, names in warnings.items()
    ]
