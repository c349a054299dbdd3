"""Figures of answers against annotation (FakeXplainer, Sec. 5 and Tables 1, 2, 4 and 7).

They are made of lines, one per image, that hold what is known about it and what was answered, so
that saved answers can be scored again without a model.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from artifactnet.data.regions import are_coordinates, parse_tags
from artifactnet.data.text import brief, parse_json, read_text
from artifactnet.metrics.box_sets import BoxSetAreas, box_set_areas, matched_iou
from artifactnet.metrics.tags import tag_accuracies
from artifactnet.metrics.text import bleu, rouge_l
from artifactnet.types import ArtifactNetError, Region
from artifactnet.vlm.coordinates import Size
from artifactnet.vlm.fakexplainer import grammar
from artifactnet.vlm.fakexplainer.rewards import Reward, Truth, score_answer

Line = Mapping[str, Any]

KEYS = (  # of a line: what is known about the image, and what was answered
    *("path", "label", "generator", "size", "input_size", "regions", "tags", "drop", "form"),
    *("answer", "probability", "cut_off", "problem"),
)
# columns of tables -> keys of a row of figures
SHARES = {
    "Acc": "accuracy",
    "balanced Acc": "balanced_accuracy",
    "IoU": "iou",
    "pooled IoU": "iou_pooled",
    "matched IoU": "iou_matched",
    "BLEU-2": "bleu_2",
    "ROUGE-L": "rouge_l",
    "strict form": "strict",
    "R_G": "reward_grounding",
    "reward": "reward",
}
COUNTS = {
    "no verdict": "unparsable",
    "cut off": "cut_off",
    "boxes dropped": "dropped_boxes",
    "failed": "failed",
}


def make_line(
    path: str,
    label: int,
    generator: str,
    size: Size,
    input_size: Size | None,
    regions: Sequence[Region] | None,
    tags: Sequence[str] | None,
    drop: grammar.Drop,
    form: grammar.Form,
) -> dict[str, Any]:
    """What is known about an image, as in a line of answers.

    Args:
        path: where the image is.
        label: 0 real, 1 fake.
        generator: ``real`` for photographs.
        size: (width, height) of the image.
        input_size: (width, height) of the model's coordinates; None if it cannot take the image.
        regions: annotated, in pixels; a caption is empty where nobody wrote one. None: nobody
            looked.
        tags: likewise.
        drop: what answers lack.
        form: how regions are written.
    """
    return {
        "path": path,
        "label": label,
        "generator": generator,
        "size": list(size),
        "input_size": None if input_size is None else list(input_size),
        "regions": None
        if regions is None
        else [{"bbox": [*region.bbox], "caption": region.caption} for region in regions],
        "tags": None if tags is None else list(tags),
        "drop": drop,
        "form": form,
    }


@dataclass(frozen=True, slots=True)
class Judged:
    """One answer against what is known about its image; a figure that it lacks is None.

    Attributes:
        is_fake: the truth.
        generator: ``real`` for photographs.
        right: whether the verdict is; an answer without a verdict is wrong.
        unparsable: it has no verdict.
        failed: there is no answer.
        cut_off: it reached the limit of its length.
        strict: it follows the grammar in every detail.
        dropped: boxes of it that could not be used.
        areas: that its boxes and the annotated ones cover; of annotated fakes.
        iou: of the unions of these boxes.
        matched: of these boxes, one by one.
        texts: captions and tags as one text, the answer's and the annotated; of annotated fakes
            with captions.
        rouge_l: of these texts.
        tags: annotated tags; of annotated fakes.
        reward: what GRPO would give it, see `reward_line`.
        grounding: its part R_G, where answers have boxes.
    """

    is_fake: bool
    generator: str
    right: bool
    unparsable: bool
    failed: bool
    cut_off: bool
    strict: bool
    dropped: int
    areas: BoxSetAreas | None
    iou: float | None
    matched: float | None
    texts: tuple[str, str] | None
    rouge_l: float | None
    tags: tuple[str, ...] | None
    reward: Reward | None
    grounding: float | None


def judge_line(line: Line) -> Judged:
    """Compare the answer in a line with what the line knows.

    An answer without a verdict has no regions and no text. One that says real has no region: its
    IoU is 0.
    """
    size, is_fake = tuple(line["size"]), line["label"] == 1
    drop, text = line["drop"], line["answer"] or ""
    # an image that the model cannot take has no answer, so that no coordinates are converted
    input_size = tuple(line["input_size"] or line["size"])
    answer = grammar.read(text, size, input_size)
    if answer.is_fake is None:
        answer = grammar.Answer(None, dropped=answer.dropped)
    regions = line["regions"]
    annotated = is_fake and regions is not None
    areas = iou = matched = texts = None
    if annotated and drop not in ("bbox", "label"):
        boxes = [region.bbox for region in answer.regions] if answer.is_fake else []
        truth = [region["bbox"] for region in regions]
        areas = box_set_areas(boxes, truth, size)
        missed = not answer.is_fake
        iou = 0.0 if missed else areas.intersection / areas.union if areas.union > 0 else 1.0
        matched = 0.0 if missed else matched_iou(boxes, truth, size)
    if annotated and drop not in ("caption", "label") and any(r["caption"] for r in regions):
        kept = [Region(tuple(region["bbox"]), region["caption"]) for region in regions]
        tagged = drop != "tags"
        texts = (
            grammar.reference_text(answer.regions, answer.tags if tagged else (), answer.captions),
            grammar.reference_text(kept, (line["tags"] or ()) if tagged else ()),
        )
    reward = reward_line(line)
    return Judged(
        is_fake=is_fake,
        generator=line["generator"],
        right=answer.is_fake is is_fake,
        unparsable=answer.is_fake is None and line["answer"] is not None,
        failed=line["answer"] is None,
        cut_off=line["cut_off"],
        strict=grammar.is_strict(text, input_size, drop, line["form"]),
        dropped=answer.dropped,
        areas=areas,
        iou=iou,
        matched=matched,
        texts=texts,
        rouge_l=None if texts is None else rouge_l(*texts),
        tags=tuple(line["tags"]) if is_fake and line["tags"] is not None else None,
        reward=reward,
        grounding=None if reward is None or drop in ("bbox", "label") else reward.grounding,
    )


def reward_line(line: Line) -> Reward | None:
    """The reward R_G + R_C + R_F of the answer in a line: `score_answer` with w_G = 1.

    Eta is 1.1 and the IoU that of unions, whatever the training had, so that models can be
    compared. No answer earns nothing.

    Returns:
        None where the regions of a fake are unknown, unless answers have no boxes.
    """
    is_fake, regions, drop = line["label"] == 1, line["regions"], line["drop"]
    if is_fake and regions is None and drop not in ("bbox", "label"):
        return None
    if line["answer"] is None:
        return Reward(0.0, 0.0, 0.0, 0.0, 0, 0.0, 0.0)
    known = [Region(tuple(region["bbox"]), region["caption"]) for region in regions or ()]
    size, input_size = tuple(line["size"]), tuple(line["input_size"] or line["size"])
    truth = Truth(is_fake, known, line["tags"] or (), size, input_size)
    return score_answer(line["answer"], truth, weight=1.0, drop=drop, form=line["form"])


def compute_figures(
    lines: Sequence[Line], groups: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Figures of a set of answers, JSON-ready.

    Accuracy counts all images. IoU is a mean over annotated generated images, 0 where the verdict
    is not ``generated``; ``iou_pooled`` divides summed areas instead, and ``iou_matched`` compares
    box by box. BLEU-2 and ROUGE-L are over generated images with captions. Rewards are means of
    `reward_line` over all images for which it is known. In the other figures real images take part
    in the accuracy alone.

    Args:
        lines: of one model.
        groups: generator -> group, for rows of several generators.

    Returns:
        ``all``, ``real``, ``generators`` and ``groups`` by name, each a row with its counts, and
        ``tags``: Table 7, None where no generated image has tags or an empty list of them.
    """
    judged = [judge_line(line) for line in lines]
    fakes = [one for one in judged if one.is_fake]
    real = [one for one in judged if not one.is_fake]
    makers = sorted({one.generator for one in fakes})
    found: dict[str, Any] = {
        "all": _row(judged),
        "real": _row(real) if real else None,
        "generators": {
            name: _row([one for one in fakes if one.generator == name]) for name in makers
        },
        "groups": {},
    }
    for group in dict.fromkeys((groups or {}).values()):
        members = [one for one in fakes if (groups or {}).get(one.generator) == group]
        if members:
            found["groups"][group] = _row(members)
    tagged = [one for one in fakes if one.tags is not None]
    rows = tag_accuracies([one.tags or () for one in tagged], [one.right for one in tagged])
    found["tags"] = [row._asdict() for row in rows] if tagged else None
    return found


