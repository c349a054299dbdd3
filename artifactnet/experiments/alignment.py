"""What attention alignment changes: one recipe with and without it, paired by seed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from artifactnet.config import Config, ConfigError, load
from artifactnet.data.datamodule import build_splits
from artifactnet.evaluation.results import JSON
from artifactnet.evaluation.samples import RunSamples, evaluated_split, open_samples
from artifactnet.experiments.common import (
    check_seeds,
    compute_once,
    read_results,
    train_once,
    write_table,
)
from artifactnet.explanation.judge import score_explanations
from artifactnet.explanation.methods import HEATMAP
from artifactnet.metrics.paired import MOST_PAIRS
from artifactnet.models.artifact_net import ArtifactNet
from artifactnet.rules import problems
from artifactnet.types import Annotation, ArtifactNetError, Record, Sample

NAME = "alignment"
TITLE = "What attention alignment changes"
RECIPE = "dinov2_align"
SEEDS = (0, 1, 2, 3, 4)
FAITHFULNESS_IMAGES = 40
_BASELINE, _ALIGNED = "baseline", "aligned"
_CURVES = ("deletion", "insertion")
_MOST_GENERATORS = 4  # with columns of their own; all of them are in the JSON file
_ROWS = {
    _BASELINE: ("baseline: loss.alignment.weight=0", ("loss.alignment.weight=0",)),
    _ALIGNED: ("aligned", ()),
}


def run_alignment(
    recipe: str,
    seeds: Sequence[int],
    out: str | Path,
    overrides: Sequence[str] = (),
    images: int = FAITHFULNESS_IMAGES,
) -> dict[str, Any]:
    """Train a recipe with and without alignment; write ``alignment.json`` and ``alignment.md``.

    Balanced accuracy and AUC, IoU of the interpretation heatmap with annotated artifacts (overall
    and per generator), and deletion and insertion of that heatmap; then the differences, with
    the exact sign-flip test over the seeds. Runs live in ``out/alignment_KEY_sSEED``. Finished
    ones are reused, so the same command continues after an interruption. Returns the content of
    ``alignment.json``.

    Args:
        recipe: name of a config with ``loss.alignment.weight`` above 0, or its file.
        seeds: two or more; each training is repeated with each of them.
        out: folder for runs and tables.
        overrides: ``dotted.key=value`` strings for all trainings.
        images: annotated test fakes for deletion and insertion, the same for every run; 0 leaves
            both out.

    Raises:
        ArtifactNetError: fewer than two seeds or one twice, a recipe without alignment, a model
            without attention, data without annotated fakes, or a run in ``out`` that was made
            with another config.
    """
    check_seeds(seeds)
    if not 2 <= len(seeds) <= MOST_PAIRS:
        raise ArtifactNetError(
            f"{NAME} compares pairs of runs over seeds: give 2 to {MOST_PAIRS} seeds, not "
            f"{len(seeds)}"
        )
    folder = Path(out)
    trainings = {
        (key, seed): [*overrides, *own, f"name={NAME}_{key}_s{seed}", f"out={out}", f"seed={seed}"]
        for seed in seeds
        for key, (_, own) in _ROWS.items()
    }
    configs = [load(recipe, changes) for changes in trainings.values()]
    check_alignment(NAME, recipe, configs)
    values: dict[tuple[str, int], dict[str, float | None]] = {}
    generators: dict[str, None] = {}  # in order
    counts: dict[str, int] = {}
    for (key, seed), changes in trainings.items():
        run = train_once(recipe, changes)
        results = read_results(run)
        values[key, seed] = _figures(results, run / JSON)
        generators |= dict.fromkeys(results["authenticity"]["generators"])
        counts = {"annotated": results["heatmap"]["evaluated_images"]}
        if images:
            curves = _faithfulness(run, images)
            values[key, seed] |= {name: curves[name] for name in _CURVES}
            counts["faithfulness"] = curves["used"]
    columns = ["BA", "AUC", "map IoU"]
    if 1 < len(generators) <= _MOST_GENERATORS:
        columns += [f"{figure} {name}" for figure in ("map IoU", "BA") for name in generators]
    about = {
        "experiment": NAME,
        "title": TITLE,
        "recipe": recipe,
        "seeds": list(seeds),
        "overrides": list(overrides),
        "images": counts,
        "notes": _notes(configs[-1], counts),
    }
    rows = {key: {"title": title, "method": None} for key, (title, _) in _ROWS.items()}
    columns += _CURVES if images else ()
    return write_table(folder, about, rows, values, columns, against=[_BASELINE])


def check_alignment(name: str, recipe: str, configs: Sequence[Config]) -> None:
    """Refuse, before the first training, what cannot be aligned or compared.

    Args:
        name: of the experiment.
        recipe: of all trainings.
        configs: those of all trainings, an aligned one last; data and model are checked for it.

    Raises:
        ArtifactNetError: a recipe without alignment, a model without attention, or data without
            annotated fakes.
    """
    config = configs[-1]
    if config.mllm.base is not None or config.loss.alignment.weight == 0:
        raise ConfigError(
            f"{recipe}: {name} needs a detector with loss.alignment.weight above 0; give a recipe "
            f"such as {RECIPE}, or set the key"
        )
    for each in configs:
        for key, problem in problems(each):
            raise ConfigError(f"{key} {problem}")
    model = ArtifactNet(config.model)  # with random weights, which is fast
    if not model.has_attention:
        raise ArtifactNetError(
            f"{recipe}: {config.model.backbone} has no attention to align: {model.no_attention}"
        )
    splits = build_splits(config.data, config.seed)
    data = f"data.name={config.data.name}"
    data += f" data.root={config.data.root}" if config.data.root else ""
    train = splits["train"].records if "train" in splits else []
    if not any(record.annotation is Annotation.MASK for record in train):
        raise ArtifactNetError(
            f"{data}: no training image has an artifact mask, so nothing can be aligned; use data "
            "with masks"
        )
    split = evaluated_split(splits)
    if split not in splits or not any(_is_annotated_fake(r) for r in splits[split].records):
        raise ArtifactNetError(
            f"{data}: no fake of the {split} split is annotated, so no heatmap can be scored; add "
            f"masks to that split"
        )


def _is_annotated_fake(record: Record) -> bool:
    return record.label == 1 and record.annotation is not Annotation.NONE


def _figures(results: Mapping[str, Any], where: Path) -> dict[str, float | None]:
    """Figures of a run's own results; those of each generator have its name behind them."""
    if results["heatmap"] is None:
        raise ArtifactNetError(
            f"{where}: no heatmap was scored: {results['no_heatmap']}; add masks to the test split"
        )
    everything, generators = results["authenticity"]["all"], results["authenticity"]["generators"]
    return {
        "BA": everything["balanced_accuracy"],
        "AUC": everything["auc"],
        "map IoU": results["heatmap"]["IoU"],
        **{f"map IoU {name}": row["IoU"] for name, row in results["heatmap_generators"].items()},
        **{f"BA {name}": row["balanced_accuracy"] for name, row in generators.items()},
    }


