"""What a report says about each image: verdict, maps, regions, scores, and its pictures."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from artifactnet.explanation.detector import Detector, OwnDetector
from artifactnet.explanation.explainer import Explained, Explainer
from artifactnet.explanation.predicted import PredictionExplainer
from artifactnet.explanation.report.encode import encode
from artifactnet.explanation.report.items import Item
from artifactnet.explanation.report.summary import MASK, Counts, Fact
from artifactnet.inference.base import BasePredictor
from artifactnet.inference.inputs import Failure
from artifactnet.inference.predictor import Predictor
from artifactnet.metrics.confusion import pixel_scores
from artifactnet.metrics.localization import mass_inside, pointing_game
from artifactnet.taxonomy import CATEGORIES, UNCATEGORIZED, UNCATEGORIZED_BIT
from artifactnet.types import Annotation, ArtifactNetError, Prediction, Sample, UInt8Array

MAP_THRESHOLD = 0.5  # of heatmaps, as in the paper's interpretation protocol (X-AIGD Sec. 4)
MAX_INSTANCES = 20  # listed per image
BITS = {c.label: c.bit for c in CATEGORIES} | {UNCATEGORIZED: UNCATEGORIZED_BIT}

# display names of the methods of `artifactnet.explanation.methods`
LABELS = {
    "grad_cam": "Grad-CAM",
    "grad_cam_smooth": "Grad-CAM, smoothed",
    "grad_cam_plus_plus": "Grad-CAM++",
    "hires_cam": "HiResCAM",
    "xgrad_cam": "XGrad-CAM",
    "layer_cam": "LayerCAM",
    "eigen_cam": "EigenCAM",
    "eigen_grad_cam": "Eigen-Grad-CAM",
    "score_cam": "Score-CAM",
    "rollout": "Attention Rollout",
    "gradient_rollout": "Gradient Rollout",
    "relevance": "Relevance Map",
    "sliding_patch": "Sliding patches",
    "segmentation": "Artifact probability",
    "heatmap": "Model's own map",
    "predicted_heatmap": "Predicted heatmap",
}
BoolArray = npt.NDArray[np.bool_]


@dataclass(slots=True)
class Content:
    """The images of a report, and those that could not be read or explained."""

    entries: list[dict[str, Any]] = field(default_factory=list)  # for JSON, with pictures as URIs
    facts: list[Fact] = field(default_factory=list)  # of the same images
    failures: list[Failure] = field(default_factory=list)


@dataclass(slots=True)
class _Read:
    """An image in memory."""

    item: Item
    pixels: UInt8Array
    sample: Sample | None

    def annotation(self) -> UInt8Array | None:
        """(H, W) bit field, all zero if annotated as clean; None if not annotated."""
        if self.sample is None or self.sample.record.annotation is Annotation.NONE:
            return None
        if self.sample.mask is None:
            return np.zeros(self.pixels.shape[:2], np.uint8)
        return self.sample.mask


def gather_content(
    explainer: Explainer | PredictionExplainer, items: Iterable[Item], batch_size: int
) -> Content:
    """Read, predict and explain images, ``batch_size`` of them in memory at a time.

    For a model with a segmentation head, masks and instances are added.
    """
    content = Content()
    segmenter = find_segmenter(explainer.detector)
    waiting = iter(items)
    while batch := [_read(item) for item in islice(waiting, batch_size)]:
        usable = [(each.item.name, each.pixels) for each in batch if isinstance(each, _Read)]
        answers = iter(explainer.explain_batch(usable) if usable else [])
        for read in batch:
            answer: Explained | Failure = read if isinstance(read, Failure) else next(answers)
            prediction = answer.prediction if isinstance(answer, Explained) else None
            if isinstance(answer, Explained) and segmenter is not None:
                try:
                    # one image at a time: its seven maps may take a hundred times its own memory
                    prediction = segmenter.predict(answer.pixels, 1)
                except ArtifactNetError as error:
                    answer = Failure(answer.name, str(error))
            if isinstance(answer, Failure):
                content.failures.append(answer)
                continue
            assert isinstance(read, _Read)
            fact = _fact(read, answer, prediction)
            content.entries.append(_entry(len(content.facts), read, answer, prediction, fact))
            content.facts.append(fact)
    if not any(entry["annotated"] for entry in content.entries):
        for entry in content.entries:  # a layer that is empty for every image is not offered
            entry["layers"].pop("annotation", None)
    return content


def find_segmenter(detector: Detector | BasePredictor) -> Predictor | None:
    """The predictor of masks, or None if the model has no segmentation head."""
    if isinstance(detector, OwnDetector) and detector.model.has_segmentation:
        return Predictor(detector.model)
    return None


def _read(item: Item) -> _Read | Failure:
    try:
        image = item.load()
    except ArtifactNetError as error:
        return Failure(item.name, str(error).removeprefix(f"{item.location or item.name}: "))
    return (
        _Read(item, image.image, image) if isinstance(image, Sample) else _Read(item, image, None)
    )


def _fact(read: _Read, answer: Explained, prediction: Prediction | None) -> Fact:
    mask = None if prediction is None else prediction.mask
    regions: dict[str, int] = {}
    for instance in () if prediction is None else prediction.instances:
        regions[instance.category] = regions.get(instance.category, 0) + 1
    annotation = read.annotation()
    fact = Fact(
        probability=answer.probability,
        is_fake=answer.is_fake,
        label=read.item.label,
        generator=read.item.generator,
        annotated=_categories(annotation),
        predicted=_categories(mask),
        regions=None if mask is None else regions,
        uncertain=answer.uncertain,
    )
    if annotation is not None and read.item.label == 1:
        _score(fact, answer, mask, annotation)
    return fact


def _correct(fact: Fact) -> bool | None:
    """Whether the verdict is right; None where there is none, or no label."""
    return None if fact.label is None or fact.uncertain else fact.is_fake == (fact.label == 1)


def _categories(mask: UInt8Array | None) -> tuple[str, ...]:
    if mask is None:
        return ()
    present = int(np.bitwise_or.reduce(mask, axis=None))
    return tuple(label for label, bit in BITS.items() if present & bit)


def _score(fact: Fact, answer: Explained, mask: UInt8Array | None, annotation: UInt8Array) -> None:
    """Compare the maps of an annotated fake with its annotation; add the counts to the fact."""
    truth = annotation != 0
    for method, explanation in answer.explanations.items():
        heatmap = explanation.heatmap
        fact.pixels[method] = _counts(heatmap > MAP_THRESHOLD, truth)
        if truth.any():
            fact.scores[method] = {
                "pointing": pointing_game(heatmap, truth),
                "mass": mass_inside(heatmap, truth),
            }
    if mask is None:
        return
    fact.pixels[MASK] = _counts(mask != 0, truth)
    if fact.annotated == (UNCATEGORIZED,):
        return  # the annotation has no categories
    for category in CATEGORIES:
        planes = ((array & category.bit) != 0 for array in (mask, annotation))
        fact.category_pixels[category.label] = _counts(*planes)


def _counts(predicted: BoolArray, truth: BoolArray) -> Counts:
    tp = int(np.count_nonzero(predicted & truth))
    return tp, int(np.count_nonzero(predicted)) - tp, int(np.count_nonzero(truth)) - tp


def _entry(
    number: int, read: _Read, answer: Explained, prediction: Prediction | None, fact: Fact
) -> dict[str, Any]:
    mask = None if prediction is None else prediction.mask
    heatmaps = {name: each.heatmap for name, each in answer.explanations.items()}
    map_warnings = [
        f"{LABELS.get(name, name)}: {warning}"
        for name, each in answer.explanations.items()
        for warning in each.warnings
    ]
    pictures = encode(read.pixels, heatmaps, mask, read.annotation())
    height, width = read.pixels.shape[:2]
    marked = mask != 0 if mask is not None else None
    if marked is None and heatmaps:
        marked = next(iter(heatmaps.values())) > MAP_THRESHOLD
    instances = [] if prediction is None else sorted(prediction.instances, key=lambda i: -i.area)
    entry = {
        "id": number,
        "name": read.item.name,
        "generator": fact.generator,
        "label": fact.label,
        "probability": fact.probability,
        "is_fake": fact.is_fake,
        "verdict": fact.verdict,
        "correct": _correct(fact),
        "confidence": max(fact.probability, 1 - fact.probability),
        "width": width,
        "height": height,
        "annotated": list(fact.annotated),
        "predicted": list(fact.predicted),
        "artifact_share": None if marked is None else float(marked.mean()),
        "instances": [
            {"category": i.category, "box": list(i.box), "area": i.area, "confidence": i.confidence}
            for i in instances[:MAX_INSTANCES]
        ],
        "scores": {
            name: {"iou": pixel_scores(*fact.pixels[name])["IoU"], **scores}
            for name, scores in fact.scores.items()
        },
        "warnings": [*answer.warnings, *map_warnings],
        "thumb": pictures.thumb,
        "layers": pictures.layers,
    }
    if answer.score is not None:
        entry["score"] = answer.score
    if answer.rationale is not None:
        entry["explanation"] = asdict(answer.rationale)
    if prediction is not None:
        entry |= _written(prediction)
    return entry


def _written(prediction: Prediction) -> dict[str, Any]:
    """Regions and tags of a model that writes them, in its order."""
    found: dict[str, Any] = {}
    if prediction.regions is not None:
        found["regions"] = [
            {"bbox": list(region.bbox), "caption": region.caption} for region in prediction.regions
        ]
    if prediction.tags is not None:
        found["tags"] = list(prediction.tags)
    return found
