"""What every predictor shares: checked options, decoding ahead of the model, batches, streaming.

A subclass says how an image is prepared and how a batch is answered; see `Predictor` for
detectors and `artifactnet.vlm.heie.predictor.HeiePredictor` for HEIE on a language model.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, overload

from artifactnet.inference.inputs import Failure, ImageInput, ImageLike, OpenedImage, open_image
from artifactnet.inference.stream import prefetch
from artifactnet.types import ArtifactNetError, Prediction

MAX_OVERLAP = 0.9  # of a tile; more would look at every pixel over a hundred times
OVERLAP = 0.25  # of a tile, unless the caller says otherwise


@dataclass(frozen=True, slots=True)
class PredictOptions:
    """The options of one call; see `BasePredictor.predict_stream`."""

    batch_size: int
    workers: int = 0
    heatmaps: bool = True
    tiles: bool = False
    overlap: float = OVERLAP
    min_area: int = 1


class BasePredictor(ABC):
    """A model that answers about images; calling it is the same as `predict`.

    Attributes:
        default_batch_size: images that pass through the model together unless a call says more.
        has_segmentation: whether it finds artifacts by category, so that masks and tiles work.
        warnings: what must be known before trusting an answer; repeated in each of them.
    """

    default_batch_size: int = 8
    has_segmentation: bool = False
    warnings: tuple[str, ...] = ()

    @property
    @abstractmethod
    def threshold(self) -> float:
        """In [0, 1]: an image is called fake if its probability is not below."""

    @abstractmethod
    def _prepare(self, image: OpenedImage, options: PredictOptions) -> Any:
        """What `_answer_batch` takes of one image; runs in a worker thread.

        Raises:
            ArtifactNetError: the image cannot be used; it becomes a `Failure`.
        """

    @abstractmethod
    def _answer_batch(
        self, batch: list[Any], options: PredictOptions
    ) -> Iterable[Prediction | Failure]:
        """Answers about prepared images, in order; lazily where maps are large."""

    @overload
    def predict(
        self,
        images: list[Any] | tuple[Any, ...],
        batch_size: int | None = None,
        *,
        tiles: bool = False,
        overlap: float = OVERLAP,
        min_area: int = 1,
    ) -> list[Prediction]: ...

    @overload
    def predict(
        self,
        images: ImageLike,
        batch_size: int | None = None,
        *,
        tiles: bool = False,
        overlap: float = OVERLAP,
        min_area: int = 1,
    ) -> Prediction: ...

    def predict(
        self,
        images: ImageLike | list[Any] | tuple[Any, ...],
        batch_size: int | None = None,
        *,
        tiles: bool = False,
        overlap: float = OVERLAP,
        min_area: int = 1,
    ) -> Prediction | list[Prediction]:
        """Predict one image or a list of them.

        Args:
            images: a path, file content, PIL image, array or tensor as `inputs.to_pixels`
                takes them, or a list or tuple of such.
            batch_size, tiles, overlap, min_area: see `predict_stream`.

        Returns:
            One answer for one image; for a list, a list in its order. The maps of all of them
            are in memory; `predict_stream` holds one image's at a time.

        Raises:
            ArtifactNetError: an image cannot be used (the message names it), or an option
                (see `predict_stream`).
        """
        each: Sequence[Any] = images if isinstance(images, list | tuple) else [images]
        options = self._options(batch_size, 0, True, tiles, overlap, min_area)
        answers = [need_answer(answer) for answer in self._stream(each, options)]
        return answers if isinstance(images, list | tuple) else answers[0]

    __call__ = predict

    def predict_stream(
        self,
        paths: Iterable[str | Path | ImageInput | Failure],
        batch_size: int | None = None,
        workers: int = 0,
        heatmaps: bool = True,
        *,
        tiles: bool = False,
        overlap: float = OVERLAP,
        min_area: int = 1,
    ) -> Iterator[Prediction | Failure]:
        """Predict any number of files with little memory.

        Options are checked at the call, before the first answer is asked for.

        Args:
            paths: image files, or inputs; read lazily, so that an endless iterator is fine.
                A failure is passed on.
            batch_size: images, or tiles, that pass through the model together; None:
                ``default_batch_size``.
            workers: threads that decode ahead of the model; 0 decodes in between.
            heatmaps: False skips all maps (heatmap, sigma, attention, probabilities, mask,
                instances), which saves time and memory; probability and score stay.
            tiles: look for artifacts at the image's own resolution, in overlapping tiles as
                large as the model's input. Whether the image is fake is still decided from the
                whole of it. Needs a segmentation head.
            overlap: least share of a tile that its neighbour sees too, 0..`MAX_OVERLAP`.
            min_area: smaller regions, in pixels, are left out of the instances; the mask keeps
                them.

        Yields:
            For every path, in order, its answer or why there is none. Maps are made when their
            answer is asked for: those of 16 megapixels take half a gigabyte, so let go of an
            answer before the next.

        Raises:
            ArtifactNetError: ``batch_size`` or ``min_area`` below 1, ``workers`` below 0,
                ``overlap`` out of range; or tiles with a model that has no segmentation head.
        """
        options = self._options(batch_size, workers, heatmaps, tiles, overlap, min_area)
        return self._stream(paths, options)

    def need_segmentation(self, what: str) -> None:
        """Refuse ``what`` (a plural noun) unless the model finds artifacts by category.

        Raises:
            ArtifactNetError: it has no segmentation head.
        """
        if not self.has_segmentation:
            raise ArtifactNetError(
                f"{what} need a model with a segmentation head (trained with "
                "model.segmentation.head=upernet); this one has none, and exported files never do"
            )

    def _options(
        self,
        batch_size: int | None,
        workers: int = 0,
        heatmaps: bool = True,
        tiles: bool = False,
        overlap: float = OVERLAP,
        min_area: int = 1,
    ) -> PredictOptions:
        batch_size = self.default_batch_size if batch_size is None else batch_size
        for name, value, least in (
            ("batch_size", batch_size, 1),
            ("workers", workers, 0),
            ("min_area", min_area, 1),
        ):
            if value < least:
                raise ArtifactNetError(f"{name} must be {least} or more, not {value}")
        if not 0 <= overlap <= MAX_OVERLAP:
            raise ArtifactNetError(f"overlap must be in 0..{MAX_OVERLAP}, not {overlap}")
        if tiles:
            self.need_segmentation("tiles")
            if not heatmaps:
                raise ArtifactNetError("tiles make maps, but no map is asked for; leave them out")
        return PredictOptions(batch_size, workers, heatmaps, tiles, overlap, min_area)

    def _stream(
        self, images: Iterable[ImageLike | ImageInput | Failure], options: PredictOptions
    ) -> Iterator[Prediction | Failure]:
        # with tiles, each image is many to the model, and its original must be kept
        together = 1 if options.tiles else options.batch_size

        def prepare(numbered: tuple[int, ImageLike | ImageInput | Failure]) -> Any:
            opened = open_image(*numbered)
            if isinstance(opened, Failure):
                return opened
            try:
                return self._prepare(opened, options)
            except ArtifactNetError as error:
                return Failure(opened.name, str(error).removeprefix(f"{opened.name}: "))

        workers = options.workers
        prepared = prefetch(prepare, enumerate(images), workers, together + workers)
        while batch := list(islice(prepared, together)):
            ready = [item for item in batch if not isinstance(item, Failure)]
            answers = iter(self._answer_batch(ready, options) if ready else ())
            for item in batch:
                # one at a time: a map at original size may be a hundred times its image here
                yield item if isinstance(item, Failure) else next(answers)


def need_answer(answer: Prediction | Failure) -> Prediction:
    """The answer, where there must be one.

    Raises:
        ArtifactNetError: it is a failure; the message names the image.
    """
    if isinstance(answer, Failure):
        raise ArtifactNetError(f"{answer.path}: {answer.reason}")
    return answer