def _faithfulness(run: Path, images: int) -> dict[str, Any]:
    """Mean areas under the deletion and insertion curves of the run's own heatmap.

    ``used`` is the number of fakes, fewer than ``images`` if there are no more.
    """

    def compute() -> dict[str, Any]:
        data = open_samples(run)
        chosen = faithfulness_sample(data.records, images)
        scores = score_explanations(
            data.model, _load(data, chosen), [HEATMAP], faithfulness_images=images
        )["methods"][HEATMAP]
        for failure in scores["failures"]:
            raise ArtifactNetError(f"{run}: {failure['name']}: {failure['reason']}")
        areas = {name: scores[name] for name in _CURVES}
        return {**areas, "used": scores["faithfulness_images"]}

    question = {"method": HEATMAP, "images": images}
    return compute_once(run / "faithfulness.json", question, compute)


def faithfulness_sample(records: Sequence[Record], count: int) -> list[int]:
    """Positions of up to ``count`` annotated fakes, in order; the same whatever seed and order.

    Those whose generator and uid have the smallest SHA-256.
    """
    fakes = [index for index, record in enumerate(records) if _is_annotated_fake(record)]

    def rank(index: int) -> bytes:
        record = records[index]
        name = f"faithfulness\n{record.generator}\n{record.uid}"
        return hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()

    return sorted(sorted(fakes, key=rank)[:count])


def _load(
    data: RunSamples, chosen: Sequence[int]
) -> Iterator[tuple[str, Sample | ArtifactNetError]]:
    """The chosen images, one at a time, or why one cannot be used."""
    for index in chosen:
        location = data.records[index].location
        try:
            yield location, data.load(index)
        except ArtifactNetError as error:
            yield location, error


def heatmap_note(config: Config, annotated: int) -> str:
    """How "map IoU" of a table is measured, over ``annotated`` fakes."""
    return (
        "map IoU: the interpretation heatmap "
        f"(model.attention.method={config.model.attention.method}) above model.map_threshold="
        f"{config.model.map_threshold:g} against annotated artifacts, all pixels of "
        f"{annotated} fakes summed, at the model's size."
    )


def _notes(config: Config, counts: Mapping[str, int]) -> list[str]:
    """How to read the columns."""
    lines = [
        heatmap_note(config, counts["annotated"])
        + " A generator's BA sets its fakes against all real images."
    ]
    if "faithfulness" in counts:
        lines.append(
            "Deletion (less is better) and insertion (more is better): area under the probability "
            "of fake while pixels are removed, or put back, in the order of that heatmap; mean "
            f"over the same {counts['faithfulness']} annotated fakes in every run."
        )
    return lines
