"""Train on each of several data sets, judge on all of them (HEIE Table 4)."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from artifactnet import files
from artifactnet.config import Config, load
from artifactnet.evaluation.results import JSON
from artifactnet.evaluation.tables import markdown, rows
from artifactnet.experiments.run import check_seeds, finished
from artifactnet.types import ArtifactNetError

NAME = "transfer"
TITLE = "Trained on one data set, judged on another (HEIE Table 4)"
COLUMNS = ("MSE", "MSE GT=0", "KLD", "CC")  # fields of `metrics.saliency_metric.SaliencyMetric`

Train = Callable[[Config], object]
Evaluate = Callable[[Path, Sequence[str]], dict[str, Any]]  # run, overrides -> results


def named_sets(texts: Sequence[str]) -> dict[str, str]:
    """Data sets as ``NAME=MANIFEST``, or as ``MANIFEST``, whose stem is the name.

    Args:
        texts: at least two; a manifest is a file or a folder, see
            `artifactnet.data.sources.manifest`.

    Returns:
        name -> path.

    Raises:
        ArtifactNetError: fewer than two, a name twice, or one that is no file name.
    """
    found: dict[str, str] = {}
    for text in texts:
        name, equals, path = text.partition("=")
        if not equals:
            name, path = Path(text).stem, text
        if not name or Path(name).name != name or not path:
            raise ArtifactNetError(f"--on {text}: give NAME=MANIFEST, the name without a slash")
        if name in found:
            raise ArtifactNetError(
                f"--on: two data sets are called {name!r}; name them: A={found[name]} B={path}"
            )
        found[name] = path
    if len(found) < 2:
        raise ArtifactNetError("--on needs at least two data sets: --on A.jsonl B.jsonl")
    return found


def run_transfer(
    recipe: str,
    sets: Mapping[str, str],
    seeds: Sequence[int],
    out: str | Path,
    overrides: Sequence[str],
    train: Train,
    evaluate: Evaluate,
) -> dict[str, Any]:
    """Train a recipe on each data set and write ``transfer.json`` and ``transfer.md``.

    Runs live in ``out/transfer_SET_sSEED``. What is finished is taken as it is, so that the same
    command goes on after an interruption.

    Args:
        recipe: name of a config, or its file; any model with a heatmap head.
        sets: name -> manifest; see `named_sets`.
        seeds: each training is made with each of them; they also draw the splits, of the data
            set trained on as of those judged on.
        out: folder for runs and tables.
        overrides: ``dotted.key=value`` strings for all trainings.
        train: trains a config.
        evaluate: judges a run on the test split of other data.

    Returns:
        The content of ``transfer.json``.

    Raises:
        ArtifactNetError: no seed or one twice, a run in ``out`` was made with another config, or
            a data set has no annotated test image.
    """
    check_seeds(seeds)
    folder = Path(out)
    values: dict[tuple[str, int], dict[str, float]] = {}
    changes = _trainings(recipe, sets, seeds, folder, overrides)
    for seed in seeds:
        for name in sets:
            run = finished(recipe, changes[name, seed], train)
            for other, its_root in sets.items():
                if name == other:
                    found = json.loads((run / JSON).read_text(encoding="utf-8"))
                    values[_key(name, other), seed] = _figures(found, run / JSON)
                else:
                    values[_key(name, other), seed] = _judged(run, other, its_root, evaluate)
    titles = {_key(a, b): _title(a, b) for a in sets for b in sets}
    result = {
        "experiment": NAME,
        "title": TITLE,
        "recipe": recipe,
        "sets": dict(sets),
        "seeds": list(seeds),
        "overrides": list(overrides),
        "columns": list(COLUMNS),
        "rows": rows(titles, values, COLUMNS),
    }
    files.write_json(folder / f"{NAME}.json", result)
    files.write_text(folder / f"{NAME}.md", markdown(result))
    return result


def _trainings(
    recipe: str, sets: Mapping[str, str], seeds: Sequence[int], out: Path, overrides: Sequence[str]
) -> dict[tuple[str, int], list[str]]:
    """Overrides of each training, by data set and seed; all are checked before any is made."""
    found: dict[tuple[str, int], list[str]] = {}
    for seed in seeds:
        for name, root in sets.items():
            own = [f"name={NAME}_{name}_s{seed}", f"out={out}", f"seed={seed}"]
            found[name, seed] = [*overrides, *_data(root), *own]
            load(recipe, found[name, seed])
    return found


def _key(name: str, other: str) -> str:
    return f"{name}>{other}"


def _title(name: str, other: str) -> str:
    return f"{name}, judged on {other}" + (" (its own)" if name == other else "")


def _data(root: str) -> list[str]:
    return ["data.name=manifest", f"data.root={root}"]


def _judged(run: Path, other: str, root: str, evaluate: Evaluate) -> dict[str, float]:
    """Figures of a run on another data set, kept beside its own results."""
    path = run / f"{NAME}_{other}.json"
    if path.is_file():
        kept = json.loads(path.read_text(encoding="utf-8"))
        if kept["root"] == root:
            figures: dict[str, float] = kept["figures"]
            return figures
    figures = _figures(evaluate(run, _data(root)), run)
    files.write_json(path, {"root": root, "figures": figures})
    return figures


def _figures(found: Mapping[str, Any], where: Path) -> dict[str, float]:
    saliency = found.get("saliency")
    if saliency is None:
        raise ArtifactNetError(
            f"{where}: no heatmap was compared with an annotated one; the recipe needs a heatmap "
            f"head, and the test images of {found['data']['root']} need annotations"
        )
    return {key: saliency[key] for key in COLUMNS}
