"""HEIE without a chain of thought, with a fixed one, its own, and the annotated (HEIE Table 7)."""

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
from artifactnet.types import ArtifactNetError

NAME = "cot-ablation"
TITLE = "What the chain of thought is worth (HEIE Table 7)"
RECIPE = "paper/heie_richhf"
SALIENCY = ("MSE", "KLD", "CC")
SCORES = ("PLCC", "SRCC")
_TITLES = {
    "without": "without chain of thought",
    "template": "trained with it, a fixed text at test time",
    "with": "with chain of thought",
    "given": "with the annotated chain of thought",
}
_WITHOUT = ("mllm.text=none", "loss.text=0")


def run_cot_ablation(
    recipe: str, seeds: Sequence[int], out: str | Path, overrides: Sequence[str] = ()
) -> dict[str, Any]:
    """Train a recipe with and without texts; write ``cot-ablation.json`` and ``cot-ablation.md``.

    Without: the model reads heatmap and score from a fixed text and learns none. With: it learns
    to write and reads from what it wrote. Given: the same model reads from the annotated texts.
    Template (not in the paper): it reads from the fixed one, as its answers without text do.
    Runs live in ``out/cot_KEY_sSEED``. Finished ones are reused, so the same command continues
    after an interruption. Returns the content of ``cot-ablation.json``.

    Args:
        recipe: name of a config with ``mllm.base``, or its file.
        seeds: each training is repeated with each of them.
        out: folder for runs and tables.
        overrides: ``dotted.key=value`` strings for all trainings.

    Raises:
        ArtifactNetError: a recipe without texts to learn, no seed or one twice, a run in ``out``
            was made with another config, or there is no annotated test image.
    """
    check_seeds(seeds)
    folder = Path(out)
    trainings = {
        (key, seed): [*overrides, *own, f"name=cot_{key}_s{seed}", f"out={folder}", f"seed={seed}"]
        for seed in seeds
        for key, own in (("without", _WITHOUT), ("with", ()))
    }
    for (key, _), changes in trainings.items():  # check all of them before the first is trained
        config = load(recipe, changes)
        if config.mllm.base is None or (key == "with" and not config.loss.text):
            raise ConfigError(f"{recipe}: {NAME} needs mllm.base and loss.text above 0")
        if config.mllm.text == "short":
            raise ConfigError(f"{recipe}: {NAME} needs mllm.text=written or template, not short")
    values: dict[tuple[str, int], dict[str, float]] = {}
    for (key, seed), changes in trainings.items():
        run = train_once(recipe, changes)
        values[key, seed] = _figures(read_results(run), run / JSON)
        if key == "with":
            for text in ("template", "given"):
                values[text, seed] = _from_text(run, text)
    about = {
        "experiment": NAME,
        "title": TITLE,
        "recipe": recipe,
        "seeds": list(seeds),
        "overrides": list(overrides),
    }
    rows = {key: {"title": title, "method": None} for key, title in _TITLES.items()}
    return write_table(folder, about, rows, values, (*SALIENCY, *SCORES))


def _from_text(run: Path, text: str) -> dict[str, float]:
    def compute() -> dict[str, float]:
        return _figures(api.evaluate(run, text=text), run)

    return compute_once(run / f"{text}.json", {}, compute)


def _figures(results: Mapping[str, Any], where: Path) -> dict[str, float]:
    if results["saliency"] is None:
        raise ArtifactNetError(f"{where}: no test image is annotated; the ablation needs some")
    scores = results["scores"] or dict.fromkeys(SCORES)  # a column stays empty without scores
    return {
        **{key: results["saliency"][key] for key in SALIENCY},
        **{key: scores[key] for key in SCORES},
    }