def _row(judged: Sequence[Judged]) -> dict[str, Any]:
    """Figures of some images, of which there is at least one."""
    fake = [one.right for one in judged if one.is_fake]
    real = [one.right for one in judged if not one.is_fake]
    both = [sum(part) / len(part) for part in (fake, real) if part]
    areas = [one.areas for one in judged if one.areas is not None]
    union = math.fsum(area.union for area in areas)
    texts = [one.texts for one in judged if one.texts is not None]
    rewards = [one.reward for one in judged if one.reward is not None]
    return {
        "images": len(judged),
        "fake": len(fake),
        "accuracy": (sum(fake) + sum(real)) / len(judged),
        "balanced_accuracy": sum(both) / 2 if len(both) == 2 else None,
        "iou": _mean([one.iou for one in judged if one.iou is not None]),
        "iou_pooled": math.fsum(area.intersection for area in areas) / union if union else None,
        "iou_matched": _mean([one.matched for one in judged if one.matched is not None]),
        "iou_images": len(areas),
        "bleu_2": bleu([one for one, _ in texts], [other for _, other in texts], order=2),
        "rouge_l": _mean([one.rouge_l for one in judged if one.rouge_l is not None]),
        "texts": len(texts),
        "strict": sum(one.strict for one in judged) / len(judged),
        "reward": _mean([one.total for one in rewards]),
        "reward_label": _mean([one.label for one in rewards]),
        "reward_grounding": _mean([one.grounding for one in judged if one.grounding is not None]),
        "reward_format": _mean([one.format for one in rewards]),
        "reward_images": len(rewards),
        "unparsable": sum(one.unparsable for one in judged),
        "cut_off": sum(one.cut_off for one in judged),
        "dropped_boxes": sum(one.dropped for one in judged),
        "failed": sum(one.failed for one in judged),
    }


