"""What attention is aligned with (X-AIGD Table 14), and how strongly elsewhere (X-AIGD Fig. 7).

Both repeat one recipe, changing one key. Trainings that `artifactnet.experiments.alignment` has
made into the same folder are not made again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from artifactnet.config import AlignmentConfig, Config, load
from artifactnet.data import alignment_masks
from artifactnet.data.damage import ORIGINAL, parse_level
from artifactnet.data.datamodule import build_splits
from artifactnet.data.test_sets.base import TestSet
from artifactnet.evaluation.results import JSON
from artifactnet.experiments.alignment import check_alignment, heatmap_note
from artifactnet.experiments.common import (
    check_seeds,
    compute_once,
    read_results,
    refuse_own_keys,
    train_once,
    write_table,
)
from artifactnet.experiments.evaluated_models import open_model, parse_models
from artifactnet.experiments.judging import judge_level
from artifactnet.experiments.level_figures import level_figures
from artifactnet.experiments.plots import write_curves, write_points
from artifactnet.experiments.side_by_side import describe_sets
from artifactnet.metrics.paired import MOST_PAIRS
from artifactnet.names import file_name
from artifactnet.runs import run_folder
from artifactnet.types import ArtifactNetError, UInt8Array

ABLATION, SWEEP = "alignment-ablation", "lambda-sweep"
NONE, ARTIFACT = "none", "artifact"
MASKS = (NONE, *alignment_masks.MASKS)
LAMBDAS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
_TITLES = {
    NONE: "none: no alignment",
    ARTIFACT: "annotated artifacts",
    "random": "random polygon",
    "benign": "largest benign segment",
    "saliency": "saliency",
}
_TEST = "test"  # set of the run itself
_OWN = ("name", "out", "seed", *(f"loss.alignment.{k}" for k in ("mask", "segments", "saliency")))
_SCORES = {"Acc": "balanced_accuracy", "P": "precision", "R": "recall", "F1": "f1"}
_ELSEWHERE = _SCORES | {  # keys of `level_figures`
    "R": "fake_recall",
    "recall of real": "real_recall",
    "recall of fake": "fake_recall",
}
_MAPS = {"map IoU": "IoU", "map PixF1": "PixF1"}


def run_alignment_ablation(
    recipe: str,
    masks: Sequence[str],
    seeds: Sequence[int],
    out: str | Path,
    overrides: Sequence[str] = (),
    sets: Mapping[str, TestSet] | None = None,
    segments: str | None = None,
    saliency: str | None = None,
    segment: Callable[[UInt8Array], alignment_masks.Segments] = alignment_masks.felzenszwalb_labels,
    segmenter: str = "felzenszwalb",
) -> dict[str, Any]:
    """Align one recipe with different masks (X-AIGD Table 14); write a table and a picture.

    One training per mask and seed, equal in everything else: the same images in the same order,
    under the same augmentation. Runs live in ``out/alignment_MASK_sSEED``. Finished ones are
    reused, so the same command continues after an interruption. Writes
    ``alignment-ablation.json``, ``.md`` and ``.png`` and returns the content of the first.

    Args:
        recipe: name of a config with ``loss.alignment.weight`` above 0, or its file.
        masks: two or more of `MASKS`, with ``none``.
        seeds: each training is repeated with each of them.
        out: folder for runs and tables.
        overrides: ``dotted.key=value`` strings for all trainings.
        sets: name -> test set, about which all runs are asked, too; of one class it has its recall.
        segments: folder for ``benign``, see ``loss.alignment.segments``; None: ``segment`` makes
            them.
        saliency: folder for ``saliency``, see ``loss.alignment.saliency``; None: the spectral
            residual.
        segment: makes the segments of an image, see `alignment_masks.write_segments`.
        segmenter: its name, for the table and the folder of its segments.

    Raises:
        ArtifactNetError: an unknown mask, one twice, fewer than two or no ``none``; seeds, recipe
            or data as of `run_alignment`; a folder with nothing that fits.
    """
    _check_masks(masks, segments, saliency)
    _check_seeds(ABLATION, seeds)
    refuse_own_keys(overrides, _OWN, ABLATION)
    folder = Path(out)
    made = folder / "segments" / file_name(segmenter.replace("/", "--"))
    own_keys = {
        NONE: ["loss.alignment.weight=0"],
        ARTIFACT: [],
        "random": ["loss.alignment.mask=random"],
        "benign": ["loss.alignment.mask=benign", f"loss.alignment.segments={segments or made}"],
        "saliency": ["loss.alignment.mask=saliency"]
        + ([] if saliency is None else [f"loss.alignment.saliency={saliency}"]),
    }
    trainings = {
        (mask, seed): [*overrides, *own_keys[mask], *_own_keys(_run_name(mask), folder, seed)]
        for seed in seeds
        for mask in masks
    }
    configs = {key: load(recipe, changes) for key, changes in trainings.items()}
    check_alignment(ABLATION, recipe, _artifact_last(configs))
    if "benign" in masks and segments is None:
        for seed in seeds:
            config = configs["benign", seed]
            source = build_splits(config.data, config.seed)["train"]
            alignment_masks.write_segments(source, made, segment)
    without = {
        mask: _without_mask(configs[mask, seeds[0]], folder, mask)
        for mask in masks
        if mask not in (NONE, ARTIFACT)
    }
    values: dict[tuple[str, int], dict[str, float | None]] = {}
    evaluated = 0
    for (mask, seed), changes in trainings.items():
        run = train_once(recipe, changes)
        figures, evaluated = _figures(run, sets or {}, ("Acc", "F1"))
        values[mask, seed] = figures
    columns = ["Acc", "F1", *_MAPS]
    columns += _columns_of(sets or {}, ("Acc", "F1"))
    used = {
        "benign": f"segments: {segments or segmenter}",
        "saliency": saliency or "spectral residual",
    }
    rows = {
        mask: {
            "title": _TITLES[mask],
            "method": used.get(mask),
            "without_mask": without.get(mask),
        }
        for mask in masks
    }
    config = configs[masks[-1], seeds[-1]]
    notes = [_SCORE_NOTE, heatmap_note(config, evaluated), _MASK_NOTE]
    notes += [
        f"{_TITLES[mask]}: {count} of the training images with artifacts have none and count as "
        "not annotated in that row."
        for mask, count in without.items()
        if count
    ]
    about = {
        "experiment": ABLATION,
        "title": "With what attention is aligned (X-AIGD Table 14)",
        "recipe": recipe,
        "seeds": list(seeds),
        "overrides": list(overrides),
        "sets": describe_sets(sets or {}),
        "notes": notes,
    }
    against = [NONE, *([ARTIFACT] if ARTIFACT in masks else [])]
    table = write_table(folder, about, rows, values, columns, against=against)
    write_points(folder / f"{ABLATION}.png", table, ("map IoU", "Acc"))
    return table


def run_lambda_sweep(
    recipe: str,
    lambdas: Sequence[float],
    seeds: Sequence[int],
    out: str | Path,
    overrides: Sequence[str] = (),
    sets: Mapping[str, TestSet] | None = None,
) -> dict[str, Any]:
    """Train one recipe with several ``loss.alignment.benign_weight`` (X-AIGD Fig. 7).

    The row "selected" takes, for every seed, the weight with the best balanced accuracy on the
    validation images, of equals the smallest; the test sets never choose. Runs live in
    ``out/alignment_lambdaVALUE_sSEED``; see `run_alignment_ablation`. Writes
    ``lambda-sweep.json``, ``.md`` and ``.png`` and returns the content of the first.

    Args:
        recipe: name of a config with ``loss.alignment.weight`` above 0, or its file.
        lambdas: two or more numbers in [0, 1].
        seeds: each training is repeated with each of them.
        out: folder for runs and tables.
        overrides: ``dotted.key=value`` strings for all trainings.
        sets: name -> test set, about which all runs are asked, too; of one class it has its recall.

    Raises:
        ArtifactNetError: fewer than two weights, or one twice; otherwise as
            `run_alignment_ablation`.
    """
    if len(lambdas) < 2 or len(set(lambdas)) != len(lambdas):
        raise ArtifactNetError(f"--lambdas: give two or more, each once, not {list(lambdas)}")
    _check_seeds(SWEEP, seeds)
    refuse_own_keys(overrides, (*_OWN, "loss.alignment.benign_weight"), SWEEP)
    folder = Path(out)
    usual = load(recipe, overrides).loss.alignment.benign_weight
    trainings = {}
    for seed in seeds:
        for weight in lambdas:
            name = _run_name(ARTIFACT) if weight == usual else f"alignment_lambda{weight:g}"
            keys = [f"loss.alignment.benign_weight={weight:g}", *_own_keys(name, folder, seed)]
            trainings[weight, seed] = [*overrides, *keys]
    configs = [load(recipe, changes) for changes in trainings.values()]
    check_alignment(SWEEP, recipe, configs)
    values: dict[tuple[str, int], dict[str, float | None]] = {}
    chosen: dict[str, float] = {}
    evaluated = 0
    for seed in seeds:
        validation = {}
        for weight in lambdas:
            run = train_once(recipe, trainings[weight, seed])
            found = read_results(run)["training"]["best_validation"]
            validation[weight] = found["balanced_accuracy"]
            figures, evaluated = _figures(run, sets or {}, tuple(_SCORES))
            values[f"{weight:g}", seed] = {"val Acc": validation[weight], **figures}
        chosen[str(seed)] = select_lambda(validation)
        values["selected", seed] = values[f"{chosen[str(seed)]:g}", seed]
    columns = ["val Acc", *_SCORES, *_MAPS]
    columns += _columns_of(sets or {}, tuple(_SCORES))
    rows: dict[str, dict[str, Any]] = {
        f"{weight:g}": {"title": f"lambda {weight:g}", "method": None} for weight in lambdas
    }
    rows["selected"] = {"title": "selected by validation", "method": None, "lambdas": chosen}
    words = ", ".join(f"{weight:g} (seed {seed})" for seed, weight in chosen.items())
    selection = f"Selected: {words}, by balanced accuracy on the validation images; the smallest "
    about = {
        "experiment": SWEEP,
        "title": "Weight of patches without artifact (X-AIGD Fig. 7)",
        "recipe": recipe,
        "seeds": list(seeds),
        "overrides": list(overrides),
        "sets": describe_sets(sets or {}),
        "lambdas": list(lambdas),
        "notes": [_SCORE_NOTE, heatmap_note(configs[-1], evaluated), f"{selection}of equals."],
    }
    table = write_table(folder, about, rows, values, columns)
    curves = {_TEST: list(_SCORES)}
    curves |= {n: _columns_of({n: one}, tuple(_SCORES)) for n, one in (sets or {}).items()}
    write_curves(folder / f"{SWEEP}.png", table, lambdas, "lambda", curves)
    return table


def select_lambda(validation: Mapping[float, float]) -> float:
    """The weight with the highest balanced accuracy; of equals the smallest."""
    return min(validation, key=lambda weight: (-validation[weight], weight))


_SCORE_NOTE = (
    "Acc: balanced accuracy; F1 of the class fake; both at the model's threshold. The test images "
    "choose nothing: the epoch is chosen on the validation images."
)
_MASK_NOTE = (
    "Only annotated fakes with artifacts get another mask: photographs and clean fakes are aligned "
    "with nothing, and images without annotation left out, in every row. A random polygon has the "
    "area of the artifacts (1 to 50 % of the image), as has the built-in saliency: our reading."
)


def _check_masks(masks: Sequence[str], segments: str | None, saliency: str | None) -> None:
    unknown = [mask for mask in masks if mask not in MASKS]
    if unknown:
        raise ArtifactNetError(f"--masks: unknown {unknown[0]!r}; known: {', '.join(MASKS)}")
    if len(set(masks)) < max(2, len(masks)) or NONE not in masks:
        raise ArtifactNetError(
            f"--masks: give two or more, each once, and {NONE} among them, not {' '.join(masks)}"
        )
    for folder, mask, flag in (
        (segments, "benign", "--segments"),
        (saliency, "saliency", "--saliency"),
    ):
        if folder is not None and mask not in masks:
            raise ArtifactNetError(f"{flag} is for the mask {mask}, which is not among --masks")


def _check_seeds(name: str, seeds: Sequence[int]) -> None:
    check_seeds(seeds)
    if len(seeds) > MOST_PAIRS:
        raise ArtifactNetError(f"{name} takes up to {MOST_PAIRS} seeds, not {len(seeds)}")


def _run_name(mask: str) -> str:
    """As `artifactnet.experiments.alignment` calls the same trainings."""
    return "alignment_" + {NONE: "baseline", ARTIFACT: "aligned"}.get(mask, mask)


def _own_keys(name: str, folder: Path, seed: int) -> list[str]:
    return [f"name={name}_s{seed}", f"out={folder}", f"seed={seed}"]


def _artifact_last(configs: Mapping[tuple[str, int], Config]) -> list[Config]:
    """An aligned one last, by which `check_alignment` checks model and data."""
    return sorted(configs.values(), key=lambda config: config.loss.alignment.weight > 0)


def _without_mask(config: Config, folder: Path, mask: str) -> int:
    """Training images with artifacts for which there is no such mask; all are decoded, once."""
    alignment: AlignmentConfig = config.loss.alignment

    def count() -> dict[str, Any]:
        source = build_splits(config.data, config.seed)["train"]
        masks = alignment_masks.AlignmentMasks(alignment, config.seed, source.records)
        return {"images": alignment_masks.count_without_mask(source, masks)}

    question = {
        "mask": mask,
        "folder": alignment.segments or alignment.saliency,
        "data": asdict(config.data),
        "seed": config.seed,
    }
    count_of: int = compute_once(folder / f"without_{mask}.json", question, count)["images"]
    return count_of


def _figures(
    run: Path, sets: Mapping[str, TestSet], scores: Sequence[str]
) -> tuple[dict[str, float | None], int]:
    """Figures of a run on its own test images and on other sets; how many maps were scored."""
    results = read_results(run)
    if results["heatmap"] is None:
        raise ArtifactNetError(
            f"{run / JSON}: no heatmap was scored: {results['no_heatmap']}; add masks to the test "
            "split"
        )
    own = results["authenticity"]["all"]
    found: dict[str, float | None] = {score: own[_SCORES[score]] for score in scores}
    found |= {name: results["heatmap"][key] for name, key in _MAPS.items()}
    for name, test_set in sets.items():
        other = _asked(run, test_set)
        found |= {f"{score} {name}": other[score] for score in _scores_of(test_set, scores)}
    return found, results["heatmap"]["evaluated_images"]


def _scores_of(test_set: TestSet, scores: Sequence[str]) -> Sequence[str]:
    """These scores; of a set of one class the recall of that class."""
    return scores if test_set.only is None else (f"recall of {test_set.only}",)


def _columns_of(sets: Mapping[str, TestSet], scores: Sequence[str]) -> list[str]:
    return [f"{score} {name}" for name, one in sets.items() for score in _scores_of(one, scores)]


def _asked(run: Path, test_set: TestSet) -> dict[str, float | None]:
    """Figures of a run's verdicts on another set; answers are kept beside the runs."""
    (spec,) = parse_models([str(run)])
    model = open_model(spec, run_folder.read_config(run).train.device)
    answers = judge_level(
        test_set, parse_level(ORIGINAL), [model], run.parent / "answers", where=False
    )
    figures = level_figures(test_set.records, answers[model.name], None)
    return {score: figures[key] for score, key in _ELSEWHERE.items()}
