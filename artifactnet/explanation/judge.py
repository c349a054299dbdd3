"""How good are the maps of a detector? Every method against the annotation of a data set.

The interpretation protocol of X-AIGD (Sec. 4): maps of the fake class, thresholded, are scored as
category-agnostic artifact detection at the images' original size. Added are scores without a
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
from artifactnet.evaluation.tables import markdown_table
from artifactnet.explanation.detector import Detector, as_detector
from artifactnet.explanation.explainer import Explainer
from artifactnet.explanation.faithfulness import faithfulness
from artifactnet.explanation.sanity import randomized, rank_correlation
from artifactnet.inference.base import BasePredictor
from artifactnet.inference.inputs import Failure
from artifactnet.metrics.confusion import instance_scores, pixel_scores
from artifactnet.metrics.instances import InstanceCounts, match_regions
from artifactnet.metrics.localization import mass_inside, pixel_average_precision, pointing_game
from artifactnet.metrics.pixels import PixelCounts, pixel_counts
from artifactnet.metrics.regions import BoolArray, LabelMap, instance_labels, region_labels
from artifactnet.models.artifact_net import ArtifactNet
from artifactnet.types import Annotation, ArtifactNetError, Explanation, Sample, UInt8Array

JSON = "explanations.json"
MARKDOWN = "explanations.md"
_NO_PIXELS = PixelCounts(0, 0, 0, 0, 0, 0)
_NO_INSTANCES = InstanceCounts(0, 0, 0, 0)
_PIXELS = ("IoU", "PixP", "PixR", "PixF1")
# means over images -> column of the table
_MEANS = {
    "pointing_game": "pointing",
    "mass_inside": "mass inside",
    "average_precision": "AP",
    "deletion": "deletion",
    "insertion": "insertion",
    "sanity_correlation": "sanity",
}
# counts of images -> column of the table
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


def judge(
    run_dir: str | Path,
    overrides: Sequence[str] = (),
    methods: Sequence[str] | None = None,
    *,
    threshold: float = 0.5,
    faithfulness_images: int = 0,
    sanity_images: int = 0,
    batch_size: int = 8,
    window: int = 224,
    stride: int = 224,
    out: str | Path | None = None,
) -> dict[str, Any]:
    """Score methods of explanation on the test images of a run, or of other data.

    Writes ``explanations.json`` and ``explanations.md``.

    Args:
        run_dir: folder of the run.
        overrides: ``dotted.key=value`` strings: ``data.*``, ``train.device``, ``model.threshold``.
        out: folder for the tables; None: ``explanations`` in the run's folder.

    All other arguments and the result are those of `score_explanations`; the ``notices`` include
    warnings about the data.

    Raises:
        ArtifactNetError: no such run, an unsupported override, data that cannot be used, or any
            error of `score_explanations`.
    """
    from artifactnet.evaluation.samples import open_samples

    data = open_samples(run_dir, overrides)
    result = score_explanations(
        data.model,
        data.each(),
        methods,
        threshold=threshold,
        faithfulness_images=faithfulness_images,
        sanity_images=sanity_images,
        seed=data.config.seed,
        batch_size=batch_size,
        window=window,
        stride=stride,
    )
    result["notices"] = list(dict.fromkeys((*result["notices"], *data.warnings)))
    write_scores(Path(out) if out is not None else data.folder / "explanations", result)
    return result


def score_explanations(
    model: Detector | ArtifactNet | BasePredictor,
    samples: Iterable[tuple[str | int, Sample | ArtifactNetError]],
    methods: Sequence[str] | None = None,
    *,
    threshold: float = 0.5,
    overlap: float = 0.5,
    faithfulness_images: int = 0,
    sanity_images: int = 0,
    seed: int = 0,
    batch_size: int = 8,
    window: int = 224,
    stride: int = 224,
) -> dict[str, Any]:
    """Score methods of explanation on annotated images.

    Annotated fakes are scored, with artifacts (MASK) or without (CLEAN); other images are counted
    and skipped, as in the benchmark. One batch is in memory at a time, with the maps of one method.

    Args:
        model, methods, batch_size, window, stride: see `Explainer`.
        samples: name of each image, and the image or why it cannot be used.
        threshold: a pixel is artifact if ``heatmap > threshold``, strictly.
        overlap: share of a region that must lie on an instance, exceeded strictly.
        faithfulness_images: deletion and insertion curves of the first N annotated fakes.
        sanity_images: randomized-weights check on the first N annotated fakes.
        seed: of the randomized weights and of the order of equal pixels.

    Returns:
        A dictionary ready for JSON: ``threshold``, ``overlap``, ``seed``, ``notices`` (the
        detector's warnings), ``images`` (`ImageCounts.result`) and ``methods`` (for each,
        `MethodScores.result`).

    Raises:
        ArtifactNetError: a method that does not support the model, a threshold outside [0, 1], or
            a sample whose mask does not fit its image.
    """
    for name, value in (("threshold", threshold), ("overlap", overlap)):
        if not 0 <= value <= 1:
            raise ArtifactNetError(f"judge: {name} must be from 0 to 1, not {value}")
    if (least := min(faithfulness_images, sanity_images)) < 0:
        raise ArtifactNetError(f"judge: a number of images cannot be {least}")
    detector = as_detector(model)
    shuffled = randomized(detector, seed) if sanity_images else None

    def explainer(of: Detector, methods: Sequence[str] | None) -> Explainer:
        return Explainer(of, methods, batch_size=batch_size, window=window, stride=stride)

    names = explainer(detector, methods).methods
    # a method at a time, so that each has its own time
    own = {name: explainer(detector, [name]) for name in names}
    random = {} if shuffled is None else {name: explainer(shuffled, [name]) for name in names}
    scores = {name: MethodScores(threshold, overlap) for name in names}
    counts, done = ImageCounts(), 0
    targets = counts.annotated_fakes(samples)
    while batch := list(islice(targets, batch_size)):
        curves, checks = max(0, faithfulness_images - done), max(0, sanity_images - done)
        for name, score in scores.items():
            start = time.perf_counter()
            answers = _explain(own[name], batch)
            score.seconds += time.perf_counter() - start
            for target, answer in zip(batch, answers, strict=True):
                score.add(target, answer)
            for target, answer in zip(batch[:curves], answers[:curves], strict=True):
                if isinstance(answer, Failure):
                    continue
                try:
                    areas = faithfulness(
                        detector, target.pixels, answer.heatmap, batch_size=batch_size, seed=seed
                    )
                except ArtifactNetError as error:
                    raise ArtifactNetError(
                        f"{target.name}: deletion and insertion: {error}"
                    ) from error
                score.add_means(deletion=areas.deletion_area, insertion=areas.insertion_area)
            if random and checks:
                others = _explain(random[name], batch[:checks])
                for answer, other in zip(answers[:checks], others, strict=True):
                    if isinstance(answer, Explanation):  # a failure is listed already
                        score.add_sanity(answer, other)
        done += len(batch)
    return {
        "threshold": threshold,
        "overlap": overlap,
        "seed": seed,
        "notices": list(detector.warnings),
        "images": counts.result(),
        "methods": {name: score.result() for name, score in scores.items()},
    }


@dataclass(frozen=True, slots=True)
class Target:
    """An annotated fake."""

    name: str
    pixels: UInt8Array  # (H, W, 3)
    union: BoolArray  # (H, W) where any artifact is
    instances: LabelMap  # of ``union``


def _explain(explainer: Explainer, targets: Sequence[Target]) -> list[Explanation | Failure]:
    """One map per image, in order."""
    (method,) = explainer.methods
    answers = explainer.explain_batch([(target.name, target.pixels) for target in targets])
    return [
        answer if isinstance(answer, Failure) else answer.explanations[method] for answer in answers
    ]


@dataclass(slots=True)
class ImageCounts:
    """Which images were seen, and which of them are scored."""

    seen: int = 0
    real: int = 0  # skipped
    unannotated: int = 0  # fakes whose artifacts are not annotated; skipped
    annotated: int = 0  # fakes that are scored
    shares: list[float] = field(default_factory=list)  # of artifact pixels; of those with artifacts
    unusable: list[Failure] = field(default_factory=list)

    def annotated_fakes(
        self, samples: Iterable[tuple[str | int, Sample | ArtifactNetError]]
    ) -> Iterator[Target]:
        """The images that are scored; all of ``samples`` are counted."""
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
                    self.shares.append(float(union.mean()))
                yield Target(str(name), sample.image, union, instance_labels(union))

    def result(self) -> dict[str, Any]:
        """The counts, and ``artifact_share``: the mean of ``shares``, or None."""
        return {
            "seen": self.seen,
            "real": self.real,
            "unannotated": self.unannotated,
            "annotated": self.annotated,
            "with_artifacts": len(self.shares),
            "unusable": _named(self.unusable),
            "artifact_share": _mean(self.shares),
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


@dataclass(slots=True)
class MethodScores:
    """The scores of one method, accumulated image by image; options as in `score_explanations`."""

    threshold: float
    overlap: float
    seconds: float = 0.0  # to make the maps
    _pixels: PixelCounts = _NO_PIXELS
    _instances: InstanceCounts = _NO_INSTANCES
    _artifact_images: int = 0
    _constant: int = 0
    _sanity_undefined: int = 0
    _values: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in _MEANS})
    _failures: list[Failure] = field(default_factory=list)

    def add(self, target: Target, answer: Explanation | Failure) -> None:
        """Score one map at the image's own size, or count a failure."""
        if isinstance(answer, Failure):
            self._failures.append(answer)
            return
        heatmap = answer.heatmap
        self._constant += bool(heatmap.min() == heatmap.max())
        plane = torch.from_numpy(np.array(heatmap, dtype=np.float32))[None]
        mask = torch.from_numpy(target.union.astype(np.uint8))[None]
        state = torch.tensor([int(Annotation.MASK)])  # CLEAN counts alike: its mask is empty
        pixels = pixel_counts(plane, mask, state, torch.ones(1), self.threshold)
        self._pixels = PixelCounts(*np.add(self._pixels, pixels).tolist())
        # Compared by torch, as the pixels are, so that both are of one mask.
        regions = region_labels((plane[0] > self.threshold).numpy())
        counts = match_regions(target.instances, regions, self.overlap).counts
        self._instances = InstanceCounts(*np.add(self._instances, counts).tolist())
        if target.union.any():
            self._artifact_images += 1
            self.add_means(
                pointing_game=pointing_game(heatmap, target.union),
                mass_inside=mass_inside(heatmap, target.union),
                average_precision=pixel_average_precision(heatmap, target.union),
            )

    def add_means(self, **values: float | None) -> None:
        """Add one image's values to means over images; None adds nothing."""
        for name, value in values.items():
            if value is not None:
                self._values[name].append(value)

    def add_sanity(self, answer: Explanation, other: Explanation | Failure) -> None:
        """Add the rank correlation of a map with that of the randomized detector."""
        correlation = None
        if isinstance(other, Explanation):
            correlation = rank_correlation(answer.raw, other.raw)
        self.add_means(sanity_correlation=correlation)
        self._sanity_undefined += correlation is None

    def result(self) -> dict[str, Any]:
        """All scores, ready for JSON; a mean over no images is None.

        Returns:
            - ``IoU``, ``PixP``, ``PixR``, ``PixF1`` and ``tp``, ``fp``, ``fn`` over all pixels of
              the ``evaluated_images``; ``zero_prediction_images`` of them have no pixel above the
              threshold,
            - ``P@t``, ``R@t``, ``F1@t`` and ``instances`` (``tp``, ``fp``, ``fn``): 8-connected
              regions above the threshold against instances, all categories as one,
            - ``pointing_game`` and ``mass_inside`` over ``artifact_images``, ``average_precision``
              over ``average_precision_images`` (without those that are artifact everywhere),
              ``deletion`` and ``insertion`` over ``faithfulness_images``, ``sanity_correlation``
              over ``sanity_images``; ``sanity_undefined`` more have a constant or no map,
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
            **{name: _mean(values) for name, values in self._values.items()},
            "evaluated_images": pixels.evaluated_images,
            "artifact_images": self._artifact_images,
            "average_precision_images": len(self._values["average_precision"]),
            "faithfulness_images": len(self._values["deletion"]),
            "sanity_images": len(self._values["sanity_correlation"]),
            "sanity_undefined": self._sanity_undefined,
            "zero_prediction_images": pixels.zero_prediction_images,
            "constant_images": self._constant,
            "failures": _named(self._failures),
            "seconds_per_image": self.seconds / tried if tried else None,
        }


def _named(failures: Sequence[Failure]) -> list[dict[str, str]]:
    return [{"name": failure.path, "reason": failure.reason} for failure in failures]


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


# Results for people: all of these take what `score_explanations` returned.


def write_scores(folder: Path, result: dict[str, Any]) -> None:
    """Write ``explanations.json`` and ``explanations.md``, each atomically."""
    files.write_json(folder / JSON, result)
    files.write_text(folder / MARKDOWN, scores_page(result))


def scores_table(result: dict[str, Any]) -> str:
    """Method by metric as a Markdown table, with the number of images scored and failed."""
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
    return "\n".join(markdown_table(header, rows))


def _counts_table(result: dict[str, Any]) -> list[str]:
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
    return markdown_table(header, rows)


def scores_page(result: dict[str, Any]) -> str:
    """The result as a Markdown page."""
    lines = ["# Explanations against annotated artifacts", ""]
    for notice in result["notices"]:
        lines += [f"> **Warning:** {notice}", ""]
    images, share = result["images"], result["images"]["artifact_share"]
    covered = "" if share is None else f", which cover {share:.1%} of their pixels on average"
    chance = "" if share is None else f" A constant map above 0 earns {share:.4f}."
    lines += [
        f"{images['annotated']} annotated fakes of {images['seen']} images, "
        f"{images['with_artifacts']} of them with artifacts{covered}. Left out: "
        f"{images['real']} real images, {images['unannotated']} fakes without annotation and "
        f"{len(images['unusable'])} images that cannot be used.",
        "",
        scores_table(result),
        "",
        f"- {', '.join(_PIXELS)}: all categories as one, counted over all pixels at the images' "
        f"original size; artifact where the map is above {result['threshold']:g}.",
        f"- {', '.join(_instance_names(result))}: connected regions above it against instances.",
        "- pointing (is the maximum on an artifact), mass inside, AP (average precision of the "
        f"pixels): no threshold, mean over the fakes with artifacts.{chance}",
        "- deletion (less is better), insertion (more is better): area under the probability of "
        "fake while pixels are removed, or brought back, in the order of the map.",
        "- sanity: rank correlation with the map of the same model with shuffled weights; near 1, "
        "the map does not show what was learned.",
        "- seconds per image: time to make the map on this machine.",
        "",
        "## Counts",
        "",
        *_counts_table(result),
        "",
    ]
    failures = [
        f"- {name}: {_line(failure['name'])}: {_line(failure['reason'])}"
        for name, row in result["methods"].items()
        for failure in row["failures"]
    ]
    failures += [f"- {_line(item['name'])}: {_line(item['reason'])}" for item in images["unusable"]]
    if failures:
        lines += ["## Not explained", "", *failures, ""]
    return "\n".join(lines)


def _instance_names(result: dict[str, Any]) -> list[str]:
    return [f"{name}@{result['overlap']:g}" for name in ("P", "R", "F1")]


def _figure(value: float | None, digits: int = 4) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _line(text: str) -> str:
    """A file name or message on one line."""
    return " ".join(text.split())
