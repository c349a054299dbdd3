"""The shapes that cross package borders. Everything else stays inside its package."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields, replace
from enum import IntEnum
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

UInt8Array = npt.NDArray[np.uint8]
Float32Array = npt.NDArray[np.float32]


UNSEEN_SIGMA = 100.0  # of a teacher's heatmap where the teacher never looked


class ArtifactNetError(Exception):
    """A user error: the command line prints its message without a traceback."""


class Annotation(IntEnum):
    """What is known about where an image's artifacts are.

    Most fakes of X-AIGD were never annotated. Treating them as clean would train a detector to
    look away from artifacts, so the three states are kept apart everywhere.
    """

    NONE = 0  # not inspected: any pixel may be an artifact
    CLEAN = 1  # inspected, no artifact; every real photograph is in this state
    MASK = 2  # `mask` marks the artifacts


@dataclass(frozen=True, slots=True)
class Record:
    """What a source knows about an image without decoding it (for counting, splitting, checks).

    Attributes:
        uid: shared by a photograph and every fake made from it; splits are disjoint in it.
        label: 0 real, 1 fake.
        generator: name of the generator; ``"real"`` for photographs.
        annotation: state of the artifact annotation.
        location: where the image lives, for people: a path, or ``shard.parquet#row``.
        categories: bit field of the categories annotated in the image (0 if unknown).
        path: the image file, if it is a file of its own.
        where: ``FILE:LINE`` of its annotation, for error messages; empty if it has none.
    """

    uid: str
    label: int
    generator: str
    annotation: Annotation
    location: str
    categories: int = 0
    path: str | None = None
    where: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Region:
    """A flawed place in an image, in words.

    Attributes:
        bbox: (x1, y1, x2, y2) in pixels of the image as shown (EXIF applied), half-open.
        caption: what is wrong there.
    """

    bbox: tuple[float, float, float, float]
    caption: str


@dataclass(slots=True)
class TeacherAnswer:
    """A teacher's pseudo-labels of one image."""

    heatmap: Float32Array  # (H, W) in [0, 1]
    sigma: Float32Array  # (H, W) > 0: uncertainty of the heatmap; 1 if the teacher has none
    score: float = math.nan  # plausibility in [0, 1]; NaN if the teacher has none
    logit: float = math.nan  # of the fake class; NaN likewise
    feature: Float32Array | None = None  # (C,) pooled features; None likewise


@dataclass(slots=True)
class Sample:
    """One decoded image with everything known about it."""

    record: Record
    image: UInt8Array  # (H, W, 3) sRGB, EXIF rotation applied
    mask: UInt8Array | None = None  # (H, W) bit field, see taxonomy; set iff annotation is MASK
    heatmap: Float32Array | None = None  # (H, W) in [0, 1], soft annotation where one exists
    score: float | None = None  # plausibility in [0, 1]: 1 where nothing looks wrong
    teacher: TeacherAnswer | None = None  # at the image's size; set while a student is trained
    text: str | None = None  # explanation in Expl-AIGI-Eval's form, if there is one
    regions: tuple[Region, ...] | None = None  # annotated boxes with captions; None: not annotated
    tags: tuple[str, ...] | None = None  # of `taxonomy.TAGS`, about the whole image; None likewise


@dataclass(slots=True)
class TeacherBatch:
    """Collated answers of a teacher, at model size."""

    heatmap: torch.Tensor  # (B, H, W) float32 in [0, 1]
    sigma: torch.Tensor  # (B, H, W) float32 > 0
    score: torch.Tensor  # (B,) float32 in [0, 1], or NaN
    logit: torch.Tensor  # (B,) float32, or NaN
    feature: torch.Tensor | None = None  # (B, C) float32; None of a teacher without


