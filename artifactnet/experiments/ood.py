"""Any models on public test sets that none was trained on (FakeXplainer, Tables 3 and 6)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from artifactnet import files
from artifactnet.data.damage import ORIGINAL, parse_level
from artifactnet.data.test_sets.base import TestSet
from artifactnet.data.test_sets.read import TestSetOptions
from artifactnet.evaluation.tables import markdown_table
from artifactnet.experiments import side_by_side
from artifactnet.experiments.chosen_sets import read_sets
from artifactnet.experiments.evaluated_models import (
    check_prediction_files,
    open_model,
    parse_models,
)
from artifactnet.experiments.judging import Conditions, judge_level, show
from artifactnet.experiments.leaks import leave_out_trained
from artifactnet.experiments.level_figures import level_figures
from artifactnet.experiments.side_by_side import InferenceOptions, board_condition, cell
from artifactnet.names import visible

NAME = "ood"
TITLE = "Out of distribution (FakeXplainer Table 3)"
READINGS = (
    side_by_side.UNJUDGED,
    "Acc is over all images, as in the paper, whose sets have equal classes; BA is balanced "
    "accuracy; of a set of one class there is its recall alone",
    "a part's real images are its own, or those that belong to no part",
)
# Table 3 of the paper: Acc
PAPER_SETS = ("fakeclue", "chameleon", "gptimage", "ffpp", "mmfr")
PAPER = {
    "FakeXplainer": (0.852, 0.843, 0.801, 0.864, 0.874),
    "ObjectFormer": (0.462, 0.485, 0.513, 0.598, 0.653),
    "SegFormer": (0.485, 0.508, 0.538, 0.716, 0.657),
    "NPR": (0.833, 0.794, 0.790, 0.861, 0.569),
    "DMD": (0.734, 0.721, 0.735, 0.562, 0.619),
    "ComFor": (0.766, 0.757, 0.636, 0.429, 0.595),
    "AntifakePrompt": (0.849, 0.803, 0.597, 0.746, 0.786),
    "AEROBLADE": (0.239, 0.291, 0.458, 0.681, 0.685),
    "DIRE": (0.727, 0.752, 0.793, 0.850, 0.624),
    "FakeShield": (0.550, 0.587, 0.752, 0.773, 0.710),
    "LEGION": (0.172, 0.197, 0.238, 0.395, 0.193),
}


def run_ood(
    models: Sequence[str],
    sets: Mapping[str, str],
    out: str | Path,
    *,
    keep_duplicates: bool = False,
    paper: bool = False,
    reals: Sequence[str] = (),
    options: TestSetOptions | None = None,
    inference: InferenceOptions | None = None,
) -> dict[str, Any]:
    """Judge test sets and write ``ood.json`` and ``ood.md``.

    Answers are in ``OUT/ood/answers/MODEL/SET/original.jsonl``. Called again after a kill, it goes
    on. A set that does not exist has no figures. Two or more models also get
    ``OUT/ood/leaderboard.html``.

    Args:
        models: ``[NAME=]MODEL``, see `parse_models`.
        sets: name -> folder or file of a test set.
        out: folder of tables and answers.
        keep_duplicates: see `leave_out_trained`.
        paper: add the paper's own numbers, as a table of their own.
        reals: see `read_sets`.
        options: what layouts of sets leave open.
        inference: how models are opened and asked.

    Returns:
        The content of ``ood.json``.

    Raises:
        ArtifactNetError: a model or set is unknown or named twice, no set exists, a set cannot be
            read, or a model cannot be opened or fails altogether; see `judge_level`.
    """
    inference = inference or InferenceOptions()
    specs = parse_models(models)
    missing: dict[str, str] = {}
    read = read_sets(sets, reals, options, missing)
    check_prediction_files(specs, read)
    read, trained, warnings = leave_out_trained(specs, read, keep_duplicates)
    about = side_by_side.describe_sets(read)
    opened = [open_model(one, inference.device, inference.batch_size) for one in specs]
    folder, level = Path(out) / NAME, parse_level(ORIGINAL)
    conditions = Conditions(workers=inference.workers)
    rows: list[dict[str, Any]] = []
    board = []
    for name, test_set in read.items():
        lines = judge_level(
            test_set, level, opened, folder / "answers", conditions, inference.report, where=False
        )
        load = partial(show, test_set, level, conditions)
        board.append(board_condition(name, test_set, lines, load))
        for model, answers in lines.items():
            rows.append(
                {
                    "set": name,
                    "model": model,
                    "level": ORIGINAL,
                    **level_figures(test_set.records, answers, None),
                    "parts": _parts(test_set, answers),
                    "failures": side_by_side.failures_of(answers),
                }
            )
    found: dict[str, Any] = {
        "experiment": NAME,
        "title": side_by_side.title_with_reals(TITLE, reals),
        "order": list(sets),
        "sets": about,
        "missing": missing,
        "models": side_by_side.describe_models(opened),
        "versions": side_by_side.versions(),
        "readings": list(READINGS),
        "trained": trained,
        "keep_duplicates": keep_duplicates,
        "warnings": [*warnings, *side_by_side.failure_warnings(rows)],
        "rows": rows,
        "paper": PAPER if paper else None,
    }
    files.write_json(Path(out) / f"{NAME}.json", found)
    files.write_text(Path(out) / f"{NAME}.md", ood_page(found))
    side_by_side.write_board(folder, found, board)
    return found


def _parts(test_set: TestSet, lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Figures of each part of a set, beside the real images of no part; none where there is one."""
    names = sorted(set(test_set.parts) - {""})
    if len(names) < 2:
        return {}
    found = {}
    for name in names:
        own = [k for k, part in enumerate(test_set.parts) if part == name]
        shared = [k for k, part in enumerate(test_set.parts) if part == ""]
        chosen = own + [k for k in shared if test_set.records[k].label == 0]
        records = [test_set.records[k] for k in chosen]
        found[name] = level_figures(records, [lines[k] for k in chosen], None)
    return found


