"""A source whose samples carry a teacher's answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from artifactnet.data.geometry import resample
from artifactnet.data.source import Source
from artifactnet.data.teacher_cache import TeacherCache, image_key
from artifactnet.types import ArtifactNetError, Record, Sample, TeacherAnswer


class TaughtSource:
    """Another source, with the answers of a cache.

    Args:
        source: the images.
        cache: what the teacher said about them.

    Attributes:
        records: those of ``source``.
        warnings: those of ``source``.
    """

    def __init__(self, source: Source, cache: TeacherCache) -> None:
        self._source = source
        self._cache = cache
        self.records: Sequence[Record] = source.records
        self.warnings: tuple[str, ...] = tuple(getattr(source, "warnings", ()))

    def load(self, index: int) -> Sample:
        """Decode image ``index``; its ``teacher`` has maps of the image's size.

        Raises:
            ArtifactNetError: the image cannot be used, or the teacher was never asked about it.
        """
        sample = self._source.load(index)
        answer = self._cache.read(image_key(sample.image))
        if answer is None:
            raise ArtifactNetError(
                f"{sample.record.location}: no answer of the teacher to this image; it could not "
                "use it, or the image was changed since: start again to label it"
            )
        height, width = sample.image.shape[:2]
        return replace(sample, teacher=enlarged(answer, (height, width)))

    def encoded(self, index: int) -> bytes | None:
        """Content of the image's file, or None where the underlying source offers none."""
        read = getattr(self._source, "encoded", None)
        return None if read is None else read(index)


def enlarged(answer: TeacherAnswer, size: tuple[int, int]) -> TeacherAnswer:
    """The answer with maps of ``size`` (height, width), interpolated linearly."""
    heatmap, sigma = resample(answer.heatmap, size), resample(answer.sigma, size)
    return replace(answer, heatmap=np.clip(heatmap, 0.0, 1.0), sigma=sigma)
