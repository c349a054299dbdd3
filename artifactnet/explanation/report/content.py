"""What a report says about each image: verdict, maps, regions, scores, and its pictures."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from artifactnet.data.shards import Place, ShardReader, read_rows
from artifactnet.explanation.detector import Detector, OwnDetector
from artifactnet.explanation.explainer import Explained
from artifactnet.explanation.report.encode import encode
from artifactnet.explanation.report.summary import MASK, Counts, Fact
from artifactnet.inference import collect
from artifactnet.inference.collect import SUFFIX
from artifactnet.inference.inputs import Failure, ImageInput, to_pixels
from artifactnet.inference.predictor import Predictor, PredictorLike
from artifactnet.metrics.localization import mass_inside, pointing_game
from artifactnet.metrics.scores import pixel_scores
from artifactnet.taxonomy import CATEGORIES, UNCATEGORIZED, UNCATEGORIZED_BIT
from artifactnet.types import (
    Annotation,
    ArtifactNetError,
    Instance,
    Prediction,
    Record,
    Sample,
    UInt8Array,
)


@dataclass(frozen=True, slots=True)
class Item:
    """An image that waits to be read.

    Attributes:
        name: what the report calls it.
        load: reads it: (H, W, 3) sRGB pixels, or a sample with its annotation; raises
            `ArtifactNetError` where it cannot be used.
        generator: what made it; None where nobody knows.
        label: 0 real, 1 fake, None where nobody knows.
        location: what errors of ``load`` call it, if not by ``name``.
    """

    name: str
    load: Callable[[], Sample | UInt8Array]
    generator: str | None = None
    label: int | None = None
    location: str | None = None


def record_items(records: Sequence[Record], load: Callable[[int], Sample]) -> list[Item]:
    """The images of a data set.

    Args:
        records: one per image.
        load: decodes the image of a position in ``records``.
    """
    names = short_names([record.location for record in records])
    return [
        Item(name, partial(load, index), record.generator, record.label, record.location)
        for index, (name, record) in enumerate(zip(names, records, strict=True))
    ]


def short_names(locations: Sequence[str]) -> list[str]:
    """Locations without the folder that all of them share: a report may leave the machine."""
    folders = {os.path.dirname(location) for location in locations}
    if not folders or len({os.path.isabs(folder) for folder in folders}) > 1:
        return list(locations)
    shared = os.path.commonpath(list(folders))
    if not shared:
        return list(locations)
    return [Path(os.path.relpath(location, shared)).as_posix() for location in locations]


def file_items(inputs: Sequence[str | Path], skip: str | Path) -> list[Item | Failure]:
    """Images of files, folders (searched deeply), X-AIGD parquet shards and patterns.

    Nothing is decoded yet, and of shards only the columns without images are read. An image's
    generator is the folder it lies in, unless that is the folder of all; its label is unknown.

    Args:
        inputs: as a command line names them.
        skip: folder not to look into: the report's own.

    Returns:
        Every image once, in a fixed order, and inputs that stand for none.
    """
    found = collect.resolve(inputs, skip)
    items: list[Item | Failure] = list(found.failures)
    seen: set[str] = set()
    for root in found.roots:
        if root.lower().endswith(SUFFIX) and not os.path.isdir(root):
            each = _shard_items(root, found)
        else:
            each = _image_items(root, found)
        for key, item in each:
            if key not in seen:
                seen.add(key)
                items.append(item)
    return items


def _image_items(root: str, found: collect.Found) -> Iterator[tuple[str, Item | Failure]]:
    for source in collect.walk(replace(found, roots=(root,))):
        if isinstance(source, Failure):
            yield source.path, source
            continue
        key = os.path.abspath(source.name)
        generator = None if os.path.dirname(key) == found.base else source.generator
        name = collect.answer_name(source.name, found)
        yield key, Item(name, partial(_read_file, source), generator, None, source.name)


def _shard_items(shard: str, found: collect.Found) -> Iterator[tuple[str, Item | Failure]]:
    reader, place = ShardReader(), None
    try:
        for place, row in read_rows(Path(shard), ("generator",)):
            path = f"{shard}#{place.number}"
            name = collect.answer_name(path, found)
            load = partial(_read_row, reader, place, path)
            yield os.path.abspath(path), Item(name, load, row["generator"], None, path)
    except ArtifactNetError as error:
        yield shard, Failure(shard, str(error).removeprefix(f"{Path(shard)}: "))
        return
    if place is None:
        yield shard, Failure(shard, "the shard has no rows")


def _read_file(source: ImageInput) -> UInt8Array:
    return to_pixels(source.image, source.name)


def _read_row(reader: ShardReader, place: Place, name: str) -> UInt8Array:
    content, _ = reader.read(place)
    return to_pixels(content, name)


def spread(items: Sequence[Item], limit: int) -> list[Item]:
    """At most ``limit`` items, in their order, evenly spread over labels, generators and order.

    Every label and generator keeps its share, to within one image. (Every second of images that
    are real and fake in turn would be of one class.)

    Raises:
        ValueError: ``limit`` is below 1.
    """
    if limit < 1:
        raise ValueError(f"limit must be 1 or more, not {limit}")
    count = len(items)
    if count <= limit:
        return list(items)

    def group(index: int) -> tuple[str, str, int]:
        return str(items[index].label), str(items[index].generator), index

    order = sorted(range(count), key=group)
    kept = sorted(order[(2 * k + 1) * count // (2 * limit)] for k in range(limit))
    return [items[index] for index in kept]


MAP_THRESHOLD = 0.5  # of heatmaps, as in the paper's interpretation protocol (X-AIGD Sec. 4)
MAX_INSTANCES = 20  # listed per image
BITS = {c.label: c.bit for c in CATEGORIES} | {UNCATEGORIZED: UNCATEGORIZED_BIT}

# what people call the methods of `artifactnet.explanation.methods`
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


class Explains(Protocol):
    """What is needed of an `artifactnet.explanation.explainer.Explainer`.

    `artifactnet.explanation.explainer.Predicted` has it as well.
    """

    @property
    def methods(self) -> tuple[str, ...]:
        """Names of `artifactnet.explanation.methods.METHODS`."""
        ...

    @property
    def detector(self) -> Detector | PredictorLike:
        """Whose verdicts these are."""
        ...

    def batch(self, images: list[tuple[str, UInt8Array]]) -> list[Explained | Failure]:
        """One answer per (name, pixels), in order."""
        ...


@dataclass(slots=True)
class Content:
    """The images of a report.

    Attributes:
        entries: one JSON-ready dictionary per image, with its pictures as data URIs.
        facts: of the same images, what the summary needs.
        failures: images that could not be read or explained.
    """

    entries: list[dict[str, Any]] = field(default_factory=list)
    facts: list[Fact] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)


@dataclass(slots=True)
class _Read:
    """An image in memory."""

    item: Item
    pixels: UInt8Array
    sample: Sample | None


def gather(explainer: Explains, items: Iterable[Item], batch_size: int) -> Content:
    """Read, judge and explain images, a batch in memory at a time.

    Of a model with a segmentation head, masks and instances are added. An image that fails is
    listed and stops nothing.

    Args:
        explainer: model and methods.
        items: read lazily.
        batch_size: images in memory together.
    """
    content = Content()
    segmenter = segmenter_of(explainer.detector)
    waiting = iter(items)
    while few := list(islice(waiting, batch_size)):
        for item, answer in _answers(explainer, few):
            prediction = None
            if isinstance(answer, Explained) and segmenter is not None:
                answer, prediction = _segmented(segmenter, answer)
            if isinstance(answer, Failure):
                content.failures.append(answer)
                continue
            assert isinstance(item, _Read)
            fact = _fact(item, answer, prediction)
            content.facts.append(fact)
            number = len(content.entries)
            content.entries.append(_entry(number, item, answer, prediction, fact))
    if not any(entry["annotated"] for entry in content.entries):
        for entry in content.entries:  # a choice of layers that shows nothing anywhere
            entry["layers"].pop("annotation", None)
    return content


def segmenter_of(detector: Detector | PredictorLike) -> Predictor | None:
    """What predicts masks, or None where the model has no segmentation head."""
    if isinstance(detector, OwnDetector) and detector.model.has_segmentation:
        return Predictor(detector.model)
    return None


def _answers(
    explainer: Explains, items: list[Item]
) -> Iterator[tuple[_Read | None, Explained | Failure]]:
    """Each image with its answer, in order."""
    read = [_read(item) for item in items]
    usable = [(each.item.name, each.pixels) for each in read if isinstance(each, _Read)]
    answers = iter(explainer.batch(usable) if usable else [])
    for each in read:
        yield (None, each) if isinstance(each, Failure) else (each, next(answers))


def _read(item: Item) -> _Read | Failure:
    try:
        found = item.load()
    except ArtifactNetError as error:
        return Failure(item.name, str(error).removeprefix(f"{item.location or item.name}: "))
    if isinstance(found, Sample):
        return _Read(item, found.image, found)
    return _Read(item, found, None)


def _segmented(
    segmenter: Predictor, answer: Explained
) -> tuple[Explained | Failure, Prediction | None]:
    try:
        # one image at a time: its seven maps may take a hundred times its own memory
        return answer, segmenter.predict(answer.pixels, 1)
    except ArtifactNetError as error:
        return Failure(answer.name, str(error)), None


def _fact(read: _Read, answer: Explained, prediction: Prediction | None) -> Fact:
    mask = None if prediction is None else prediction.mask
    regions: dict[str, int] = {}
    for instance in () if prediction is None else prediction.instances:
        regions[instance.category] = regions.get(instance.category, 0) + 1
    annotation = _annotation(read.sample)
    fact = Fact(
        probability=answer.probability,
        is_fake=answer.is_fake,
        label=read.item.label,
        generator=read.item.generator,
        annotated=_categories(annotation),
        predicted=_categories(mask),
        regions=None if prediction is None else regions,
    )
    if annotation is not None and read.item.label == 1:
        _score(fact, answer, mask, annotation)
    return fact


def _annotation(sample: Sample | None) -> UInt8Array | None:
    """(H, W) bit field, all zero where somebody looked and found nothing; None where nobody did."""
    if sample is None or sample.record.annotation is Annotation.NONE:
        return None
    if sample.mask is None:
        return np.zeros(sample.image.shape[:2], np.uint8)
    return sample.mask


def _categories(mask: UInt8Array | None) -> tuple[str, ...]:
    if mask is None:
        return ()
    present = int(np.bitwise_or.reduce(mask, axis=None))
    return tuple(label for label, bit in BITS.items() if present & bit)


def _score(fact: Fact, answer: Explained, mask: UInt8Array | None, annotation: UInt8Array) -> None:
    """Fill in how the maps of an annotated fake compare with its annotation."""
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
        return  # nobody said which category the artifacts are of
    for category in CATEGORIES:
        planes = ((array & category.bit) != 0 for array in (mask, annotation))
        fact.category_pixels[category.label] = _counts(*planes)


def _counts(found: BoolArray, truth: BoolArray) -> Counts:
    """True positive, false positive and false negative pixels."""
    tp = int(np.count_nonzero(found & truth))
    return tp, int(np.count_nonzero(found)) - tp, int(np.count_nonzero(truth)) - tp


def _entry(
    number: int, read: _Read, answer: Explained, prediction: Prediction | None, fact: Fact
) -> dict[str, Any]:
    mask = None if prediction is None else prediction.mask
    heatmaps = {name: found.heatmap for name, found in answer.explanations.items()}
    pictures = encode(read.pixels, heatmaps, mask, _annotation(read.sample))
    height, width = read.pixels.shape[:2]
    marked = mask != 0 if mask is not None else next(iter(heatmaps.values())) > MAP_THRESHOLD
    known = fact.label is not None
    return {
        "id": number,
        "name": read.item.name,
        "generator": fact.generator,
        "label": fact.label,
        "probability": fact.probability,
        "is_fake": fact.is_fake,
        "correct": fact.is_fake == (fact.label == 1) if known else None,
        "confidence": max(fact.probability, 1 - fact.probability),
        "width": width,
        "height": height,
        "annotated": list(fact.annotated),
        "predicted": list(fact.predicted),
        "artifact_share": float(marked.mean()),
        "instances": _largest(() if prediction is None else prediction.instances),
        "scores": {
            name: {"iou": pixel_scores(*fact.pixels[name])["IoU"], **scores}
            for name, scores in fact.scores.items()
        },
        "warnings": [
            *answer.warnings,
            *(
                f"{LABELS.get(name, name)}: {warning}"
                for name, found in answer.explanations.items()
                for warning in found.warnings
            ),
        ],
        **_said(answer),
        "thumb": pictures.thumb,
        "layers": pictures.layers,
    }


def _said(answer: Explained) -> dict[str, Any]:
    """Score and explanation in words, of models that give such."""
    said: dict[str, Any] = {}
    if answer.score is not None:
        said["score"] = answer.score
    if answer.rationale is not None:
        said["explanation"] = asdict(answer.rationale)
    return said


def _largest(instances: Iterable[Instance]) -> list[dict[str, Any]]:
    ordered = sorted(instances, key=lambda instance: -instance.area)
    return [
        {
            "category": instance.category,
            "box": list(instance.box),
            "area": instance.area,
            "confidence": instance.confidence,
        }
        for instance in ordered[:MAX_INSTANCES]
    ]