def ood_page(found: Mapping[str, Any]) -> str:
    """Markdown of what `run_ood` returned: a column per set, then the parts of each set."""
    lines = [f"# {found['title']}", "", *side_by_side.notes(found), "", *_table(found), ""]
    for name in found["sets"]:
        rows = [row for row in found["rows"] if row["set"] == name]
        parts = list(rows[0]["parts"]) if rows else []
        if parts:
            table = [
                [visible(part), *(_part_cell(row["parts"][part]) for row in rows)] for part in parts
            ]
            header = ["part", *(row["model"] for row in rows)]
            lines += [f"## {name}: BA, or recall of fakes without real images", ""]
            lines += [*markdown_table(header, table), ""]
    lines += side_by_side.failure_lines(found["rows"])
    if found["paper"]:
        table = [[model, *map(cell, values)] for model, values in found["paper"].items()]
        lines += ["## The paper's numbers: Acc", ""]
        lines += markdown_table(["model", *PAPER_SETS], table)
    return "\n".join(lines).rstrip() + "\n"


def _part_cell(figures: Mapping[str, Any]) -> str:
    keys = ("balanced_accuracy", "fake_recall")  # of a part without fakes there is nothing
    return cell(next((figures[key] for key in keys if figures[key] is not None), None))


def _table(found: Mapping[str, Any]) -> list[str]:
    columns: list[tuple[str, str, str]] = []  # set, title, key
    for name in found["order"]:
        about = found["sets"].get(name)
        if about is None:
            columns.append((name, name, ""))
        elif about["real"] and about["fake"]:
            columns += [
                (name, f"{name} Acc", "accuracy"),
                (name, f"{name} BA", "balanced_accuracy"),
            ]
        else:
            only = "fake" if about["fake"] else "real"
            columns.append((name, f"{name} recall of {only}", f"{only}_recall"))
    rows = {(row["model"], row["set"]): row for row in found["rows"]}
    table = [
        [model, *(cell(rows.get((model, name), {}).get(key)) for name, _, key in columns)]
        for model in found["models"]
    ]
    return markdown_table(["model", *(title for _, title, _ in columns)], table)
