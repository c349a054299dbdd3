"""The figures of a report, over all of its images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np

from artifactnet.metrics import calibration
from artifactnet.metrics.confusion import pixel_scores, verdict_scores
from artifactnet.taxonomy import CATEGORIES, UNCATEGORIZED
from artifactnet.types import VERDICTS, Verdict, verdict_of

MASK = "mask"  # name of the predicted mask among the maps that are scored
UNKNOWN = "unknown"  # row of images without a generator, beside others
HISTOGRAM_BINS = 20

# label in the files -> name in tables
CATEGORY_NAMES = {category.label: category.short for category in CATEGORIES}
CATEGORY_NAMES[UNCATEGORIZED] = UNCATEGORIZED
Counts = tuple[int, int, int]  # pixels: true positive, false positive, false negative


@dataclass(frozen=True, slots=True)
class Fact:
    """Values of one image for the summary.

    Attributes:
        probability: of being fake, in [0, 1].
        is_fake: whether the probability reaches the threshold; scores count this.
        label: 0 real, 1 fake, None if unknown.
        generator: None if unknown.
        annotated, predicted: labels of the annotated categories, and of the predicted mask's.
        regions: number of predicted regions of each category; None without a mask.
        pixels: of each map (a method, or `MASK`) against the annotation, at the image's own size;
            empty unless the image is an annotated fake.
        category_pixels: the same of the predicted mask for each category; empty also if the
            annotation has no categories.
        scores: of each method, ``pointing`` and ``mass``; empty unless artifacts were annotated.
        uncertain: whether the verdict is neither fake nor real.
    """

    probability: float
    is_fake: bool
    label: int | None = None
    generator: str | None = None
    annotated: tuple[str, ...] = ()
    predicted: tuple[str, ...] = ()
    regions: dict[str, int] | None = None
    pixels: dict[str, Counts] = field(default_factory=dict)
    category_pixels: dict[str, Counts] = field(default_factory=dict)
    scores: dict[str, dict[str, float]] = field(default_factory=dict)
    uncertain: bool = False

    @property
    def verdict(self) -> Verdict:
        """As of `artifactnet.types.Prediction`."""
        return verdict_of(self.is_fake, self.uncertain)


def summarize(
    facts: Sequence[Fact], methods: Sequence[str], plausibility: bool = False
) -> dict[str, Any]:
    """Figures of all images together; ``methods`` are the names of the heatmaps.

    ``plausibility``: the model judges that, see `BasePredictor`; ``judges`` of the figures says it.

    Returns:
        Fractions are in [0, 1]; without data, a value is None or an empty list:

        - ``judges``: what its verdicts are about, ``authenticity`` or ``plausibility``;
        - ``images``, ``labelled``, ``called_fake``, ``called_uncertain``, ``called_real``: counts
          of images;
        - ``verdicts``: ``tp``, ``fp``, ``tn``, ``fn`` of the labelled images at the threshold;
        - ``answers``: of the ``fake`` and of the ``real`` images, how many have the verdict
          ``fake``, ``uncertain`` and ``real``;
        - ``authenticity``: see `artifactnet.metrics.confusion.verdict_scores`, and ``auc``, None
          unless both classes occur;
        - ``calibration``: ``ece`` and ``bins`` (``low``, ``high``, ``count``, ``confidence``,
          ``fake``), and ``roc``: ``points`` of (false positive rate, true positive rate, threshold)
          and ``auc``; both need both classes;
        - ``histogram``: ``edges`` and, for each of ``real``, ``fake`` and ``unknown`` that occurs,
          how many images' probabilities lie in each bin;
        - ``generators``: rows of ``name``, ``label`` (None where images differ or it is unknown),
          ``images``, ``called_fake``, ``called_uncertain``, ``accuracy`` (over labelled images, at
          the threshold) and ``mean_probability``;
        - ``categories``: rows of ``label``, ``name``, ``annotated_images``, ``predicted_images``,
          ``regions`` (predicted) and, where masks meet annotations, ``tp``, ``fp``, ``fn``,
          ``IoU``, ``PixP``, ``PixR``, ``PixF1``, else None;
        - ``maps``: rows of ``name``, ``evaluated_images``, the same counts and scores over all
          pixels of the annotated fakes, and ``pointing`` and ``mass`` as means over the
          ``artifact_images`` among them (None for the mask, or without such images).

    Raises:
        ArtifactNetError: a probability is not a number in [0, 1].
    """
    labelled = [fact for fact in facts if fact.label is not None]
    verdicts = Counter(fact.verdict for fact in facts)
    return {
        "judges": "plausibility" if plausibility else "authenticity",
        "images": len(facts),
        "labelled": len(labelled),
        **{f"called_{verdict}": verdicts[verdict] for verdict in VERDICTS},
        **_labelled_figures(labelled),
        "histogram": _histogram(facts),
        "generators": _generators(facts),
        "categories": _categories(facts),
        "maps": _maps(facts, methods),
    }


def _labelled_figures(facts: Sequence[Fact]) -> dict[str, Any]:
    """Figures that need labels."""
    names = ("verdicts", "answers", "authenticity", "calibration", "roc")
    figures: dict[str, Any] = dict.fromkeys(names)
    if not facts:
        return figures
    pairs = [(fact.label == 1, fact.is_fake) for fact in facts]
    # counted from the verdicts in the report, without applying a threshold again
    verdicts = {
        "tp": pairs.count((True, True)),
        "fp": pairs.count((False, True)),
        "tn": pairs.count((False, False)),
        "fn": pairs.count((True, False)),
    }
    labels = np.array([fact.label for fact in facts])
    probabilities = np.array([fact.probability for fact in facts])
    points = calibration.roc_curve(labels, probabilities)  # none where a class is missing
    # trapezoids: the probability that a fake scores above a real image, ties count half
    steps = ((b.fpr - a.fpr) * (a.tpr + b.tpr) / 2 for a, b in pairwise(points))
    area = sum(steps) if points else None
    figures["verdicts"] = verdicts
    answers = Counter((fact.label, fact.verdict) for fact in facts)
    figures["answers"] = {
        name: {verdict: answers[label, verdict] for verdict in VERDICTS}
        for name, label in (("fake", 1), ("real", 0))
    }
    figures["authenticity"] = {**verdict_scores(**verdicts), "auc": area}
    if points:
        figures["calibration"] = {
            "ece": calibration.expected_calibration_error(labels, probabilities),
            "bins": calibration.reliability(labels, probabilities),
        }
        figures["roc"] = {"points": [list(point) for point in points], "auc": area}
    return figures


def _histogram(facts: Sequence[Fact]) -> dict[str, Any]:
    edges = np.linspace(0, 1, HISTOGRAM_BINS + 1)
    histogram: dict[str, Any] = {"edges": edges.tolist()}
    for name, label in (("real", 0), ("fake", 1), ("unknown", None)):
        values = [fact.probability for fact in facts if fact.label == label]
        if values:
            histogram[name] = np.histogram(values, edges)[0].tolist()
    return histogram


def _generators(facts: Sequence[Fact]) -> list[dict[str, Any]]:
    """Rows in alphabetical order, real images first, those without a generator last."""
    groups: dict[str, list[Fact]] = {}
    for fact in facts:
        groups.setdefault(UNKNOWN if fact.generator is None else fact.generator, []).append(fact)
    if all(fact.generator is None for fact in facts):
        return []
    order = sorted(groups, key=lambda name: (name == UNKNOWN, name != "real", name))
    return [_generator(name, groups[name]) for name in order]


def _generator(name: str, facts: Sequence[Fact]) -> dict[str, Any]:
    labels = {fact.label for fact in facts}
    right = [fact.is_fake == (fact.label == 1) for fact in facts if fact.label is not None]
    return {
        "name": name,
        "label": labels.pop() if len(labels) == 1 else None,
        "images": len(facts),
        "called_fake": sum(fact.verdict == "fake" for fact in facts),
        "called_uncertain": sum(fact.uncertain for fact in facts),
        "accuracy": sum(right) / len(right) if right else None,
        "mean_probability": sum(fact.probability for fact in facts) / len(facts),
    }


def _categories(facts: Sequence[Fact]) -> list[dict[str, Any]]:
    """Rows of the categories that occur, annotated or predicted, in the taxonomy's order."""
    rows = []
    for label, name in CATEGORY_NAMES.items():
        annotated = sum(label in fact.annotated for fact in facts)
        predicted = sum(label in fact.predicted for fact in facts)
        if not annotated and not predicted:
            continue
        counts = [fact.category_pixels[label] for fact in facts if label in fact.category_pixels]
        regions = [fact.regions.get(label, 0) for fact in facts if fact.regions is not None]
        rows.append(
            {
                "label": label,
                "name": name,
                "annotated_images": annotated,
                "predicted_images": predicted,
                "regions": sum(regions) if regions else None,
                **_pixels(counts),
            }
        )
    return rows


def _maps(facts: Sequence[Fact], methods: Sequence[str]) -> list[dict[str, Any]]:
    rows = []
    for name in (*methods, MASK):
        counts = [fact.pixels[name] for fact in facts if name in fact.pixels]
        if not counts:
            continue
        scores = [fact.scores[name] for fact in facts if name in fact.scores]
        rows.append(
            {
                "name": name,
                "evaluated_images": len(counts),
                **_pixels(counts),
                "artifact_images": len(scores),
                "pointing": _mean(score["pointing"] for score in scores),
                "mass": _mean(score["mass"] for score in scores),
            }
        )
    return rows


def _pixels(counts: Sequence[Counts]) -> dict[str, Any]:
    """Counts over all images and the scores of these sums (micro average)."""
    if not counts:
        return dict.fromkeys(("tp", "fp", "fn", "IoU", "PixP", "PixR", "PixF1"))
    tp, fp, fn = (sum(column) for column in zip(*counts, strict=True))
    return {"tp": tp, "fp": fp, "fn": fn, **pixel_scores(tp, fp, fn)}


def _mean(values: Iterable[float]) -> float | None:
    each = list(values)
    return sum(each) / len(each) if each else None
