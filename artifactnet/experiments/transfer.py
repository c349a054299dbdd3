"""Train on each of several data sets, evaluate on all of them (HEIE Table 4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from artifactnet import api
from artifactnet.config import ConfigError, load
from artifactnet.evaluation.results import JSON
from artifactnet.experiments.common import (
    check_seeds,
    compute_once,
    read_results,
    train_once,
    write_table,
)
from artifactnet.runs import run_folder
from artifactnet.types import ArtifactNetError

NAME = "transfer"
TITLE = "Trained on one data set, evaluated on another (HEIE Table 4)"
COLUMNS = ("MSE", "MSE GT=0", "KLD", "CC")  # fields of `metrics.saliency.SaliencyMetric`


def named_sets(texts: Sequence[str], least: int = 2) -> dict[str, str]:
    """Name -> path of data sets; ``NAME=MANIFEST``, or ``MANIFEST``, whose stem is the name.

    Raises:
        ArtifactNetError: fewer than ``least``, a name twice, or one that is no file name.
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
    if len(found) < least:
        raise ArtifactNetError("--on needs at least two data sets: --on A.jsonl B.jsonl")
    return found


def run_transfer(
    recipe: str,
    sets: Mapping[str, str],
    seeds: Sequence[int],
    out: str | Path,
    overrides: Sequence[str] = (),
) -> dict[str, Any]:
    """Train a recipe on each data set and write ``transfer.json`` and ``transfer.md``.

    Runs live in ``out/transfer_SET_sSEED``. Finished ones are reused, so the same command
    continues after an interruption. Returns the content of ``transfer.json``.

    Args:
        recipe: name of a config, or its file; any model with a heatmap head.
        sets: name -> manifest; see `named_sets`.
        seeds: each training is repeated with each of them; they also draw the splits, of the
            data set trained on and of those evaluated on.
        out: folder for runs and tables.
        overrides: ``dotted.key=value`` strings for all trainings.

    Raises:
        ArtifactNetError: no seed or one twice, a run in ``out`` was made with another config, or
            a data set has no annotated test image.
    """
    check_seeds(seeds)
    folder = Path(out)
    trainings = {}
    for seed in seeds:
        for name, root in sets.items():
            own = [f"name={NAME}_{name}_s{seed}", f"out={folder}", f"seed={seed}"]
            trainings[name, seed] = [*overrides, *_data_keys(root), *own]
            config = load(recipe, trainings[name, seed])  # all of them before the first is trained
            if config.mllm.base is not None and config.mllm.text == "short":
                raise ConfigError(f"{recipe}: {NAME} compares heatmaps; mllm.text=short has none")
    values: dict[tuple[str, int], dict[str, float]] = {}
    for (name, seed), changes in trainings.items():
        run = train_once(recipe, changes)
        for other, root in sets.items():
            if name == other:
                figures = _figures(read_results(run), run / JSON)
            else:
                figures = _evaluated(run, other, root)
            values[f"{name}>{other}", seed] = figures
    titles = {
        f"{a}>{b}": f"{a}, evaluated on {b}" + (" (its own)" if a == b else "")
        for a in sets
        for b in sets
    }
    about = {
        "experiment": NAME,
        "title": TITLE,
        "recipe": recipe,
        "sets": dict(sets),
        "seeds": list(seeds),
        "overrides": list(overrides),
    }
    rows = {key: {"title": title, "method": None} for key, title in titles.items()}
    return write_table(folder, about, rows, values, COLUMNS)


def _data_keys(root: str) -> list[str]:
    return ["data.name=manifest", f"data.root={root}"]


def _evaluated(run: Path, other: str, root: str) -> dict[str, float]:
    """Figures of a run on another data set."""

    def compute() -> dict[str, Any]:
        # the same test images as of the run that is trained on this data
        fraction = load(run / run_folder.CONFIG).data.val_fraction
        keys = [*_data_keys(root), f"data.val_fraction={fraction}"]
        return {"figures": _figures(api.evaluate(run, keys), run)}

    figures: dict[str, float] = compute_once(run / f"{NAME}_{other}.json", {"root": root}, compute)[
        "figures"
    ]
    return figures


def _figures(results: Mapping[str, Any], where: Path) -> dict[str, float]:
    saliency = results.get("saliency")
    if saliency is None:
        raise ArtifactNetError(
            f"{where}: no heatmap was compared with an annotated one; the recipe needs a heatmap "
            f"head, and the test images of {results['data']['root']} need annotations"
        )
    return {key: saliency[key] for key in COLUMNS}