@dataclass(slots=True)
class Batch:
    """A collated batch at model size."""

    image: torch.Tensor  # (B, 3, H, W) float32, normalised with the model's mean and std
    label: torch.Tensor  # (B,) float32, 0 real, 1 fake
    annotation: torch.Tensor  # (B,) int64, values of Annotation
    mask: torch.Tensor  # (B, H, W) uint8 bit field; all zero unless annotation is MASK
    heatmap: torch.Tensor  # (B, H, W) float32 in [0, 1]; zeros where the sample has none
    score: torch.Tensor  # (B,) float32 plausibility in [0, 1]; NaN if not annotated
    record: list[Record]
    teacher: TeacherBatch | None = None

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Batch:
        """Copy of the batch with its tensors on ``device``."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Batch:
        """Batch with pinned tensors (called by DataLoader)."""
        return self._each(torch.Tensor.pin_memory)

    def _each(self, change: Callable[[torch.Tensor], torch.Tensor]) -> Batch:
        def changed(part: Any) -> dict[str, Any]:
            values = {field.name: getattr(part, field.name) for field in fields(part)}
            return {k: change(v) for k, v in values.items() if isinstance(v, torch.Tensor)}

        teacher = self.teacher
        if teacher is not None:
            teacher = replace(teacher, **changed(teacher))
        return replace(self, teacher=teacher, **changed(self))


@dataclass(slots=True)
class HeatmapLevel:
    """One predicted heatmap with its uncertainty: of an image as a whole, or of its tiles."""

    logit: torch.Tensor  # (B, h, w); the heatmap is its sigmoid
    log_sigma: torch.Tensor  # (B, h, w) logarithm of the Laplace deviation


@dataclass(slots=True)
class ModelOutput:
    """What a model returns for a batch."""

    logit: torch.Tensor  # (B,) raw logit of the fake class
    attention: torch.Tensor | None = None  # (B, h, w) raw rollout weight of each patch, sums <= 1
    heatmap: torch.Tensor | None = None  # (B, h, w) in [0, 1]: `attention` after normalisation
    # (B, K, h, w) raw logits of the segmentation head at its own stride: K = 8 (softmax over
    # background and the seven categories) or 7 (one sigmoid per category)
    segmentation: torch.Tensor | None = None
    auxiliary: torch.Tensor | None = None  # the same of the auxiliary head; in training only
    sigma: torch.Tensor | None = None  # (B, h, w) > 0: deviation of a heatmap head's `heatmap`
    score: torch.Tensor | None = None  # (B,) plausibility in [0, 1], 1: nothing looks wrong
    feature: torch.Tensor | None = None  # (B, C) pooled features, which the verdict is read from
    # what `heatmap` was made of: one level, or (global, local) of the hierarchical mapper
    levels: tuple[HeatmapLevel, ...] = ()


@dataclass(frozen=True, slots=True)
class Instance:
    """One connected artifact region of a prediction, in pixels of the original image.

    Attributes:
        category: X-AIGD label, or ``uncategorized`` if the training masks had none.
        box: (x_min, y_min, x_max, y_max), half-open.
        area: number of pixels.
        confidence: mean probability of the category over these pixels, in [0, 1].
        contours: closed outlines, each (N, 2) int32 of (x, y); the outer one first, then holes.
        caption: what is wrong there, from a model that writes; None from all others.
    """

    category: str
    box: tuple[int, int, int, int]
    area: int
    confidence: float
    contours: tuple[npt.NDArray[np.int32], ...]
    caption: str | None = None


@dataclass(frozen=True, slots=True)
class Rationale:
    """What a language model wrote about an image: HEIE's chain of thought (Sec. 3.3.2).

    Attributes:
        description: what the image shows.
        regions: where it looks wrong.
        issues: what is wrong there, and why.
        text: all of it as it was written, with the marks ``[MAP]`` and ``[SCORE]``.
    """

    description: str
    regions: str
    issues: str
    text: str


@dataclass(frozen=True, slots=True)
class Stability:
    """How the probability of an image changes when the image is saved or resized again.

    Attributes:
        probabilities: of being fake, in [0, 1], by re-encoding; ``as is`` is the image itself.
        unstable: whether the verdict is not the same for all of them.
    """

    probabilities: dict[str, float]
    unstable: bool

    @property
    def lowest(self) -> float:
        """Smallest probability, in [0, 1]."""
        return min(self.probabilities.values())

    @property
    def highest(self) -> float:
        """Largest probability, in [0, 1]."""
        return max(self.probabilities.values())

    @property
    def spread(self) -> float:
        """``highest - lowest``, in [0, 1]."""
        return self.highest - self.lowest

    def to_json(self) -> dict[str, Any]:
        """All of it, ready for ``json.dumps``."""
        return {
            "probabilities": self.probabilities,
            "lowest": self.lowest,
            "highest": self.highest,
            "spread": self.spread,
            "unstable": self.unstable,
        }


Verdict = Literal["fake", "uncertain", "real"]
VERDICTS: tuple[Verdict, ...] = ("fake", "uncertain", "real")


def is_uncertain(probability: float, limits: tuple[float, float] | None) -> bool:
    """Whether a probability lies between a model's limits.

    Args:
        probability: of being fake, in [0, 1].
        limits: ``(real_below, fake_from)``; a probability of ``real_below`` itself is uncertain,
            one of ``fake_from`` is not. None: nothing is uncertain.
    """
    return limits is not None and limits[0] <= probability < limits[1]


def verdict_of(is_fake: bool, uncertain: bool) -> Verdict:
    """The verdict in one word."""
    if uncertain:
        return "uncertain"
    return "fake" if is_fake else "real"


@dataclass(slots=True)
class Prediction:
    """The prediction for one image.

    Attributes:
        probability: probability that the image is fake, in [0, 1].
        is_fake: ``probability >= threshold`` of the model.
        heatmap: (H, W) float32 in [0, 1] at the original size, or None for models without one:
            the probability of any artifact where the model has a segmentation head, else what
            its heatmap head predicts, else its attention or activation map.
        sigma: (H, W) float32 > 0: a heatmap head's uncertainty of its heatmap; None without such a
            head.
        score: plausibility in [0, 1] (1: nothing looks wrong), or None likewise.
        attention: (h, w) float32 raw attention on the patch grid, or None.
        probabilities: (7, H, W) float32 in [0, 1] of each category, in the order of the
            taxonomy, at the original size; None without a segmentation head.
        mask: (H, W) uint8 bit field at the original size (see `artifactnet.taxonomy`); None
            without a segmentation head.
        instances: connected regions of ``mask``, category by category, uncategorised ones last,
            the largest first; those below a least area may be left out.
        path: the file the image came from, if it came from one.
        warnings: caveats of the prediction (untrained weights, ...).
        explanation: text of a model with a language model; None from all others.
        stability: predictions of re-encodings of the image, if they were asked for.
        uncertain: whether the probability lies between the model's two limits, see
            `is_uncertain`; never, if it has none.
        regions: boxes and captions of a model that writes them (FakeXplainer), exact;
            ``instances`` has them in whole pixels. None from all others.
        tags: of `taxonomy.TAGS`, about the whole image, from such a model; None likewise.
    """

    probability: float
    is_fake: bool
    heatmap: Float32Array | None = None
    sigma: Float32Array | None = None
    score: float | None = None
    attention: Float32Array | None = None
    probabilities: Float32Array | None = None
    mask: UInt8Array | None = None
    instances: tuple[Instance, ...] = ()
    path: str | None = None
    warnings: tuple[str, ...] = ()
    explanation: Rationale | None = None
    stability: Stability | None = None
    uncertain: bool = False
    regions: tuple[Region, ...] | None = None
    tags: tuple[str, ...] | None = None

    @property
    def verdict(self) -> Verdict:
        """``fake``, ``real``, or ``uncertain`` between the model's two limits.

        A model that was not calibrated has no limits: its verdict is ``is_fake`` in a word.
        """
        return verdict_of(self.is_fake, self.uncertain)

    def to_json(self) -> dict[str, Any]:
        """The prediction without its arrays, ready for ``json.dumps``."""
        return {
            "path": self.path,
            "probability": self.probability,
            "is_fake": self.is_fake,
            "verdict": self.verdict,
            "score": self.score,
            "instances": [
                {
                    "category": instance.category,
                    "box": list(instance.box),
                    "area": instance.area,
                    "confidence": instance.confidence,
                }
                for instance in self.instances
            ],
            "warnings": list(self.warnings),
            "explanation": None if self.explanation is None else asdict(self.explanation),
            "stability": None if self.stability is None else self.stability.to_json(),
            "regions": None
            if self.regions is None
            else [{"bbox": list(each.bbox), "caption": each.caption} for each in self.regions],
            "tags": None if self.tags is None else list(self.tags),
        }


@dataclass(frozen=True, slots=True)
class Explanation:
    """Where a detector looked in one image, according to one method.

    Attributes:
        method: name as in `artifactnet.explanation.methods.METHODS`.
        raw: (h, w) float32 on the method's own grid, as the method computed it.
        heatmap: (H, W) float32 in [0, 1] at the image's own size; ``scale`` names
            how ``raw`` got there. Pixels that the model did not see are 0.
        scale: ``minmax``: stretched to 0..1 per image, so that heights of two images cannot be
            compared; ``probability``: of being fake, or of being an artifact; ``model``: the
            normalisation saved with the model.
        warnings: caveats, e.g. that the map is constant.
    """

    method: str
    raw: Float32Array
    heatmap: Float32Array
    scale: str
    warnings: tuple[str, ...] = ()
