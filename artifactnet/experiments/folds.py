"""Cross-validation: a recipe trained once for each fold, and figures over all test images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from artifactnet.config import Config, load
from artifactnet.evaluation.results import JSON, SALIENCY
from artifactnet.evaluation.tables import markdown_table, mean_std
from artifactnet.experiments.common import read_results, refuse_own_keys, train_once
from artifactnet.files import write_json, write_text
from artifactnet.metrics.confusion import pixel_scores, verdict_scores
from artifactnet.taxonomy import AGNOSTIC
from artifactnet.types import ArtifactNetError
from artifactnet.vlm.fakexplainer.evaluate import ANSWERS, read_run_groups
from artifactnet.vlm.fakexplainer.figures import SHARES, compute_figures, read_lines
from artifactnet.vlm.fakexplainer.pages import figures_table

NAME = "folds"
FOLDS = 4  # FakeXplainer, Sec. 5.1
_VERDICTS = {"BA": "balanced_accuracy", "F1": "f1"}
_PIXELS = ("IoU", "PixF1")


def run_folds(
    recipe: str,
    out: str | Path,
    overrides: Sequence[str] = (),
    folds: int = FOLDS,
    then: str | None = None,
) -> dict[str, Any]:
    """Train a recipe on each fold of its data; write ``folds.json`` and ``folds.md``.

    Every image is tested once. Pooled figures are over the test images of all folds together; the
    standard deviation is that of the figures of single folds (n - 1). Runs live in
    ``out/folds_RECIPE_K``. Finished ones are reused and interrupted ones resumed, so the same
    command continues after an interruption.

    Args:
        recipe: name of a config, or its file.
        out: folder for runs and tables.
        overrides: ``dotted.key=value`` strings for all trainings.
        folds: how many.
        then: a second config, trained in every fold from the model of the first: by
            ``mllm.adapters`` (FakeXplainer's second stage) or ``init_from`` (detectors). Figures
            are of the second then.

    Returns:
        The content of ``folds.json``.

    Raises:
        ArtifactNetError: fewer than two folds, an override that names one, data that cannot be
            divided, a run in ``out`` was made with another config, or any error of a training.
    """
    if folds < 2:
        raise ArtifactNetError(f"{NAME} needs 2 or more, not {folds}")
    refuse_own_keys(overrides, ("data.folds", "data.fold", "name", "out"), NAME, "every fold")
    folder = Path(out)
    plans = [_plan(recipe, then, folds, fold, folder, overrides) for fold in range(folds)]
    for plan in plans:  # check all of them before the first is trained
        for each, changes in plan:
            config = load(each, changes)
    runs = []
    for plan in plans:
        for each, changes in plan:
            run = train_once(each, changes)
        runs.append(run)
    found = _pool(runs, config)
    columns = list(found["pooled"])
    table = {
        "experiment": NAME,
        "title": f"{then or recipe} in {folds} folds",
        "recipe": recipe,
        "then": then,
        "folds": folds,
        "overrides": list(overrides),
        "columns": columns,
        "std": {column: _std([row[column] for row in found["folds_alone"]]) for column in columns},
        **found,
    }
    write_json(folder / f"{NAME}.json", table)
    write_text(folder / f"{NAME}.md", folds_page(table))
    return table


def folds_page(table: Mapping[str, Any]) -> str:
    """Markdown of what `run_folds` returned."""
    columns = table["columns"]
    rows = [
        ["all test images", *_cells(table["pooled"], columns)],
        ["std of the folds", *_cells(table["std"], columns)],
        *([f"fold {fold}", *_cells(row, columns)] for fold, row in enumerate(table["folds_alone"])),
    ]
    lines = [
        f"# {table['title']}",
        "",
        f"{table['images']} test images, each tested once. Overrides: "
        f"{', '.join(table['overrides']) or 'none'}.",
        "",
        *markdown_table(["figures of", *columns], rows),
    ]
    if table["figures"] is not None:
        lines += ["", *markdown_table(*figures_table(table["figures"]))]
    return "\n".join(lines) + "\n"


def _plan(
    recipe: str, then: str | None, folds: int, fold: int, folder: Path, overrides: Sequence[str]
) -> list[tuple[str, list[str]]]:
    """Recipe and overrides of each training of a fold."""

    def run(config: str, *own: str) -> tuple[str, list[str]]:
        name = f"{NAME}_{Path(config).stem}_{fold}"
        where = [f"data.folds={folds}", f"data.fold={fold}", f"name={name}", f"out={folder}"]
        return config, [*overrides, *own, *where]

    plan = [run(recipe)]
    if then is not None:
        if Path(then).stem == Path(recipe).stem:
            raise ArtifactNetError(f"{NAME}: {recipe} and {then} have one name; rename one file")
        config = load(recipe, plan[0][1])
        start = folder / config.name
        key = "mllm.adapters" if config.mllm.task == "fakexplainer" else "init_from"
        plan.append(run(then, f"{key}={start}"))
    return plan


def _pool(runs: Sequence[Path], config: Config) -> dict[str, Any]:
    """Figures of single folds and of all test images; ``figures`` has FakeXplainer's own."""
    results = [read_results(run) for run in runs]
    images = sum(each["images"] for each in results) if "images" in results[0] else None
    if "fakexplainer" in results[0]:
        # their results may be older than one of the figures
        answers = [read_lines(run / ANSWERS) for run in runs]
        lines = [line for each in answers for line in each]
        figures = compute_figures(lines, read_run_groups(config))
        return {
            "images": len(lines),
            "folds_alone": [_answers(compute_figures(each)) for each in answers],
            "pooled": _answers(figures),
            "figures": figures,
        }
    alone = [_detector([each]) for each in results]
    pooled = _detector(results)
    if not pooled:
        raise ArtifactNetError(f"{runs[0] / JSON}: holds no figure that adds up over folds")
    return {"images": images, "folds_alone": alone, "pooled": pooled, "figures": None}


def _answers(figures: Mapping[str, Any]) -> dict[str, float | None]:
    return {column: figures["all"][field] for column, field in SHARES.items()}


def _detector(results: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    """Figures that counts of single results add up to."""
    found: dict[str, float | None] = {}
    verdicts = [each["authenticity"]["all"] for each in results if each.get("authenticity")]
    if verdicts:
        counts = (sum(row[key] for row in verdicts) for key in ("tp", "fp", "tn", "fn"))
        scores = verdict_scores(*counts)
        found |= {column: scores[field] for column, field in _VERDICTS.items()}
    for name, rows in (
        ("map", [each.get("heatmap") for each in results]),
        ("mask", [(each.get("masks") or {}).get("all", {}).get(AGNOSTIC) for each in results]),
    ):
        kept = [row for row in rows if row]
        if kept:
            scores = pixel_scores(*(sum(row[key] for row in kept) for key in ("tp", "fp", "fn")))
            found |= {f"{name} {column}": scores[column] for column in _PIXELS}
    saliency = [each["saliency"] for each in results if each.get("saliency")]
    for field in SALIENCY.values() if saliency else ():
        found[field] = _mean_over_images(field, saliency)
    return found


def _mean_over_images(field: str, rows: Sequence[Mapping[str, Any]]) -> float | None:
    """A mean over the images of all rows, of means over the images of each."""
    total, images = 0.0, 0
    for row in rows:
        empty = row["empty_images"]
        count = {"MSE": row["images"], "MSE GT=0": empty}.get(field, row["images"] - empty)
        if row[field] is not None and count:
            total, images = total + count * row[field], images + count
    return total / images if images else None


def _std(values: Sequence[float | None]) -> float | None:
    kept = [value for value in values if value is not None]
    return mean_std(kept)[1] if len(kept) > 1 else None


def _cells(row: Mapping[str, float | None], columns: Sequence[str]) -> list[str]:
    values = [row[column] for column in columns]
    return ["-" if value is None else f"{value:.4f}" for value in values]
