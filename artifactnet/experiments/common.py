"""What all experiments share: finished runs, figures kept beside them, one table of all seeds."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from artifactnet import api, files
from artifactnet.config import Config, ConfigError, load
from artifactnet.evaluation.results import JSON
from artifactnet.evaluation.tables import markdown_table, mean_spread, mean_std
from artifactnet.metrics.paired import holm, paired_difference, smallest_p
from artifactnet.runs import run_folder
from artifactnet.types import ArtifactNetError

_LEVEL = 0.05  # of significance, for a note; nothing is decided by it
_DIGITS = {"MSE": 5, "MSE GT=0": 5}  # as in the papers; three otherwise


def check_seeds(seeds: Sequence[int]) -> None:
    """Raise `ArtifactNetError` if there is no seed, or one twice."""
    if not seeds or len(set(seeds)) != len(seeds):
        raise ArtifactNetError(f"seeds must be given, each once, not {list(seeds)}")


def refuse_own_keys(
    overrides: Sequence[str], own: Sequence[str], name: str, each: str = "each training"
) -> None:
    """Raise `ConfigError` for an override of a key that the experiment itself sets.

    Args:
        overrides: ``dotted.key=value`` strings.
        own: keys.
        name: of the experiment.
        each: what has a value of its own.
    """
    for override in overrides:
        key = override.partition("=")[0]
        if key in own:
            raise ConfigError(f"{key} cannot be set for {name}: {each} has its own")


def train_once(recipe: str, overrides: Sequence[str]) -> Path:
    """Train a config unless that run is finished; resume it if it was interrupted.

    Raises:
        ArtifactNetError: the existing run was made with another config, or the config asks for
            several processes: each of those that Lightning starts would repeat the whole
            experiment. FakeXplainer's own processes train and do no more.
    """
    config = load(recipe, overrides)
    run = Path(config.out) / config.name
    if (run / run_folder.CONFIG).is_file():
        _check_same(run, config)
        if (run / run_folder.FINISHED).is_file():
            return run
        config.resume = True
    if config.train.devices > 1 and config.mllm.task == "heie":
        resume = ["resume=true"] if config.resume else []
        command = shlex.join(["artifactnet", "train", recipe, *overrides, *resume])
        raise ArtifactNetError(
            f"{run} is not finished, and an experiment cannot train with train.devices="
            f"{config.train.devices}: train it with `{command}`, then run the experiment again"
        )
    api.train(config)
    return run


def _check_same(run: Path, config: Config) -> None:
    saved = run_folder.read_config(run)
    changed = run_folder.changed_keys(saved, config)
    for key in ("epochs", "max_steps"):  # a run may be prolonged, but a table compares budgets
        before, now = getattr(saved.train, key), getattr(config.train, key)
        if before != now:
            changed.append(f"train.{key} was {before!r}, is {now!r}")
    if changed:
        raise ArtifactNetError(
            f"{run} was made with another config: {'; '.join(changed)}; choose another --out or "
            "delete that run"
        )


def read_results(run: Path) -> dict[str, Any]:
    """Content of a run's own ``results.json``."""
    results: dict[str, Any] = json.loads((run / JSON).read_text(encoding="utf-8"))
    return results


def compute_once(
    path: Path, question: Mapping[str, Any], compute: Callable[[], Mapping[str, Any]]
) -> dict[str, Any]:
    """Figures that took time, read from a file that an earlier call of the experiment wrote.

    ``question`` holds what the figures depend on, and is kept with them; a file with another one
    is replaced.
    """
    if path.is_file():
        kept: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if all(kept.get(key) == value for key, value in question.items()):
            return kept
    figures = {**question, **compute()}
    files.write_json(path, figures)
    return figures


def write_table(
    folder: Path,
    about: Mapping[str, Any],
    trainings: Mapping[str, Mapping[str, Any]],
    values: Mapping[tuple[str, int], Mapping[str, float | None]],
    columns: Sequence[str],
    against: Sequence[str] = (),
) -> dict[str, Any]:
    """Write an experiment as ``NAME.json`` and ``NAME.md`` and return the content of the former.

    Args:
        folder: for both files.
        about: ``experiment`` (its name), ``title``, ``seeds``, ``overrides`` and what else
            belongs into the JSON file; ``notes`` are printed below the table, ``missing`` in
            place of a figure that no run has.
        trainings: key -> ``title``, ``method`` and what else belongs into the row, in order.
        values: (key, seed) -> figures; a figure that a run does not have is missing or None.
        columns: names of the figures.
        against: keys of rows with which all others are compared, seed by seed. ``differences``
            then has mean, sample std, ``p`` of the exact sign-flip test, and ``p_holm``, adjusted
            for the rows of a column that are compared with one and the same.
    """
    rows = []
    for key, training in trainings.items():
        seeds = {str(s): dict(values[key, s]) for s in about["seeds"] if (key, s) in values}
        spread = {column: _spread(_column(seeds, column)) for column in columns}
        rows.append({"key": key, **training, "seeds": seeds, "spread": spread})
    table = {**about, "columns": list(columns), "rows": rows}
    if against:
        table["differences"] = [
            difference for key in against for difference in _differences(rows, key, columns)
        ]
    files.write_json(folder / f"{about['experiment']}.json", table)
    files.write_text(folder / f"{about['experiment']}.md", experiment_page(table))
    return table


