"""Train what a plan asks for, as often as there are seeds; what is finished is not done again."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from artifactnet import files
from artifactnet.config import Config, load
from artifactnet.evaluation.results import JSON
from artifactnet.evaluation.samples import open_samples
from artifactnet.evaluation.tables import AUTHENTICITY, HEATMAPS, PIXELS, markdown, spread
from artifactnet.explanation.judge import judge
from artifactnet.runs import run_folder
from artifactnet.taxonomy import AGNOSTIC
from artifactnet.training.trainer import train
from artifactnet.types import ArtifactNetError


@dataclass(frozen=True, slots=True)
class Training:
    """One training of an experiment, repeated for every seed.

    Attributes:
        key: name of the row and of the runs, ``key_s0`` for seed 0.
        title: of the row.
        recipe: name of the config.
        start: key of the training whose weights it starts from.
        judges: it learns to tell real from fake; otherwise its verdicts mean nothing.
        segments: it has a segmentation head that was taught, now or before.
        method: how its verdict is explained, for tables of interpretation; None leaves it out.
        overrides: ``dotted.key=value`` strings that make it what its title says.
    """

    key: str
    title: str
    recipe: str
    start: str | None = None
    judges: bool = True
    segments: bool = False
    method: str | None = None
    overrides: tuple[str, ...] = ()


_AJ = Training("aj", "AJ-only", "swin_aj", method="grad_cam_smooth")
_PAD = Training("pad", "PAD-only", "swin_pad", judges=False, segments=True)
_PROBED = Training("lp", "transfer, linear probing", "swin_transfer_lp", start="pad", segments=True)
_TUNED = Training(
    "ft", "transfer, full fine-tuning", "swin_transfer_ft", start="pad", method="grad_cam_smooth"
)
_MULTI = Training(
    "multitask", "multi-task", "swin_multitask", segments=True, method="grad_cam_smooth"
)
_RANDOM = ("model.pretrained=false",)  # the packaged weights have seen the embedded masks
_BASELINE = Training(
    "base", "ViT baseline", "dinov2_baseline", method="relevance", overrides=_RANDOM
)
_ALIGNED = Training("align", "ViT aligned", "dinov2_align", method="relevance", overrides=_RANDOM)

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
TITLES = {
    "detection": "Authenticity judgment and perceptual artifact detection (X-AIGD Table 2)",
    "interpretation": "Where detectors look, against annotated artifacts (X-AIGD Table 13)",
    "fusion-ablation": "How global and local heatmaps become one (HEIE Table 5)",
}
_EXPLAINED = "explanation.json"
_COLUMNS: dict[str, tuple[str, ...]] = {
    "detection": (*AUTHENTICITY, *PIXELS),
    "interpretation": PIXELS,
    "fusion-ablation": HEATMAPS,
}


def run_experiment(
    name: str, seeds: Sequence[int], out: str | Path, overrides: Sequence[str] = ()
) -> dict[str, Any]:
    """Run one of `PLANS` and write ``NAME.json`` and ``NAME.md`` into ``out``.

    Runs live in ``out/KEY_sSEED``. Finished ones are taken as they are, unfinished ones are
    resumed, so the same command goes on after an interruption.

    Args:
        name: of the plan.
        seeds: each training is made with each of them.
        out: folder for runs and tables.
        overrides: ``dotted.key=value`` strings for all trainings.

    Returns:
        The content of ``NAME.json``.

    Raises:
        ArtifactNetError: no such plan, no seed or one twice, an override that cannot be used, or
            a run in ``out`` was made with another config.
    """
    if name not in PLANS:
        raise ArtifactNetError(f"unknown experiment {name!r}; known: {', '.join(PLANS)}")
    check_seeds(seeds)
    folder = Path(out)
    rows = []
    for seed in seeds:
        for training in PLANS[name]:
            run = _trained(training, seed, folder, overrides)
            if name == "detection":
                rows.append((training, seed, _detection(training, run)))
            elif name == "fusion-ablation":
                rows.append((training, seed, _heatmaps(run)))
            elif training.method is not None:
                rows.append((training, seed, _interpretation(training.method, run)))
    columns = _COLUMNS[name]
    found = {
        "experiment": name,
        "title": TITLES[name],
        "seeds": list(seeds),
        "overrides": list(overrides),
        "columns": list(columns),
        "rows": [
            {
                "key": training.key,
                "title": training.title,
                "recipe": training.recipe,
                "method": training.method if name == "interpretation" else None,
                "seeds": {str(s): values for t, s, values in rows if t is training},
                "spread": spread([values for t, _, values in rows if t is training], columns),
            }
            for training in dict.fromkeys(training for training, _, _ in rows)
        ],
    }
    files.write_json(folder / f"{name}.json", found)
    files.write_text(folder / f"{name}.md", markdown(found))
    return found


def _trained(training: Training, seed: int, folder: Path, overrides: Sequence[str]) -> Path:
    """Folder of the finished run of a training."""
    own = [f"name={training.key}_s{seed}", f"out={folder}", f"seed={seed}"]
    if training.start is not None:
        own.append(f"init_from={folder / f'{training.start}_s{seed}'}")
    return finished(training.recipe, [*overrides, *training.overrides, *own], train)


def check_seeds(seeds: Sequence[int]) -> None:
    """Refuse seeds that make no experiment.

    Raises:
        ArtifactNetError: none, or one twice.
    """
    if not seeds or len(set(seeds)) != len(seeds):
        raise ArtifactNetError(f"seeds must be given, each once, not {list(seeds)}")


def finished(recipe: str, overrides: Sequence[str], train: Callable[[Config], object]) -> Path:
    """Folder of the finished run of a config: taken as it is, gone on with, or made.

    Args:
        recipe: name of the config, or its file.
        overrides: ``dotted.key=value`` strings, the run's name among them.
        train: trains it.

    Raises:
        ArtifactNetError: the run that is there was made with another config, or there is work
            for several processes: those that Lightning starts would each repeat the whole
            experiment.
    """
    config = load(recipe, overrides)
    run = Path(config.out) / config.name
    if (run / run_folder.CONFIG).is_file():
        _same(run, config)
        if (run / run_folder.FINISHED).is_file():
            return run
        config.resume = True
    if config.train.devices > 1:
        again = ["resume=true"] if config.resume else []
        words = ["artifactnet", "train", recipe, *overrides, *again]
        raise ArtifactNetError(
            f"{run} is not finished, and an experiment cannot train with train.devices="
            f"{config.train.devices}: make it with `{shlex.join(words)}`, then the same command "
            "goes on"
        )
    train(config)
    return run


def _same(run: Path, config: Config) -> None:
    saved = load(run / run_folder.CONFIG)
    changed = run_folder.differences(saved, config)
    for key in ("epochs", "max_steps"):  # a run may be prolonged, but a table compares budgets
        before, now = getattr(saved.train, key), getattr(config.train, key)
        if before != now:
            changed.append(f"train.{key} was {before!r}, is {now!r}")
    if changed:
        raise ArtifactNetError(
            f"{run} was made with another config: {'; '.join(changed)}; choose another --out or "
            "delete that run"
        )


def _detection(training: Training, run: Path) -> dict[str, float]:
    """What a run's own results say of what it was taught."""
    results = json.loads((run / JSON).read_text(encoding="utf-8"))
    values: dict[str, float] = {}
    if training.judges:
        scores = results["authenticity"]["all"]
        values |= {key: scores[field] for key, field in AUTHENTICITY.items()}
    if training.segments and results["masks"]:
        values |= {key: results["masks"]["all"][AGNOSTIC][key] for key in PIXELS}
    return values


def _heatmaps(run: Path) -> dict[str, float]:
    """How the heatmaps of a run's own results agree with the annotated ones."""
    path = run / JSON
    figures = json.loads(path.read_text(encoding="utf-8")).get("saliency")
    if figures is None or any(figures[key] is None for key in HEATMAPS):
        raise ArtifactNetError(
            f"{path}: no heatmap was compared with an annotated one; the test split needs images "
            "with artifact masks or heatmaps, the model a heatmap head"
        )
    return {key: figures[key] for key in HEATMAPS}


def _interpretation(method: str, run: Path) -> dict[str, float]:
    """Pixel scores of the explanation of a run's verdicts, kept beside its results."""
    path = run / _EXPLAINED
    if path.is_file():
        kept = json.loads(path.read_text(encoding="utf-8"))
        if kept["method"] == method:
            return {key: kept["scores"][key] for key in PIXELS}
    data = open_samples(run)
    found = judge(data.model, data.each(), [method])["methods"][method]
    files.write_json(path, {"method": method, "scores": found})
    return {key: found[key] for key in PIXELS}
