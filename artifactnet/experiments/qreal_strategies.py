"""Ways of teaching a model Q-Real's lists of problems, compared (Q-Real, Table 4).

The paper's strategy 1, a chain of three models (detection, filtering, description), is not part of
this: it needs three more tasks.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from artifactnet.config import ConfigError, load
from artifactnet.data.qreal import DIMENSIONS
from artifactnet.experiments.common import check_seeds, read_results, train_once, write_table
from artifactnet.llm.client import Chat
from artifactnet.names import visible
from artifactnet.runs import run_folder
from artifactnet.vlm.qreal.benchmark import ANSWERS
from artifactnet.vlm.qreal.score import score_qreal
from artifactnet.vlm.qreal.trainer import BENCHMARK

NAME = "qreal-strategies"
TITLE = "Strategies of fine-tuning, judged on ImageQA (Q-Real Table 4)"
OBJECT, IMAGE = "paper/qreal_objectqa", "paper/qreal_imageqa"
JUDGED = "judged"  # folder below a run: the judge's answers, and figures with them
# the paper's numbers -> title
STRATEGIES = {"2": "2: ObjectQA, then ImageQA", "3": "3 (*): ImageQA from the base"}
# column -> field of `artifactnet.metrics.entity_boxes.box_figures`
COLUMNS = {"IoU": "iou", "detection rate": "detection_rate", "AUC": "auc"}
SCORES = {"LLM-Score": "score", "LLM-Score, all": "all"}  # fields of "llm"
MORE = {"recall": "recall", "none": "silent", "boxes": "boxes"}  # an image
_OWN = ("mllm.task", "mllm.stage", "mllm.adapters", "data.name", "name", "out", "seed")
_NOTE = (
    "The last stage of both is the same recipe on the same data. IoU, detection rate, AUC and "
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

    Three trainings a seed, in ``out/qreal_objectqa_sSEED`` and ``out/qreal_imageqa_KEY_sSEED``.
    Finished ones are reused and interrupted ones resumed, and the judge is asked nothing twice, so
    the same command continues after an interruption.

    Args:
        seeds: each training is repeated with each of them.
        out: folder for runs and tables.
        overrides: ``dotted.key=value`` strings for all trainings, e.g. ``data.root=qreal.jsonl``.
        judge: model that compares descriptions; None: there is no LLM-Score.

    Returns:
        The content of ``qreal-strategies.json``.

    Raises:
        ArtifactNetError: no seed or one twice, an override that decides what is compared, a run in
            ``out`` was made with another config, or any error of a training.
    """
    check_seeds(seeds)
    for override in overrides:
        key = override.partition("=")[0]
        if key in _OWN:
            raise ConfigError(f"{key} cannot be set for {NAME}: each training has its own")
    folder = Path(out)
    plans = {
        (key, seed): _plan(key, seed, folder, overrides) for seed in seeds for key in STRATEGIES
    }
    for plan in plans.values():  # check all of them before the first is trained
        for recipe, changes in plan:
            load(recipe, changes)
    values: dict[tuple[str, int], dict[str, float | None]] = {}
    warnings: dict[str, list[str]] = {}  # text -> the runs that it is about
    for (key, seed), plan in plans.items():
        for recipe, changes in plan:
            run = train_once(recipe, changes)
        trained = read_results(run)
        found = _score(run, trained, judge)
        for dimension in DIMENSIONS:
            values[f"{key}_{dimension}", seed] = _row(found["image"][dimension])
        learned = json.loads((run / run_folder.DATA).read_text(encoding="utf-8"))
        said = [
            *(f"{trained['data']['root']}: {text}" for text in learned["warnings"]),
            *trained["benchmark"]["figures"]["warnings"],
            *found["warnings"],
        ]
        for text in dict.fromkeys(said):
            warnings.setdefault(text, []).append(run.name)
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

    last = f"qreal_imageqa_{key}_s{seed}"
    if key == "3":
        return [run(IMAGE, last)]
    first = f"qreal_objectqa_s{seed}"
    return [run(OBJECT, first), run(IMAGE, last, f"mllm.adapters={folder / first}")]


def _score(run: Path, trained: Mapping[str, Any], judge: Chat | None) -> dict[str, Any]:
    """Figures of the answers that a run's own benchmark saved, with the judge's."""
    data = trained["data"]
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
