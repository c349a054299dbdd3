"""What judging explanations found, as tables for people and as files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from artifactnet import files

JSON = "explanations.json"
MARKDOWN = "explanations.md"

_PIXELS = ("IoU", "PixP", "PixR", "PixF1")
_MEANS = {
    "pointing_game": "pointing",
    "mass_inside": "mass inside",
    "average_precision": "AP",
    "deletion": "deletion",
    "insertion": "insertion",
    "sanity_correlation": "sanity",
}
_IMAGES = {
    "evaluated_images": "images",
    "artifact_images": "with artifacts",
    "average_precision_images": "for AP",
    "faithfulness_images": "for deletion, insertion",
    "sanity_images": "for sanity",
    "sanity_undefined": "sanity undefined",
    "zero_prediction_images": "empty at threshold",
    "constant_images": "constant map",
}


def write(folder: Path, result: dict[str, Any]) -> None:
    """Write ``explanations.json`` and ``explanations.md``, each atomically.

    Args:
        folder: made if there is none.
        result: what `artifactnet.explanation.judge.judge` returned.
    """
    files.write_json(folder / JSON, result)
    files.write_text(folder / MARKDOWN, markdown(result))


def table(result: dict[str, Any]) -> str:
    """Method x metric as a Markdown table, with the number of images scored and failed.

    Args:
        result: what `artifactnet.explanation.judge.judge` returned.
    """
    figures = {name: name for name in (*_PIXELS, *_instance_names(result))} | _MEANS
    rows = [
        (
            name,
            *(_figure(row[key]) for key in figures),
            str(row["evaluated_images"]),
            str(len(row["failures"])),
            _figure(row["seconds_per_image"], 2),
        )
        for name, row in result["methods"].items()
    ]
    header = ("method", *figures.values(), "images", "failures", "seconds per image")
    return "\n".join(_table(header, rows))


def counts_table(result: dict[str, Any]) -> str:
    """The counts behind `table`: pixels, instances and images.

    Args:
        result: what `artifactnet.explanation.judge.judge` returned.
    """
    parts = ("tp", "fp", "fn")
    header = ["method", *(f"pixels {part.upper()}" for part in parts)]
    header += [*(f"instances {part.upper()}" for part in parts), *_IMAGES.values()]
    rows = [
        (
            name,
            *(str(row[part]) for part in parts),
            *(str(row["instances"][part]) for part in parts),
            *(str(row[key]) for key in _IMAGES),
        )
        for name, row in result["methods"].items()
    ]
    return "\n".join(_table(header, rows))


def markdown(result: dict[str, Any]) -> str:
    """The result as a Markdown page.

    Args:
        result: what `artifactnet.explanation.judge.judge` returned.
    """
    lines = ["# Explanations against annotated artifacts", ""]
    for notice in result["notices"]:
        lines += [f"> **Warning:** {notice}", ""]
    lines += [_scope(result["images"]), "", table(result), "", *_legend(result), ""]
    lines += ["## Counts", "", counts_table(result), ""]
    failures = [
        f"- {name}: {_line(failure['name'])}: {_line(failure['reason'])}"
        for name, row in result["methods"].items()
        for failure in row["failures"]
    ]
    failures += [
        f"- {_line(item['name'])}: {_line(item['reason'])}" for item in result["images"]["unusable"]
    ]
    if failures:
        lines += ["## Not explained", "", *failures, ""]
    return "\n".join(lines)


def _scope(images: dict[str, Any]) -> str:
    share = images["artifact_share"]
    covered = "" if share is None else f", which cover {share:.1%} of their pixels on average"
    return (
        f"{images['annotated']} annotated fakes of {images['seen']} images, "
        f"{images['with_artifacts']} of them with artifacts{covered}. Left out: "
        f"{images['real']} real images, {images['unannotated']} fakes without annotation and "
        f"{len(images['unusable'])} images that cannot be used."
    )


def _legend(result: dict[str, Any]) -> list[str]:
    share = result["images"]["artifact_share"]
    chance = "" if share is None else f" A constant map above 0 earns {share:.4f}."
    return [
        f"- {', '.join(_PIXELS)}: all categories as one, counted over all pixels at the images' "
        f"original size; artifact where the map is above {result['threshold']:g}.",
        f"- {', '.join(_instance_names(result))}: connected regions above it against instances.",
        "- pointing (is the maximum on an artifact), mass inside, AP (average precision of the "
        f"pixels): no threshold, mean over the fakes with artifacts.{chance}",
        "- deletion (less is better), insertion (more is better): area under the probability of "
        "fake while pixels are taken away, or brought back, in the order of the map.",
        "- sanity: rank correlation with the map of the same model with shuffled weights; near 1, "
        "the map does not show what was learnt.",
        "- seconds per image: of making the map, on the machine that judged.",
    ]


def _instance_names(result: dict[str, Any]) -> list[str]:
    return [f"{name}@{result['overlap']:g}" for name in ("P", "R", "F1")]


def _figure(value: float | None, digits: int = 4) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _line(text: str) -> str:
    """Text of others, such as a file name, on one line."""
    return " ".join(text.split())


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [header, ["---"] * len(header), *rows]
    return ["| " + " | ".join(line) + " |" for line in lines]
