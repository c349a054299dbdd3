"""How good are the maps of a detector? Every method against the annotation of a data set.

The interpretation protocol of X-AIGD (Sec. 4): maps of the fake class, cut at a threshold, scored
as category-agnostic artifact detection at the images' original size. Beside it scores without a
threshold, and two that need no annotation: faithfulness and dependence on the weights.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from artifactnet import files
from artifactnet.explanation.detector import Detector, as_detector
from artifactnet.explanation.explainer import Explainer, Options
from artifactnet.explanation.faithfulness import faithfulness, randomized, rank_correlation
from artifactnet.inference.inputs import Failure
from artifactnet.inference.predictor import Predictor
from artifactnet.metrics.instances import (
    InstanceCounts,
    instance_labels,
    instance_scores,
    match_regions,
    region_labels,
)
from artifactnet.metrics.localization import mass_inside, pixel_average_precision, pointing_game
from artifactnet.metrics.pixels import PixelCounts, pixel_counts
from artifactnet.metrics.regions import BoolArray, LabelMap
from artifactnet.metrics.scores import pixel_scores
from artifactnet.models.artifact_net import ArtifactNet
from artifactnet.types import (
    Annotation,
    ArtifactNetError,
    Explanation,
    Float32Array,
    Sample,
    UInt8Array,
)


@dataclass(frozen=True, slots=True)
class Target:
    """An annotated fake.

    Attributes:
        name: for people.
        pixels: (H, W, 3) image.
        union: (H, W) where any artifact is.
        instances: the artifact instances of ``union``.
    """

    name: str
    pixels: UInt8Array
    union: BoolArray
    instances: LabelMap


@dataclass(slots=True)
class Census:
    """Who was there.

    Attributes:
        seen: images.
        real: of them; left out.
        unannotated: fakes whose artifacts nobody looked for; left out.
        annotated: fakes that are scored.
        with_artifacts: of the annotated.
        shares: of each of these, the share of its pixels that is artifact.
        unusable: images that could not be read, with the reason.
    """

    seen: int = 0
    real: int = 0
    unannotated: int = 0
    annotated: int = 0
    with_artifacts: int = 0
    shares: list[float] = field(default_factory=list)
    unusable: list[Failure] = field(default_factory=list)

    def annotated_fakes(
        self, samples: Iterable[tuple[str | int, Sample | ArtifactNetError]]
    ) -> Iterator[Target]:
        """The images that are scored; all that pass are counted.

        Args:
            samples: name of each image, and the image or why it cannot be used.

        Raises:
            ArtifactNetError: a mask that does not go with its image or annotation state.
        """
        for name, sample in samples:
            self.seen += 1
            if isinstance(sample, ArtifactNetError):
                reason = str(sample).removeprefix(f"{name}: ")
                self.unusable.append(Failure(str(name), reason))
            elif sample.record.label == 0:
                self.real += 1
            elif sample.record.annotation is Annotation.NONE:
                self.unannotated += 1
            else:
                self.annotated += 1
                union = _union(str(name), sample)
                if union.any():
                    self.with_artifacts += 1
                    self.shares.append(float(union.mean()))
                yield Target(str(name), sample.image, union, instance_labels(union))

    def result(self) -> dict[str, Any]:
        """The counts by their names, and ``artifact_share``: the mean of ``shares``, or None."""
        return {
            "seen": self.seen,
            "real": self.real,
            "unannotated": self.unannotated,
            "annotated": self.annotated,
            "with_artifacts": self.with_artifacts,
            "unusable": [{"name": item.path, "reason": item.reason} for item in self.unusable],
            "artifact_share": sum(self.shares) / len(self.shares) if self.shares else None,
        }


def _union(name: str, sample: Sample) -> BoolArray:
    """(H, W) where an annotated image has any artifact."""
    size = sample.image.shape[:2]
    if (sample.record.annotation is Annotation.MASK) != (sample.mask is not None):
        has = "has no mask" if sample.mask is None else "has a mask"
        raise ArtifactNetError(
            f"{name}: annotation is {sample.record.annotation.name} but the sample {has}"
        )
    if sample.mask is None:
        return np.zeros(size, dtype=np.bool_)
    if sample.mask.shape != size:
        raise ArtifactNetError(
            f"{name}: the mask has shape {sample.mask.shape}, the image {size}; they must be equal"
        )
    union: BoolArray = sample.mask != 0
    return union


MEANS = (
    "pointing_game",
    "mass_inside",
    "average_precision",
    "deletion",
    "insertion",
    "sanity_correlation",
)
_NO_PIXELS = PixelCounts(0, 0, 0, 0, 0, 0)
_NO_INSTANCES = InstanceCounts(0, 0, 0, 0)


@dataclass(slots=True)
class MethodScores:
    """The scores of one method, summed up image by image.

    Attributes:
        threshold: a pixel is called artifact if ``heatmap > threshold``, strictly.
        overlap: share of a region that must lie on an instance, exceeded strictly.
        seconds: that making the maps took.
        undefined: images on which the sanity check says nothing.
    """

    threshold: float
    overlap: float
    seconds: float = 0.0
    undefined: int = 0
    _pixels: PixelCounts = _NO_PIXELS
    _instances: InstanceCounts = _NO_INSTANCES
    _artifact_images: int = 0
    _constant: int = 0
    _values: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in MEANS})
    _failures: list[Failure] = field(default_factory=list)

    def add(self, target: Target, answer: Explanation | Failure) -> None:
        """Score one map.

        Args:
            target: the image.
            answer: its map at the image's own size, or why there is none.
        """
        if isinstance(answer, Failure):
            self._failures.append(answer)
            return
        heatmap = answer.heatmap
        self._constant += bool(heatmap.min() == heatmap.max())
        self._count(target, heatmap)
        if target.union.any():
            self._artifact_images += 1
            self.note(
                pointing_game=pointing_game(heatmap, target.union),
                mass_inside=mass_inside(heatmap, target.union),
                average_precision=pixel_average_precision(heatmap, target.union),
            )

    def _count(self, target: Target, heatmap: Float32Array) -> None:
        """Pixels and regions of the map above the threshold."""
        plane = torch.from_numpy(np.array(heatmap, dtype=np.float32))[None]
        mask = torch.from_numpy(target.union.astype(np.uint8))[None]
        state = torch.tensor([int(Annotation.MASK)])  # CLEAN counts alike: its mask is empty
        pixels = pixel_counts(plane, mask, state, torch.ones(1), self.threshold)
        self._pixels = PixelCounts(*np.add(self._pixels, pixels).tolist())
        # Compared by torch, as the pixels are, so that both are of one mask.
        regions = region_labels((plane[0] > self.threshold).numpy())
        counts = match_regions(target.instances, regions, self.overlap).counts
        self._instances = InstanceCounts(*np.add(self._instances, counts).tolist())

    def note(self, **values: float | None) -> None:
        """Add one image's value to some of `MEANS`; None adds nothing."""
        for name, value in values.items():
            if value is not None:
                self._values[name].append(value)

    def result(self) -> dict[str, Any]:
        """All scores, ready for JSON; a mean over no images is None.

        Returns:
            - ``IoU``, ``PixP``, ``PixR``, ``PixF1`` and ``tp``, ``fp``, ``fn``, summed over all
              pixels of the ``evaluated_images``, of which ``zero_prediction_images`` have not one
              pixel above the threshold,
            - ``P@t``, ``R@t``, ``F1@t`` and ``instances`` (``tp``, ``fp``, ``fn``): 8-connected
              regions above the threshold against instances, all categories as one,
            - `MEANS`: the first three over ``artifact_images`` (the average precision without
              those that are artifact everywhere: ``average_precision_images``), deletion and
              insertion over ``faithfulness_images``, the sanity check over ``sanity_images``;
              ``sanity_undefined`` more have a constant map, or none after randomisation,
            - ``constant_images``, ``failures`` (``name``, ``reason``), ``seconds_per_image``.
        """
        pixels, instances = self._pixels, self._instances
        regions = {"tp": instances.tp, "fp": instances.fp, "fn": instances.fn}
        tried = pixels.evaluated_images + len(self._failures)
        return {
            **pixel_scores(pixels.tp, pixels.fp, pixels.fn),
            "tp": pixels.tp,
            "fp": pixels.fp,
            "fn": pixels.fn,
            **instance_scores(**regions, t=self.overlap),
            "instances": regions,
            **{name: _mean(self._values[name]) for name in MEANS},
            "evaluated_images": pixels.evaluated_images,
            "artifact_images": self._artifact_images,
            "average_precision_images": len(self._values["average_precision"]),
            "faithfulness_images": len(self._values["deletion"]),
            "sanity_images": len(self._values["sanity_correlation"]),
            "sanity_undefined": self.undefined,
            "zero_prediction_images": pixels.zero_prediction_images,
            "constant_images": self._constant,
            "failures": [{"name": each.path, "reason": each.reason} for each in self._failures],
            "seconds_per_image": self.seconds / tried if tried else None,
        }


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


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