def _mean(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None


def read_lines(path: str | Path) -> list[dict[str, Any]]:
    """Lines of a file of answers.

    Raises:
        ArtifactNetError: no such file, none in it, or a line that is not one; the message names
            file, line and key.
    """
    found = []
    for number, text in enumerate(read_text(Path(path)).split("\n"), 1):
        if text.strip():
            where = f"{path}:{number}"
            found.append(_parse_line(parse_json(text, where), where))
    if not found:
        raise ArtifactNetError(f"{path}: holds no answer")
    return found


def _parse_line(line: Any, where: str) -> dict[str, Any]:
    if not isinstance(line, dict):
        raise ArtifactNetError(f"{where}: not an object: {brief(line)}")
    missing = [key for key in KEYS if key not in line]
    if missing:
        raise ArtifactNetError(f"{where}: {missing[0]!r} is missing")
    checks = {
        "path": isinstance(line["path"], str),
        "label": line["label"] in (0, 1),
        "generator": isinstance(line["generator"], str),
        "size": _is_size(line["size"]),
        "input_size": line["input_size"] is None or _is_size(line["input_size"]),
        "regions": line["regions"] is None or _are_regions(line["regions"]),
        "drop": line["drop"] in get_args(grammar.Drop),
        "form": line["form"] in get_args(grammar.Form),
        "answer": line["answer"] is None or isinstance(line["answer"], str),
        "cut_off": isinstance(line["cut_off"], bool),
    }
    for key, good in checks.items():
        if not good:
            raise ArtifactNetError(f"{where}: {key!r} cannot be {brief(line[key])}")
    tags = line["tags"]
    return line if tags is None else line | {"tags": parse_tags(tags, f"{where}: 'tags'")}


def _is_size(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 2
        and are_coordinates(value)
        and all(type(v) is int and v > 0 for v in value)
    )


def _are_regions(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(region, dict)
        and isinstance(region.get("caption"), str)
        and isinstance(region.get("bbox"), list)
        and len(region["bbox"]) == 4
        and are_coordinates(region["bbox"])
        for region in value
    )


def read_groups(path: str | Path) -> dict[str, str]:
    """Groups of generators: a JSON file of one object, generator -> name of its group.

    Raises:
        ArtifactNetError: no such file, or something else in it.
    """
    groups = parse_json(read_text(Path(path)), str(path))
    if not isinstance(groups, dict) or not all(isinstance(name, str) for name in groups.values()):
        raise ArtifactNetError(
            f'{path}: groups of generators are one JSON object, {{"sdxl": "Diffusion", ...}}, not '
            f"{brief(groups)}"
        )
    return groups


def ungrouped(lines: Sequence[Line], groups: Mapping[str, str]) -> list[str]:
    """Generators of fakes that are in no group."""
    return sorted({line["generator"] for line in lines if line["label"] == 1} - groups.keys())
