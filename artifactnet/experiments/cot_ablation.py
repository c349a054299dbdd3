"""What the chain of thought is worth: HEIE without it, with its own, with the annotated one."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from artifactnet import files
from artifactnet.config import ConfigError, load
from artifactnet.evaluation.results import JSON
from artifactnet.evaluation.tables import markdown, rows
from artifactnet.experiments.run import check_seeds, finished
from artifactnet.types import ArtifactNetError
from artifactnet.vlm.heie.evaluate import evaluate
from artifactnet.vlm.heie.trainer import train

NAME = "cot-ablation"
TITLE = "What the chain of thought is worth (HEIE Table 7)"
RECIPE = "paper/heie_richhf"
SALIENCY = ("MSE", "KLD", "CC")
SCORES = ("PLCC", "SRCC")
_TITLES = {
    "without": "without chain of thought",
    "with": "with chain of thought",
    "given": "with the annotated chain of thought",
}
_SILENT = ("mllm.text=none", "loss.text=0")


def run_cot_ablation(
    recipe: str, seeds: Sequence[int], out: str | Path, overrides: Sequence[str] = ()
) -> dict[str, Any]:
    """Train a recipe with and without texts; write ``cot-ablation.json`` and ``cot-ablation.md``.

    Without: the model reads heatmap and score from a fixed text and learns none. With: it learns
    to write and reads from what it wrote. Given: the same model reads from the annotated texts.
    Runs live in ``out/cot_KEY_sSEED``. What is finished is taken as it is, so that the same
    command goes on after an interruption.

    Args:
        recipe: name of a config with ``mllm.base``, or its file.
        seeds: each training is made with each of them.
        out: folder for runs and tables.
        overrides: ``dotted.key=value`` strings for all trainings.

    Returns:
        The content of ``cot-ablation.json``.

    Raises:
        ArtifactNetError: a recipe without texts to learn, no seed or one twice, a run in ``out``
            was made with another config, or there is no annotated test image.
    """
    check_seeds(seeds)
    folder = Path(out)
    values: dict[tuple[str, int], dict[str, float]] = {}
    changes = {
        (key, seed): [*overrides, *own, f"name=cot_{key}_s{seed}", f"out={folder}", f"seed={seed}"]
        for seed in seeds
        for key, own in (("without", _SILENT), ("with", ()))
    }
    for (key, _), own in changes.items():  # all of them before the first is trained
        config = load(recipe, own)
        if config.mllm.base is None or (key == "with" and not config.loss.text):
            raise ConfigError(f"{recipe}: {NAME} needs mllm.base and loss.text above 0")
    for (key, seed), own in changes.items():
        run = finished(recipe, own, train)
        values[key, seed] = _own(run)
        if key == "with":
            values["given", seed] = _given(run)
    columns = (*SALIENCY, *SCORES)
    ordered = {(k, s): values[k, s] for k in _TITLES for s in seeds}
    result = {
        "experiment": NAME,
        "title": TITLE,
        "recipe": recipe,
        "seeds": list(seeds),
        "overrides": list(overrides),
        "columns": list(columns),
        "rows": rows(_TITLES, ordered, columns),
    }
    files.write_json(folder / f"{NAME}.json", result)
    files.write_text(folder / f"{NAME}.md", markdown(result))
    return result


def _own(run: Path) -> dict[str, float]:
    return _figures(json.loads((run / JSON).read_text(encoding="utf-8")), run / JSON)


def _given(run: Path) -> dict[str, float]:
    """Figures with annotated texts, kept beside the run's own results."""
    path = run / "given.json"
    if path.is_file():
        kept: dict[str, float] = json.loads(path.read_text(encoding="utf-8"))
        return kept
    figures = _figures(evaluate(run, text="given"), run)
    files.write_json(path, figures)
    return figures


def _figures(found: Mapping[str, Any], where: Path) -> dict[str, float]:
    if found["saliency"] is None:
        raise ArtifactNetError(f"{where}: no test image is annotated; the ablation needs some")
    scores = found["scores"] or dict.fromkeys(SCORES)  # a column stays empty without scores
    return {
        **{key: found["saliency"][key] for key in SALIENCY},
        **{key: scores[key] for key in SCORES},
    }