Answer = Explanation | Failure
_DEFAULT = Options()


def judge(
    model: Detector | ArtifactNet | Predictor,
    samples: Iterable[tuple[str | int, Sample | ArtifactNetError]],
    methods: Sequence[str] | None = None,
    *,
    threshold: float = 0.5,
    overlap: float = 0.5,
    faithfulness_images: int = 0,
    sanity_images: int = 0,
    seed: int = 0,
    options: Options = _DEFAULT,
) -> dict[str, Any]:
    """Judge methods of explanation on a data set.

    Annotated fakes are scored, with artifacts (MASK) or without (CLEAN); others are counted and
    left out, as in the benchmark. One batch is in memory at a time, with the maps of one method.

    Args:
        model: as for `Explainer`.
        samples: name of each image, and the image or why it cannot be used.
        methods: as for `Explainer`.
        threshold: a pixel is called artifact if ``heatmap > threshold``, strictly.
        overlap: share of a region that must lie on an instance, exceeded strictly.
        faithfulness_images: deletion and insertion curves of the first so many annotated fakes.
        sanity_images: randomised-weights check on the first so many annotated fakes.
        seed: of the randomised weights and of the order of equal pixels.
        options: how maps are made.

    Returns:
        A dictionary ready for JSON: ``threshold``, ``overlap``, ``seed``, ``notices`` (the
        detector's warnings), ``images`` (see `Census`) and ``methods``: for each,
        `MethodScores.result`.

    Raises:
        ArtifactNetError: a method that cannot serve the model, a threshold outside [0, 1], or a
            sample whose mask does not belong to its image.
    """
    _check(threshold, overlap, faithfulness_images, sanity_images)
    detector = as_detector(model)
    shuffled = randomized(detector, seed) if sanity_images else None
    trials: dict[str, _Trial] = {}
    for name in Explainer(detector, methods, options).methods:
        other = Explainer(shuffled, [name], options) if shuffled is not None else None
        scores = MethodScores(threshold, overlap)
        own = Explainer(detector, [name], options)
        trials[name] = _Trial(own, other, scores, options.batch_size, seed)
    census, done = Census(), 0
    targets = census.annotated_fakes(samples)
    while batch := list(islice(targets, options.batch_size)):
        for trial in trials.values():
            trial.run(batch, max(0, faithfulness_images - done), max(0, sanity_images - done))
        done += len(batch)
    return {
        "threshold": threshold,
        "overlap": overlap,
        "seed": seed,
        "notices": list(detector.warnings),
        "images": census.result(),
        "methods": {name: trial.scores.result() for name, trial in trials.items()},
    }


