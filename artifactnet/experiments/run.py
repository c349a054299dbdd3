"""The experiments of the papers' tables: their trainings, run with several seeds, in one table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from artifactnet.evaluation.results import JSON
from artifactnet.evaluation.samples import open_samples
from artifactnet.experiments.common import (
    check_seeds,
    compute_once,
    read_results,
    train_once,
    write_table,
)
from artifactnet.explanation.judge import score_explanations
from artifactnet.taxonomy import AGNOSTIC
from artifactnet.types import ArtifactNetError

# column -> field of `artifactnet.metrics.scores.verdict_scores`
AUTHENTICITY = {"BA": "balanced_accuracy", "F1": "f1", "AUC": "auc"}
PIXELS = ("IoU", "PixP", "PixR", "PixF1")
HEATMAPS = ("MSE", "KLD", "CC")  # fields of `artifactnet.metrics.saliency.SaliencyMetric`


@dataclass(frozen=True, slots=True)
class Training:
    """One training of an experiment, repeated for every seed.

    Attributes:
        key: name of the row and of the runs, ``key_s0`` for seed 0.
        title: of the row.
        recipe: name of the config.
        start: key of the training whose weights it starts from.
        classifies: it learns to tell real from fake; otherwise its probabilities mean nothing.
        segments: it has a trained segmentation head.
        method: how its probability is explained, for the table of interpretation; None leaves it
            out.
        overrides: ``dotted.key=value`` strings that make it what its title says.
    """

    key: str
    title: str
    recipe: str
    start: str | None = None
    classifies: bool = True
    segments: bool = False
    method: str | None = None
    overrides: tuple[str, ...] = ()


_AJ = Training("aj", "AJ-only", "swin_aj", method="grad_cam_smooth")
_PAD = Training("pad", "PAD-only", "swin_pad", classifies=False, segments=True)
_PROBED = Training("lp", "transfer, linear probing", "swin_transfer_lp", start="pad", segments=True)
_TUNED = Training(
    "ft", "transfer, full fine-tuning", "swin_transfer_ft", start="pad", method="grad_cam_smooth"
)
_MULTI = Training(
    "multitask", "multi-task", "swin_multitask", segments=True, method="grad_cam_smooth"
)
_BASELINE = Training("base", "ViT baseline", "dinov2_baseline", method="relevance")
_ALIGNED = Training("align", "ViT aligned", "dinov2_align", method="relevance")

# HEIE Table 5, from the top
_FUSIONS = {
    "global": "global only",
    "local": "local only",
    "fixed": "both, fixed weights",
    "learnable": "both, learnable weights",
    "uncertainty": "both, weighted by uncertainty",
}
_FUSED = tuple(
    Training(f"fusion_{mode}", title, "heie_vision", overrides=(f"model.heatmap.fusion={mode}",))
    for mode, title in _FUSIONS.items()
)

# X-AIGD Table 2, and Table 13 with the detectors that can be trained here
PLANS: dict[str, tuple[Training, ...]] = {
    "detection": (_AJ, _PAD, _PROBED, _TUNED, _MULTI),
    "interpretation": (_AJ, _PAD, _TUNED, _MULTI, _BASELINE, _ALIGNED),
    "fusion-ablation": _FUSED,
}
# that of swin_multitask: the rows of a table share their images
_DATA = ("data.demo_size=112", "data.demo_train=1200", "data.demo_val=150", "data.demo_test=150")
TITLES = {
    "detection": "Authenticity judgment and perceptual artifact detection (X-AIGD Table 2)",
    "interpretation": "Where detectors look, against annotated artifacts (X-AIGD Table 13)",
    "fusion-ablation": "How global and local heatmaps become one (HEIE Table 5)",
}
_COLUMNS: dict[str, tuple[str, ...]] = {
    "detection": (*AUTHENTICITY, *PIXELS),
    "interpretation": PIXELS,
    "fusion-ablation": HEATMAPS,
}


def run_experiment(
    name: str, seeds: Sequence[int], out: str | Path, overrides: Sequence[str] = ()
) -> dict[str, Any]:
    """Run one of `PLANS` and write ``NAME.json`` and ``NAME.md`` into ``out``.

    Runs live in ``out/KEY_sSEED``. Finished ones are reused and interrupted ones resumed, so the
    same command continues after an interruption. Returns the content of ``NAME.json``.

    Args:
        name: of the plan.
        seeds: each training is repeated with each of them.
        out: folder for runs and tables.
        overrides: ``dotted.key=value`` strings for all trainings.

    Raises:
        ArtifactNetError: no such plan, no seed or one twice, an override that cannot be used, or
            a run in ``out`` was made with another config.
    """
    if name not in PLANS:
        raise ArtifactNetError(f"unknown experiment {name!r}; known: {', '.join(PLANS)}")
    check_seeds(seeds)
    folder = Path(out)
    trainings: dict[str, dict[str, Any]] = {}
    values: dict[tuple[str, int], dict[str, float]] = {}
    shared = _DATA if name == "interpretation" else ()
    for seed in seeds:
        for training in PLANS[name]:
            key = training.key
            own = [f"name={key}_s{seed}", f"out={folder}", f"seed={seed}"]
            if training.start is not None:
                own.append(f"init_from={folder / f'{training.start}_s{seed}'}")
            run = train_once(training.recipe, [*shared, *overrides, *training.overrides, *own])
            if name == "interpretation" and training.method is None:
                continue  # it is here for those that start from it
            if name == "detection":
                values[key, seed] = _detection(training, run)
            elif name == "fusion-ablation":
                values[key, seed] = _heatmaps(run)
            elif training.method is not None:
                values[key, seed] = _interpretation(training.method, run)
            method = training.method if name == "interpretation" else None
            trainings[key] = {"title": training.title, "recipe": training.recipe, "method": method}
    about = {
        "experiment": name,
        "title": TITLES[name],
        "seeds": list(seeds),
        "overrides": list(overrides),
    }
    return write_table(folder, about, trainings, values, _COLUMNS[name])


def _detection(training: Training, run: Path) -> dict[str, float]:
    """Figures of what the run was trained for."""
    results = read_results(run)
    values: dict[str, float] = {}
    if training.classifies:
        scores = results["authenticity"]["all"]
        values |= {key: scores[field] for key, field in AUTHENTICITY.items()}
    if training.segments and results["masks"]:
        values |= {key: results["masks"]["all"][AGNOSTIC][key] for key in PIXELS}
    return values


def _heatmaps(run: Path) -> dict[str, float]:
    """Agreement of the run's heatmaps with the annotated ones."""
    figures = read_results(run).get("saliency")
    if figures is None or any(figures[key] is None for key in HEATMAPS):
        raise ArtifactNetError(
            f"{run / JSON}: no heatmap was compared with an annotated one; the test split needs "
            "images with artifact masks or heatmaps, the model a heatmap head"
        )
    return {key: figures[key] for key in HEATMAPS}


def _interpretation(method: str, run: Path) -> dict[str, float]:
    """Pixel scores of the explanations of a run's predictions."""

    def compute() -> dict[str, Any]:
        data = open_samples(run)
        return {"scores": score_explanations(data.model, data.each(), [method])["methods"][method]}

    scores = compute_once(run / "explanation.json", {"method": method}, compute)["scores"]
    return {key: scores[key] for key in PIXELS}
