"""What the pages of experiments that compare any models have in common: facts, notes, failures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2

from artifactnet.data.checks import compare_classes
from artifactnet.data.test_sets.base import TestSet
from artifactnet.evaluation.tables import markdown_table
from artifactnet.experiments.evaluated_models import EvaluatedModel
from artifactnet.experiments.level_figures import MANY_FAILURES
from artifactnet.explanation.report.leaderboard import (
    Answer,
    BoardImage,
    Condition,
    write_leaderboard,
)
from artifactnet.names import visible
from artifactnet.runs.requirements import package_version
from artifactnet.types import UInt8Array

Report = Callable[[str], None]

BOARD = "leaderboard.html"
_PACKAGES = ("artifactnet", "numpy", "pillow", "torch")
_LISTED = 10  # images without a judgment that a page names, of one model
UNJUDGED = "an image that a model cannot judge counts as wrong, for the AUC as surely wrong"


@dataclass(frozen=True, slots=True)
class InferenceOptions:
    """How models are opened and asked.

    Attributes:
        device: of models in PyTorch.
        batch_size: images that a model takes together; None: what suits each.
        workers: threads that read images ahead of the models.
        report: called with lines about the progress; None: silence.
    """

    device: str = "auto"
    batch_size: int | None = None
    workers: int = 0
    report: Report | None = None


def title_with_reals(title: str, reals: Sequence[str]) -> str:
    """The title of a page, which says where real images were taken from, if they were added."""
    return title + (f"; real images added: {', '.join(reals)}" if reals else "")


def describe_sets(sets: Mapping[str, TestSet]) -> dict[str, Any]:
    """JSON-ready facts about each set, with the warnings of the data check."""
    return {
        name: {
            "root": str(one.root),
            "layout": one.layout,
            **{key: one.counts()[key] for key in ("images", "real", "fake")},
            "left_out": {reason: len(images) for reason, images in one.left_out.items()},
            "warnings": [
                *one.warnings,
                *([] if one.only else compare_classes(one.name, one.source)[1]),
            ],
        }
        for name, one in sets.items()
    }


def describe_models(models: Sequence[EvaluatedModel]) -> dict[str, Any]:
    """JSON-ready facts about each model."""
    return {
        one.name: {
            **one.about,
            "version": one.version,
            "localization": one.localization,
            "warnings": list(one.warnings),
        }
        for one in models
    }


def versions() -> dict[str, str | None]:
    """Of what decides decoded pixels and answers."""
    return {**{name: package_version(name) for name in _PACKAGES}, "opencv": cv2.__version__}


def failures_of(lines: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Images without a judgment, and why: key -> reason."""
    return {line["path"]: line["problem"] for line in lines if line["problem"] is not None}


def notes(found: Mapping[str, Any]) -> list[str]:
    """Lines of a page: sets, models, versions, readings and warnings of an experiment's JSON."""
    lines = []
    for name, one in found["sets"].items():
        out = "".join(f"; left out: {count} {why}" for why, count in one["left_out"].items())
        lines.append(
            f"- {name} ({one['layout']}): {one['images']} images, {one['real']} real and "
            f"{one['fake']} fake{out}"
        )
        lines += [f"  - WARNING: {text}" for text in one["warnings"]]
    lines += [f"- {name}: missing ({why})" for name, why in found.get("missing", {}).items()]
    lines += ["", *_model_table(found["models"]), ""]
    for name, one in found["models"].items():
        lines += [f"- {name}: {text}" for text in one["warnings"]]
    lines.append(f"- versions: {', '.join(f'{k} {v}' for k, v in found['versions'].items())}")
    lines += [f"- our reading: {text}" for text in found["readings"]]
    lines += [f"- WARNING: {text}" for text in found["warnings"]]
    return [visible(line) for line in lines]


def _model_table(models: Mapping[str, Any]) -> list[str]:
    header = ["model", "what", "version", "fake from", "map above", "resize", "draws"]
    rows = [
        [
            name,
            str(one["source"]),
            str(one["version"])[:16],
            *("-" if one[k] is None else f"{one[k]:g}" for k in ("threshold", "map_threshold")),
            str(one["resize"]),
            one["localization"] or "-",
        ]
        for name, one in models.items()
    ]
    return markdown_table(header, rows)


def failure_warnings(cells: Sequence[Mapping[str, Any]]) -> list[str]:
    """A warning where a model could not judge more than `MANY_FAILURES` of the images.

    Args:
        cells: with ``model``, ``set``, ``level``, ``images`` and ``failed``.
    """
    return [
        f"{one['model']} could not judge {one['failed']} of {one['images']} images of {one['set']} "
        f"({one['level']}), {one['failed'] / one['images']:.1%}: they count as wrong"
        for one in cells
        if one["failed"] > MANY_FAILURES * one["images"]
    ]


def failure_lines(cells: Sequence[Mapping[str, Any]]) -> list[str]:
    """Lines of a page: images without a judgment, ``failures`` of each cell; none: no line."""
    lines = []
    for one in cells:
        named = list(one["failures"].items())
        lines += [
            f"- {one['model']}, {one['set']} {one['level']}: {key}: {why}"
            for key, why in named[:_LISTED]
        ]
        if len(named) > _LISTED:
            lines.append(f"- {one['model']}, {one['set']} {one['level']}: {len(named)} in all")
    return ["## Images without a judgment", "", *map(visible, lines), ""] if lines else []


def cell(value: float | None, difference: float | None = None) -> str:
    """A figure with three decimals, and a difference if there is one; ``-`` without a figure."""
    if value is None:
        return "-"
    return f"{value:.3f}" + ("" if difference is None else f" ({difference:+.3f})")


def board_condition(
    name: str,
    test_set: TestSet,
    answers: Mapping[str, Sequence[Mapping[str, Any]]],
    load: Callable[[int], UInt8Array],
) -> Condition:
    """Answers of several models for the page that shows models side by side.

    An image without a judgment is surely wrong there, too.

    Args:
        name: of set and level.
        test_set: the images.
        answers: by model, see `artifactnet.experiments.judging.judge_level`.
        load: decodes an image as models were shown it, for a thumbnail.
    """
    labels = [record.label for record in test_set.records]
    images = [
        BoardImage(key, label, record.generator, partial(load, index))
        for index, (key, label, record) in enumerate(
            zip(test_set.keys, labels, test_set.records, strict=True)
        )
    ]
    return Condition(
        name,
        images,
        {
            model: {
                key: Answer(label == 0, float(label == 0))
                if line["problem"] is not None
                else Answer(line["is_fake"], line["probability"])
                for key, label, line in zip(test_set.keys, labels, lines, strict=True)
            }
            for model, lines in answers.items()
        },
    )


def write_board(
    folder: Path, found: Mapping[str, Any], conditions: Sequence[Condition]
) -> Path | None:
    """Write ``leaderboard.html`` of sets with both classes; None where there is nothing to compare.

    Args:
        folder: of the page.
        found: JSON of the experiment, of which the page has title and warnings.
        conditions: see `board_condition`.

    Raises:
        OSError: it cannot be written.
    """
    shown = [
        one
        for one in conditions
        if len(one.answers) > 1 and len({image.label for image in one.images}) > 1
    ]
    if not shown:
        return None
    warnings = [text for one in found["sets"].values() for text in one["warnings"]]
    warnings += found["warnings"]
    title = found["title"]
    return write_leaderboard(folder / BOARD, shown, title=title, warnings=warnings).html