def _column(seeds: Mapping[str, Mapping[str, float | None]], column: str) -> list[float]:
    found = (figures.get(column) for figures in seeds.values())
    return [value for value in found if value is not None]


def _spread(values: Sequence[float]) -> dict[str, float | None] | None:
    return dict(zip(("mean", "std"), mean_std(values), strict=True)) if values else None


def _differences(
    rows: Sequence[Mapping[str, Any]], against: str, columns: Sequence[str]
) -> list[dict[str, Any]]:
    """Every other row minus the one with the key ``against``, over the seeds that both have."""
    (control,) = (row for row in rows if row["key"] == against)
    found = []
    for row in rows:
        if row is not control:
            spread = {c: _difference(row["seeds"], control["seeds"], c) for c in columns}
            found.append({"key": row["key"], "against": against, "spread": spread})
    for column in columns:
        tested = [entry["spread"][column] for entry in found if entry["spread"][column]]
        for difference, p in zip(tested, holm([one["p"] for one in tested]), strict=True):
            difference["p_holm"] = p
    return found


def _difference(
    treated: Mapping[str, Mapping[str, float | None]],
    control: Mapping[str, Mapping[str, float | None]],
    column: str,
) -> dict[str, Any] | None:
    pairs = [(treated[s].get(column), control[s].get(column)) for s in treated if s in control]
    both = [(a, b) for a, b in pairs if a is not None and b is not None]
    if not both:
        return None
    return paired_difference([a for a, _ in both], [b for _, b in both])._asdict()


def experiment_page(experiment: Mapping[str, Any]) -> str:
    """Markdown of what `write_table` returned: mean and spread over the seeds, then every seed."""
    columns, missing = experiment["columns"], experiment.get("missing", "")
    seeds = ", ".join(str(seed) for seed in experiment["seeds"])
    summary, single = [], []
    for row in experiment["rows"]:
        title = f"{row['title']} ({row['method']})" if row["method"] else str(row["title"])
        cells = [
            mean_spread(_column(row["seeds"], c), _DIGITS.get(c, 3)) or missing for c in columns
        ]
        summary.append([title, *cells])
        for seed, figures in row["seeds"].items():
            cells = [
                mean_spread(_column({seed: figures}, c), _DIGITS.get(c, 3)) or missing
                for c in columns
            ]
            single.append([title, seed, *cells])
    differences = experiment.get("differences", [])
    adjusted = len(experiment["rows"]) > 2
    for entry in differences:
        cells = [_difference_cell(entry["spread"][c], _DIGITS.get(c, 3), adjusted) for c in columns]
        summary.append([f"difference ({entry['key']} - {entry['against']})", *cells])
    notes = [
        *_difference_notes(differences, len(experiment["rows"]) - 1),
        *experiment.get("notes", []),
    ]
    lines = [
        f"# {experiment['title']}",
        "",
        f"Seeds {seeds}; mean ± sample standard deviation. Overrides: "
        f"{', '.join(experiment['overrides']) or 'none'}.",
        "",
        *markdown_table(["training", *columns], summary),
        "",
        *(line for note in notes for line in (note, "")),
        *markdown_table(["training", "seed", *columns], single),
    ]
    return "\n".join(lines) + "\n"


def _difference_cell(difference: Mapping[str, Any] | None, digits: int, adjusted: bool) -> str:
    if difference is None:
        return ""
    spread = "" if difference["std"] is None else f" ± {difference['std']:.{digits}f}"
    p = difference["p_holm" if adjusted else "p"]
    return f"{difference['mean']:+.{digits}f}{spread} (p = {p:.3g})"


def _difference_notes(differences: Sequence[Mapping[str, Any]], compared: int) -> list[str]:
    """What the p-values are, and what they cannot be; ``compared`` rows share a control."""
    found = [one for entry in differences for one in entry["spread"].values() if one]
    if not found:
        return []
    pairs = max(one["pairs"] for one in found)
    note = f"Differences are paired by seed; p: exact two-sided sign-flip test over {pairs} pairs"
    if compared > 1:
        note += f", adjusted (Holm) for the {compared} rows of a column"
    note += "."
    if smallest_p(pairs) > _LEVEL:
        enough = next(n for n in range(pairs, 99) if smallest_p(n) <= _LEVEL)
        note += (
            f" With {pairs} pairs p cannot fall below {smallest_p(pairs):.3g}; {enough} seeds can "
            f"fall below {_LEVEL:g}."
        )
    return [note]
