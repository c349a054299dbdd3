"""What each part of FakeXplainer's training and answers is worth (FakeXplainer, Table 4)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from artifactnet.config import load
from artifactnet.evaluation.results import JSON
from artifactnet.experiments.common import (
    check_seeds,
    read_results,
    refuse_own_keys,
    train_once,
    write_table,
)
from artifactnet.files import write_json
from artifactnet.vlm.fakexplainer.evaluate import evaluate_untrained

NAME = "fakexplainer-ablation"
TITLE = "Parts of the training and of the answers (FakeXplainer Table 4)"
SFT, GRPO = "paper/fakexplainer_sft", "paper/fakexplainer_grpo"
# column -> field of `artifactnet.vlm.fakexplainer.figures.compute_figures`
COLUMNS = {"Acc": "accuracy", "IoU": "iou", "BLEU-2": "bleu_2", "ROUGE-L": "rouge_l"}
MORE = {"pooled IoU": "iou_pooled", "strict form": "strict"}
_OWN = (
    *("mllm.drop", "mllm.stage", "mllm.adapters", "mllm.grpo.grounding"),
    *("name", "out", "seed"),
)
_NOTE = (
    "IoU, BLEU-2 and ROUGE-L are over generated test images; what answers are taught without has "
    "no figure. No-FT is the base model with the prompt of the others; w_G is the weight of the "
    "grounding reward."
)


@dataclass(frozen=True, slots=True)
class _Row:
    """A row of the table.

    Attributes:
        title: of the row.
        drop: what answers lack.
        grounding: weight of the grounding reward in the second stage; None: without that stage.
        trained: False for the base as it is.
    """

    title: str
    drop: str = "none"
    grounding: str | None = "linear"
    trained: bool = True


ROWS = {
    "base": _Row("No-FT", grounding=None, trained=False),
    "sft": _Row("SFT alone", grounding=None),
    "linear": _Row("SFT, then GRPO with w_G from 0.5 to 1"),
    "w1": _Row("... with w_G = 1", grounding="1"),
    "w05": _Row("... with w_G = 0.5", grounding="0.5"),
    "no_bbox": _Row("... without boxes", drop="bbox"),
    "no_caption": _Row("... without captions", drop="caption"),
    "no_tags": _Row("... without tags", drop="tags"),
    "label_only": _Row("... with the verdict alone", drop="label"),
}


def run_fakexplainer_ablation(
    seeds: Sequence[int], out: str | Path, overrides: Sequence[str] = ()
) -> dict[str, Any]:
    """Train and evaluate all of `ROWS`; write ``fakexplainer-ablation.json`` and ``.md``.

    Five trainings of the first stage (one for each form of answers) and seven of the second. Runs
    live in ``out/fx_STAGE_KEY_sSEED``. Finished ones are reused and interrupted ones resumed, so
    the same command continues after an interruption.

    Args:
        seeds: each training is repeated with each of them.
        out: folder for runs and tables.
        overrides: ``dotted.key=value`` strings for both stages, e.g. ``data.root=FX``.

    Returns:
        The content of ``fakexplainer-ablation.json``.

    Raises:
        ArtifactNetError: no seed or one twice, an override that decides what the rows compare, a
            run in ``out`` was made with another config, or any error of a training.
    """
    check_seeds(seeds)
    refuse_own_keys(overrides, _OWN, NAME)
    folder = Path(out)
    plans = {
        (key, seed): _plan(row, seed, folder, overrides)
        for seed in seeds
        for key, row in ROWS.items()
    }
    for plan in plans.values():  # check all of them before the first is trained
        for recipe, changes in plan:
            load(recipe, changes)
    values: dict[tuple[str, int], dict[str, float | None]] = {}
    for (key, seed), plan in plans.items():
        if ROWS[key].trained:
            for recipe, changes in plan:  # a stage that several rows share is trained once
                run = train_once(recipe, changes)
            values[key, seed] = _figures(read_results(run))
        else:
            values[key, seed] = _figures(_untrained(*plan[0], folder / f"fx_base_s{seed}"))
    about = {
        "experiment": NAME,
        "title": TITLE,
        "seeds": list(seeds),
        "overrides": list(overrides),
        "notes": [_NOTE],
        "missing": "-",
    }
    rows = {key: {"title": row.title, "method": None} for key, row in ROWS.items()}
    return write_table(folder, about, rows, values, [*COLUMNS, *MORE])


def _plan(
    row: _Row, seed: int, folder: Path, overrides: Sequence[str]
) -> list[tuple[str, list[str]]]:
    """Recipe and overrides of each training that leads to a row."""

    def run(recipe: str, name: str, *own: str) -> tuple[str, list[str]]:
        about = [f"mllm.drop={row.drop}", f"name={name}", f"out={folder}", f"seed={seed}"]
        return recipe, [*overrides, *own, *about]

    first = f"fx_sft_{row.drop}_s{seed}"
    plan = [run(SFT, first)]
    if row.grounding is not None:
        second = f"fx_grpo_{row.drop}_{row.grounding}_s{seed}"
        own = [f"mllm.adapters={folder / first}", f"mllm.grpo.grounding={row.grounding}"]
        plan.append(run(GRPO, second, *own))
    return plan


def _untrained(recipe: str, changes: Sequence[str], folder: Path) -> Mapping[str, Any]:
    """Results of the base, which an earlier call may have written."""
    config, asked = load(recipe, changes), folder / "asked.json"
    question = {"base": config.mllm.base, "revision": config.mllm.revision, "changes": [*changes]}
    earlier = asked.read_text(encoding="utf-8") if asked.is_file() else "null"
    if (folder / JSON).is_file() and json.loads(earlier) == question:
        return read_results(folder)
    results = evaluate_untrained(config, folder)
    write_json(asked, question)
    return results


def _figures(results: Mapping[str, Any]) -> dict[str, float | None]:
    row = results["fakexplainer"]["all"]
    return {column: row[field] for column, field in {**COLUMNS, **MORE}.items()}
