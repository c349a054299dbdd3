"""Heatmap and score figures as the rows of the papers' tables (HEIE Tables 1 and 3)."""

from __future__ import annotations

from typing import Any, NamedTuple

# column -> field of `artifactnet.metrics.saliency_metric.SaliencyMetric`, in the papers' order
SALIENCY = {
    "MSE (all)": "MSE",
    "MSE (GT=0)": "MSE GT=0",
    "KLD": "KLD",
    "CC": "CC",
    "SIM": "SIM",
    "AUC-Judd": "AUC-Judd",
    "NSS": "NSS",
}
SCORES = ("PLCC", "SRCC")
_GROUPS = ("marked", "real", "fake")  # of images, that agreement with the teacher is told of


class Section(NamedTuple):
    """One table of one row."""

    title: str  # of the section of a page
    label: str  # of the line in a terminal
    header: tuple[str, ...]
    row: tuple[str, ...]
    note: str  # how many images, and what the figures are


def sections(results: dict[str, Any], size: str = "at the model's size") -> list[Section]:
    """Tables of what a heatmap head was judged by.

    Args:
        results: content of a ``results.json``; files written before there were heatmap heads
            have none of the keys and give no section, like models without such a head.
        size: at which the heatmaps were compared, in words.

    Returns:
        Up to two sections: against annotation, and against the teacher.
    """
    found = []
    if results.get("saliency") or results.get("scores"):
        found.append(_annotation(results.get("saliency"), results.get("scores"), size))
    if results.get("teacher"):
        found.append(_teacher(results["teacher"]))
    return found


def _annotation(
    saliency: dict[str, Any] | None, scores: dict[str, Any] | None, size: str
) -> Section:
    cells = [_number(name, (saliency or {}).get(name)) for name in SALIENCY.values()]
    cells += [_number(name, (scores or {}).get(name)) for name in SCORES]
    notes = ["No annotated image."]
    if saliency:
        marked = saliency["images"] - saliency["empty_images"]
        notes = [
            f"Means over {saliency['images']} annotated images {size}; MSE (GT=0) "
            f"over the {saliency['empty_images']} without any artifact, real ones among them; KLD, "
            f"CC, SIM, AUC-Judd and NSS over the {marked} with one. "
            f"{saliency['unannotated_images']} images without annotation took no part."
        ]
    if scores:
        notes.append(f"PLCC and SRCC over {scores['images']} images with a score.")
    else:
        notes.append("No image has a score.")
    header = (*SALIENCY, *SCORES)
    title = "Heatmap and score against annotation"
    return Section(title, "heatmap and score", header, tuple(cells), " ".join(notes))


def _teacher(teacher: dict[str, Any]) -> Section:
    groups = {"": teacher} | {f" ({key})": teacher[key] for key in _GROUPS if key in teacher}
    names = [(name, group) for group in groups for name in ("CC", "MSE")]
    header = tuple(f"{name}{group}" for name, group in names)
    cells = tuple(_number(name, groups[group][name]) for name, group in names)
    note = (
        f"Means over {teacher['images']} images; the CC leaves out {teacher['constant_images']} on "
        "which the teacher's heatmap is constant. Pixels that the teacher never saw do not count."
    )
    if "marked" in teacher:
        marked, real, fake = (teacher[key]["images"] for key in _GROUPS)
        note += (
            f" Marked are the {marked} images on which the teacher's heatmap exceeds 0.5 somewhere "
            f"(the papers' GT > 0); {real} are real, {fake} fake."
        )
    if "name" in teacher:
        note += f" The teacher is {teacher['name']}."
    return Section("Heatmap against the teacher's", "with the teacher", header, cells, note)


def _number(name: str, value: float | None) -> str:
    """Digits as in the papers; a dash where no image has the figure."""
    if value is None:
        return "-"
    return f"{value:.5f}" if name.startswith("MSE") else f"{value:.3f}"