@dataclass(frozen=True, slots=True)
class _Trial:
    """One method at work.

    Attributes:
        explainer: of this method alone, so that its time can be told from the others'.
        other: the same of the randomised detector, where that is asked for.
        scores: grows batch by batch.
        batch_size: pictures that pass through the model together.
        seed: of the order of equal pixels.
    """

    explainer: Explainer
    other: Explainer | None
    scores: MethodScores
    batch_size: int
    seed: int

    def run(self, targets: Sequence[Target], curves: int, checks: int) -> None:
        """Explain and score a batch; the first few also by faithfulness and sanity."""
        start = time.perf_counter()
        answers = explain_each(self.explainer, targets)
        self.scores.seconds += time.perf_counter() - start
        for target, answer in zip(targets, answers, strict=True):
            self.scores.add(target, answer)
        for target, answer in zip(targets[:curves], answers[:curves], strict=True):
            if isinstance(answer, Explanation):
                self._follow(target, answer)
        if self.other is not None and checks:
            self._compare(answers[:checks], explain_each(self.other, targets[:checks]))

    def _follow(self, target: Target, answer: Explanation) -> None:
        """Add deletion and insertion of a map."""
        detector = self.explainer.detector
        try:
            curves = faithfulness(
                detector,
                target.pixels,
                answer.heatmap,
                batch_size=self.batch_size,
                seed=self.seed,
            )
        except ArtifactNetError as error:
            raise ArtifactNetError(f"{target.name}: deletion and insertion: {error}") from error
        self.scores.note(deletion=curves.deletion_area, insertion=curves.insertion_area)

    def _compare(self, answers: Sequence[Answer], others: Sequence[Answer]) -> None:
        """Add the correlation of maps with those of the randomised detector."""
        for mine, theirs in zip(answers, others, strict=True):
            if isinstance(mine, Failure):
                continue  # it is listed already
            correlation = None
            if isinstance(theirs, Explanation):
                correlation = rank_correlation(mine.raw, theirs.raw)
            self.scores.note(sanity_correlation=correlation)
            self.scores.undefined += correlation is None


def explain_each(explainer: Explainer, targets: Sequence[Target]) -> list[Answer]:
    """One map per image.

    Args:
        explainer: of one method.
        targets: a batch.

    Returns:
        In order; a `Failure` for an image that cannot be explained.
    """
    method = explainer.methods[0]
    answers = explainer.batch([(target.name, target.pixels) for target in targets])
    return [
        answer if isinstance(answer, Failure) else answer.explanations[method] for answer in answers
    ]


def _check(threshold: float, overlap: float, *numbers: int) -> None:
    for name, value in (("threshold", threshold), ("overlap", overlap)):
        if not 0 <= value <= 1:
            raise ArtifactNetError(f"judging: {name} must be from 0 to 1, not {value}")
    if min(numbers) < 0:
        raise ArtifactNetError(f"judging: a number of images cannot be {min(numbers)}")
