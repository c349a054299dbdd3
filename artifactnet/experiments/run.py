"""Train what a plan asks for, as often as there are seeds; what is finished is not done again."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from artifactnet import files
from artifactnet.config import Config, load
from artifactnet.engine import rundir
from artifactnet.engine.results import JSON
from artifactnet.engine.samples import open_samples
from artifactnet.engine.trainer import train
from artifactnet.experiments.plans import PLANS, TITLES, Training
from artifactnet.experiments.table import AUTHENTICITY, HEATMAPS, PIXELS, markdown, spread
from artifactnet.explanation.judge import judge
from artifactnet.taxonomy import AGNOSTIC
from artifactnet.types import ArtifactNetError

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
    if (run / rundir.CONFIG).is_file():
        _same(run, config)
        if (run / rundir.FINISHED).is_file():
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
    saved = load(run / rundir.CONFIG)
    changed = rundir.differences(saved, config)
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
