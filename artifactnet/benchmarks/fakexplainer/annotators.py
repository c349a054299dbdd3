"""Quality control of annotators, from files of their work and of controls (FakeXplainer, Sec. 3.3).

The work is a file of lines ``{"annotator", "image", "regions", "tags"}``, the last two as in a
manifest. The controls are lines ``{"image", "regions", "tags"}`` of images with a known answer,
under the same names of images. A line of work may say ``"control": true``: then there must be such
an answer.
"""

from __future__ import annotations

import statistics
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

from artifactnet.benchmarks.fakexplainer.rows import name_of, read_rows
from artifactnet.data.regions import parse_regions, parse_tags
from artifactnet.data.text import brief
from artifactnet.evaluation.tables import markdown_table
from artifactnet.metrics.annotators import (
    LEAST_IOU,
    LEAST_TAGS,
    AnnotatorQuality,
    Control,
    annotator_qualities,
    tag_agreement,
)
from artifactnet.metrics.box_sets import union_iou
from artifactnet.names import visible
from artifactnet.types import ArtifactNetError, Region

_NAMED = 5  # examples in a warning


class Work(NamedTuple):
    """What somebody wrote about an image."""

    image: str
    regions: tuple[Region, ...]
    tags: tuple[str, ...]
    where: str  # FILE:LINE
    annotator: str = ""
    control: bool = False  # said to be one


def read_controls(path: str | Path) -> dict[str, Work]:
    """Known answers, by image.

    Raises:
        ArtifactNetError: see `rows.read_rows`; a value is malformed, or an image is named twice.
    """
    answers: dict[str, Work] = {}
    for where, row in read_rows(Path(path), ("image", "regions", "tags")):
        work = _work(row, where)
        if work.image in answers:
            raise ArtifactNetError(
                f"{where}: {brief(work.image)} has an answer in {answers[work.image].where} "
                "already; keep one"
            )
        answers[work.image] = work
    return answers


def read_work(path: str | Path) -> list[Work]:
    """Work of all annotators, in the order of the file.

    Raises:
        ArtifactNetError: see `rows.read_rows`; a value is malformed, or somebody annotated an image
            twice.
    """
    found: dict[tuple[str, str], Work] = {}
    for where, row in read_rows(
        Path(path), ("annotator", "image", "regions", "tags"), ("control",)
    ):
        control = row.get("control", False)
        if not isinstance(control, bool):
            raise ArtifactNetError(
                f"{where}: 'control' must be true or false, not {brief(control)}"
            )
        annotator = name_of(row, "annotator", where)
        work = _work(row, where)._replace(annotator=annotator, control=control)
        first = found.setdefault((annotator, work.image), work)
        if first is not work:
            raise ArtifactNetError(
                f"{where}: {brief(annotator)} annotated {brief(work.image)} in {first.where} "
                "already; keep one"
            )
    return list(found.values())


def score_annotators(
    path: str | Path,
    controls: str | Path,
    least_iou: float = LEAST_IOU,
    least_tags: float = LEAST_TAGS,
) -> dict[str, Any]:
    """Compare the work on control images with the known answers.

    Args:
        path: file of the work.
        controls: file of the known answers.
        least_iou: see `artifactnet.metrics.annotators.annotator_qualities`.
        least_tags: likewise.

    Returns:
        JSON-ready ``annotators`` (one dict each; ``kept`` is None for one who saw no control),
        ``overall`` (means over the controls of those who are kept, images kept and left out),
        ``limits`` and ``warnings``.

    Raises:
        ArtifactNetError: those of `read_work` and `read_controls`; an image that is said to be a
            control has no answer; no control was annotated.
    """
    work, answers = read_work(path), read_controls(controls)
    compared = []
    for one in work:
        answer = answers.get(one.image)
        if answer is not None:
            boxes = [region.bbox for region in one.regions]
            iou = union_iou(boxes, [region.bbox for region in answer.regions])
            compared.append(Control(one.annotator, iou, tag_agreement(one.tags, answer.tags)))
        elif one.control:
            raise ArtifactNetError(
                f"{one.where}: {brief(one.image)} is a control, but {controls} has no answer for it"
            )
    if not compared:
        raise ArtifactNetError(
            f"{path}: no image is one of {controls}; both must name images alike"
        )
    judged = {one.annotator: one for one in annotator_qualities(compared, least_iou, least_tags)}
    images = Counter(one.annotator for one in work)
    kept = {name for name, one in judged.items() if one.kept}
    rest = [one for one in compared if one.annotator in kept]
    unknown = sorted(set(images) - set(judged))
    named = ", ".join(map(brief, unknown[:_NAMED])) + (", ..." if len(unknown) > _NAMED else "")
    note = f"not judged, since they annotated no control: {named}"
    return {
        "annotators": [_row(name, images[name], judged.get(name)) for name in sorted(images)],
        "overall": {
            "controls": len(rest),
            "iou": statistics.fmean(one.iou for one in rest) if rest else None,
            "tags": statistics.fmean(one.tags for one in rest) if rest else None,
            "images kept": sum(images[name] for name in kept),
            "images left out": sum(images[name] for name in set(judged) - kept),
            "images not judged": sum(images[name] for name in unknown),
        },
        "limits": {"iou": least_iou, "tags": least_tags},
        "warnings": [note] if unknown else [],
    }


def annotators_page(result: dict[str, Any]) -> str:
    """What `score_annotators` returns as a Markdown page."""
    overall, limits = result["overall"], result["limits"]
    header = ("annotator", "images", "controls", "IoU", "tag agreement", "work")
    rows = [
        [
            visible(one["annotator"]),
            str(one["images"]),
            str(one["controls"]),
            _percent(one["iou"]),
            _percent(one["tags"]),
            {True: "kept", False: "left out", None: "not judged"}[one["kept"]],
        ]
        for one in result["annotators"]
    ]
    lines = [
        "# Annotators",
        "",
        f"Means over the control images of each. Work is kept from an IoU of {limits['iou']:.1%} "
        f"and a tag agreement of {limits['tags']:.1%}.",
        "",
        *markdown_table(header, rows),
        "",
        f"Of those who are kept, over {overall['controls']} controls: IoU "
        f"{_percent(overall['iou'])}, tag agreement {_percent(overall['tags'])}.",
        f"Images: {overall['images kept']} kept, {overall['images left out']} left out, "
        f"{overall['images not judged']} not judged.",
        *(f"\nWARNING: {text}" for text in result["warnings"]),
    ]
    return "\n".join(lines) + "\n"


def _work(row: dict[str, Any], where: str) -> Work:
    regions, tags = (
        parse_regions(row["regions"], where),
        parse_tags(row["tags"], f"{where}: 'tags'"),
    )
    return Work(name_of(row, "image", where), regions, tags, where)


def _row(name: str, images: int, quality: AnnotatorQuality | None) -> dict[str, Any]:
    known = {"annotator": name, "images": images}
    if quality is None:
        return {**known, "controls": 0, "iou": None, "tags": None, "kept": None}
    return {**known, **quality._asdict()}


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.2%}"
