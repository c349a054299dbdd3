"""Any models on damaged images, beside each other (FakeXplainer, Table 5)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from artifactnet import files
from artifactnet.data.damage import LEVELS, ORIGINAL, parse_level
from artifactnet.data.test_sets.read import TestSetOptions
from artifactnet.evaluation.tables import markdown_table
from artifactnet.experiments import side_by_side
from artifactnet.experiments.chosen_sets import read_sets
from artifactnet.experiments.evaluated_models import (
    check_prediction_files,
    open_model,
    parse_models,
)
from artifactnet.experiments.judging import RECODED, Conditions, judge_level, show
from artifactnet.experiments.leaks import leave_out_trained
from artifactnet.experiments.level_figures import FIGURES, RECALLS, level_figures
from artifactnet.experiments.side_by_side import InferenceOptions, board_condition, cell
from artifactnet.types import ArtifactNetError

NAME = "robustness"
TITLE = "Robustness against damage (FakeXplainer Table 5)"
# in force where a level occurs, and where there is an IoU
LEVEL_READINGS = {
    "crop": "crop keeps 0.8 of each side, since the paper gives no size; fakes whose artifacts it "
    "cuts off entirely are left out of IoU",
    "half": "half is bicubic with antialiasing, and nothing is scaled up again",
}
IOU_READING = (
    "IoU is over annotated fakes: with regions that people drew, else with masks, at the size of "
    "the damaged image; boxes: mean over images of the unions' IoU, 0 where the verdict is real; "
    "maps: pixels of all images together, above the model's own threshold"
)
# Table 5 of the paper, at `LEVELS`: Acc, and IoU of models that say where
PAPER: dict[str, tuple[tuple[float, ...], tuple[float, ...] | None]] = {
    "FakeXplainer": ((0.982, 0.979, 0.977, 0.962, 0.980), (0.360, 0.353, 0.339, 0.314, 0.362)),
    "ObjectFormer": ((0.954, 0.940, 0.926, 0.943, 0.929), (0.299, 0.284, 0.267, 0.217, 0.259)),
    "SegFormer": ((0.945, 0.927, 0.915, 0.934, 0.931), (0.289, 0.231, 0.198, 0.176, 0.254)),
    "FakeShield": ((0.801, 0.782, 0.735, 0.756, 0.748), (0.028, 0.092, 0.078, 0.067, 0.092)),
    "LEGION": ((0.583, 0.544, 0.535, 0.519, 0.591), (0.098, 0.061, 0.059, 0.061, 0.076)),
    "NPR": ((0.914, 0.820, 0.781, 0.903, 0.899), None),
    "DMD": ((0.928, 0.908, 0.897, 0.915, 0.912), None),
    "ComFor": ((0.882, 0.840, 0.784, 0.829, 0.853), None),
    "AntifakePrompt": ((0.887, 0.871, 0.856, 0.879, 0.875), None),
    "AEROBLADE": ((0.873, 0.842, 0.814, 0.858, 0.841), None),
    "DIRE": ((0.911, 0.884, 0.879, 0.891, 0.894), None),
}  # fmt: skip


def run_robustness(
    models: Sequence[str],
    sets: Mapping[str, str],
    out: str | Path,
    levels: Sequence[str] = LEVELS,
    *,
    seed: int = 0,
    recode: bool = False,
    keep_duplicates: bool = False,
    paper: bool = False,
    reals: Sequence[str] = (),
    options: TestSetOptions | None = None,
    inference: InferenceOptions | None = None,
) -> dict[str, Any]:
    """Judge damaged images and write ``robustness.json`` and ``robustness.md``.

    Each model is opened once, and each image is read and damaged once per level, for all models.
    Answers are in ``OUT/robustness/answers/MODEL/SET/LEVEL.jsonl``. Called again after a kill, it
    goes on. Two or more models also get ``OUT/robustness/leaderboard.html``.

    Args:
        models: ``[NAME=]MODEL``, see `parse_models`.
        sets: name -> folder or file of a test set.
        out: folder of tables and answers.
        levels: of damage, see `parse_level`; differences are to ``original``, if it is one.
        seed: of crops.
        recode: see `Conditions`.
        keep_duplicates: see `leave_out_trained`.
        paper: add the paper's own numbers, as a table of their own.
        reals: see `read_sets`.
        options: what layouts of sets leave open.
        inference: how models are opened and asked.

    Returns:
        The content of ``robustness.json``.

    Raises:
        ArtifactNetError: a level, model or set is unknown or named twice, a set cannot be read, or
            a model cannot be opened or fails altogether; see `judge_level`.
    """
    inference = inference or InferenceOptions()
    parsed = [parse_level(name) for name in levels]
    if len(set(parsed)) < len(parsed):
        raise ArtifactNetError(f"--levels: one is named twice: {' '.join(levels)}")
    specs = parse_models(models)
    read = read_sets(sets, reals, options)
    check_prediction_files(specs, read)
    read, trained, warnings = leave_out_trained(specs, read, keep_duplicates)
    about = side_by_side.describe_sets(read)
    opened = [open_model(one, inference.device, inference.batch_size) for one in specs]
    conditions = Conditions(seed, recode, inference.workers)
    folder = Path(out) / NAME
    rows: list[dict[str, Any]] = []
    board = []
    for name, test_set in read.items():
        for level in parsed:
            lines = judge_level(
                test_set, level, opened, folder / "answers", conditions, inference.report
            )
            load = partial(show, test_set, level, conditions)
            board.append(board_condition(f"{name} {level.name}", test_set, lines, load))
            for one in opened:
                if one.name in lines:
                    answers = lines[one.name]
                    figures = level_figures(test_set.records, answers, one.localization)
                    failures = side_by_side.failures_of(answers)
                    key = {"set": name, "model": one.name, "level": level.name}
                    rows.append({**key, **figures, "failures": failures})
    found: dict[str, Any] = {
        "experiment": NAME,
        "title": side_by_side.title_with_reals(TITLE, reals),
        "levels": list(levels),
        "seed": seed,
        "recode": recode,
        "sets": about,
        "models": side_by_side.describe_models(opened),
        "versions": side_by_side.versions(),
        "readings": _readings(levels, rows),
        "trained": trained,
        "keep_duplicates": keep_duplicates,
        "warnings": [*warnings, *side_by_side.failure_warnings(rows)],
        "rows": [row | {"difference": _difference(row, rows)} for row in rows],
        "paper": PAPER if paper else None,
    }
    files.write_json(Path(out) / f"{NAME}.json", found)
    files.write_text(Path(out) / f"{NAME}.md", robustness_page(found))
    side_by_side.write_board(folder, found, board)
    return found


def _readings(levels: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """What the paper leaves open and decides these figures."""
    found = [side_by_side.UNJUDGED]
    found += [text for level, text in LEVEL_READINGS.items() if level in levels]
    return found + ([IOU_READING] if any(row["iou"] is not None for row in rows) else [])


def _difference(
    row: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]
) -> dict[str, float] | None:
    """Each figure minus that of the same model and set without damage."""
    before = _find(rows, row["set"], row["model"], ORIGINAL)
    if before is None or before is row:
        return None
    return {
        key: row[key] - before[key]
        for key in (FIGURES | RECALLS).values()
        if row[key] is not None and before[key] is not None
    }


def _find(
    rows: Sequence[Mapping[str, Any]], test_set: str, model: str, level: str
) -> Mapping[str, Any] | None:
    key = (test_set, model, level)
    return next((r for r in rows if (r["set"], r["model"], r["level"]) == key), None)


def robustness_page(found: Mapping[str, Any]) -> str:
    """Markdown of what `run_robustness` returned: one table per set, a column per level."""
    recoded = f"All images were saved as JPEG {RECODED} first. " if found["recode"] else ""
    seed = f"Crops of seed {found['seed']}. " if "crop" in found["levels"] else ""
    lines = [
        f"# {found['title']}",
        "",
        f"{seed}{recoded}In brackets: difference to {ORIGINAL}.",
        "",
        *side_by_side.notes(found),
        "",
    ]
    for name in found["sets"]:
        lines += [f"## {name}", "", *_set_table(found, name), ""]
    lines += side_by_side.failure_lines(found["rows"])
    if found["paper"]:
        lines += ["## The paper's numbers, on its own data: Acc (IoU)", "", *_paper_table(found)]
    return "\n".join(lines).rstrip() + "\n"


def _set_table(found: Mapping[str, Any], name: str) -> list[str]:
    table = []
    figures = FIGURES if _has_both(found["sets"][name]) else RECALLS
    for model in found["models"]:
        cells = [_find(found["rows"], name, model, level) for level in found["levels"]]
        for title, key in figures.items():
            values = [None if one is None else one[key] for one in cells]
            if all(value is None for value in values):
                continue
            row = []
            for one, value in zip(cells, values, strict=True):
                difference = ((one or {}).get("difference") or {}).get(key)
                row.append(cell(value, difference))
            table.append([model, title, *row])
        for title, key in (("IoU: images", "iou_images"), ("without judgment", "failed")):
            counts = ["-" if one is None else str(one[key]) for one in cells]
            if any(count not in ("-", "0") for count in counts):
                table.append([model, title, *counts])
    return markdown_table(["model", "figure", *found["levels"]], table)


def _has_both(about: Mapping[str, Any]) -> bool:
    return bool(about["real"] and about["fake"])


def _paper_table(found: Mapping[str, Any]) -> list[str]:
    rows = []
    for model, (accuracies, ious) in found["paper"].items():
        overlaps = ["" if ious is None else f" ({iou:.3f})" for iou in ious or accuracies]
        cells = [f"{a:.3f}{b}" for a, b in zip(accuracies, overlaps, strict=True)]
        rows.append([model, *cells])
    return markdown_table(["model", *LEVELS], rows)
