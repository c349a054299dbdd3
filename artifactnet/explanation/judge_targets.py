"""Which images of a data set explanations are judged on: its annotated fakes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from artifactnet.inference.inputs import Failure
from artifactnet.metrics.instances import instance_labels
from artifactnet.metrics.regions import BoolArray, LabelMap
from artifactnet.types import Annotation, ArtifactNetError, Sample, UInt8Array


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
