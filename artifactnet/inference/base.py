"""What every predictor shares: checked options, decoding ahead of the model, batches, streaming.

Subclasses prepare an image and predict a batch: `Predictor` for detectors,
`artifactnet.vlm.heie.predictor.HeiePredictor` for HEIE on a language model.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, overload

from artifactnet.inference.inputs import Failure, ImageInput, ImageLike, OpenedImage, open_image
from artifactnet.inference.stability import VARIANTS, add_stability
from artifactnet.inference.stream import prefetch
from artifactnet.models.hub import Pushed
from artifactnet.types import ArtifactNetError, Prediction

MAX_OVERLAP = 0.9  # of a tile; more would look at every pixel over a hundred times
OVERLAP = 0.25  # of a tile, by default


@dataclass(frozen=True, slots=True)
class PredictOptions:
    """The options of one call; see `BasePredictor.predict_stream`."""

    batch_size: int
    workers: int = 0
    heatmaps: bool = True
    tiles: bool = False
    overlap: float = OVERLAP
    min_area: int = 1
    levels: int | None = None
    stability: bool = False


@dataclass(frozen=True, slots=True)
class PreparedImage:
    """An image as `BasePredictor.answer` takes it, with its re-encodings by name."""

    image: Any
    variants: Mapping[str, Any]


class BasePredictor(ABC):
    """A model that predicts images; calling it is the same as `predict`.

    Attributes:
        default_batch_size: images that pass through the model together by default.
        has_heatmap: False of a model that never predicts one.
        has_segmentation: whether it finds artifacts by category, so that masks and tiles work.
        judges_plausibility: its probability is 1 - plausibility and says nothing about who made an
            image; reports name it so.
        warnings: what users must know before they trust a prediction; repeated in each of them.
    """

    default_batch_size: int = 8
    has_heatmap: bool = True
    has_segmentation: bool = False
    judges_plausibility: bool = False
    warnings: tuple[str, ...] = ()

    @property
    @abstractmethod
    def threshold(self) -> float:
        """In [0, 1]: an image is called fake if its probability reaches it."""

    @property
    def limits(self) -> tuple[float, float] | None:
        """``(real_below, fake_from)``: between them an image is called uncertain; None: never."""
        return None

    @abstractmethod
    def _prepare(self, image: OpenedImage, options: PredictOptions) -> Any:
        """One image as `_answer_batch` takes it, made in a worker thread.

        Raises:
            ArtifactNetError: the image cannot be used; it becomes a `Failure`.
        """

    @abstractmethod
    def _answer_batch(
        self, batch: list[Any], options: PredictOptions
    ) -> Iterable[Prediction | Failure]:
        """Predictions of prepared images, in order; lazily where maps are large."""

    @overload
    def predict(
        self,
        images: list[Any] | tuple[Any, ...],
        batch_size: int | None = None,
        *,
        tiles: bool = False,
        overlap: float = OVERLAP,
        min_area: int = 1,
        levels: int | None = None,
        stability: bool = False,
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
        levels: int | None = None,
        stability: bool = False,
    ) -> Prediction: ...

    def predict(
        self,
        images: ImageLike | list[Any] | tuple[Any, ...],
        batch_size: int | None = None,
        *,
        tiles: bool = False,
        overlap: float = OVERLAP,
        min_area: int = 1,
        levels: int | None = None,
        stability: bool = False,
    ) -> Prediction | list[Prediction]:
        """Predict one image or a list; `predict_stream` holds the maps of one image at a time.

        Args:
            images: what `inputs.to_pixels` takes (path, file content, PIL image, array, tensor),
                or a list or tuple of them.
            batch_size, tiles, overlap, min_area, levels, stability: see `predict_stream`.

        Raises:
            ArtifactNetError: an image (the message names it) or an option cannot be used.
        """
        each: Sequence[Any] = images if isinstance(images, list | tuple) else [images]
        options = self.options(batch_size, 0, True, tiles, overlap, min_area, levels, stability)
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
        levels: int | None = None,
        stability: bool = False,
    ) -> Iterator[Prediction | Failure]:
        """Predict any number of files with little memory; options are checked at the call.

        Args:
            paths: image files or inputs, read lazily; a failure is passed on.
            batch_size: images, or tiles, per forward pass; None: ``default_batch_size``.
            workers: threads that decode ahead of the model; 0 decodes in between.
            heatmaps: False skips all maps (heatmap, sigma, attention, probabilities, mask,
                instances), which saves time and memory; probability and score stay.
            tiles: look for artifacts at the image's own resolution, in overlapping tiles of the
                model's input size. The whole image still decides whether it is fake. Needs a
                segmentation head.
            overlap: least share of a tile that its neighbour sees too, 0..`MAX_OVERLAP`.
            min_area: smaller regions, in pixels, are left out of the instances, not of the mask.
            levels: the value of white in images of more than 8 bits, where it is not evident; see
                `inputs.to_pixels`.
            stability: also predict a few re-encodings of each image, without maps (see
                `inference.stability`), and report in ``Prediction.stability`` how the probability
                changes; a warning that begins with ``unstable`` says where the verdict flips. It
                takes four more forward passes per image.

        Yields:
            For every path, in order, its prediction or why there is none. The maps of 16
            megapixels take half a gigabyte: drop a prediction before you ask for the next.

        Raises:
            ArtifactNetError: an option is out of range, or tiles without a segmentation head.
        """
        options = self.options(
            batch_size, workers, heatmaps, tiles, overlap, min_area, levels, stability
        )
        return self._stream(paths, options)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        runs: Sequence[str | Path] = (),
        licence: str | None = None,
        private: bool = False,
        revision: str | None = None,
        message: str | None = None,
        token: str | None = None,
    ) -> Pushed:
        """Upload a detector to the Hugging Face Hub, see `Predictor.push_to_hub`.

        Raises:
            ArtifactNetError: this is a model of another kind, which cannot be.
        """
        raise ArtifactNetError(
            f"{repo_id}: only detectors are pushed to the hub, and this is a "
            f"{type(self).__name__.removesuffix('Predictor')} on a language model; upload its "
            "folder with `hf upload`"
        )

    def need_segmentation(self, what: str) -> None:
        """Raise ArtifactNetError unless the model has a head for ``what`` (a plural noun)."""
        if not self.has_segmentation:
            raise ArtifactNetError(
                f"{what} need a model with a segmentation head (trained with "
                "model.segmentation.head=upernet); this one has none, and exported files never do"
            )

    def options(
        self,
        batch_size: int | None = None,
        workers: int = 0,
        heatmaps: bool = True,
        tiles: bool = False,
        overlap: float = OVERLAP,
        min_area: int = 1,
        levels: int | None = None,
        stability: bool = False,
    ) -> PredictOptions:
        """Options for `prepare` and `answer`, checked; see `predict_stream`.

        Raises:
            ArtifactNetError: an option is out of range, or tiles without a segmentation head.
        """
        batch_size = self.default_batch_size if batch_size is None else batch_size
        bounds = [("batch_size", batch_size, 1), ("workers", workers, 0), ("min_area", min_area, 1)]
        if levels is not None:
            bounds.append(("levels", levels, 1))
        for name, value, least in bounds:
            if value < least:
                raise ArtifactNetError(f"{name} must be {least} or more, not {value}")
        if not 0 <= overlap <= MAX_OVERLAP:
            raise ArtifactNetError(f"overlap must be in 0..{MAX_OVERLAP}, not {overlap}")
        if tiles:
            self.need_segmentation("tiles")
            if not heatmaps:
                raise ArtifactNetError("tiles make maps, but no map is asked for; leave them out")
        return PredictOptions(
            batch_size, workers, heatmaps, tiles, overlap, min_area, levels, stability
        )

    def prepare(
        self, number: int, image: ImageLike | ImageInput | Failure, options: PredictOptions
    ) -> PreparedImage | Failure:
        """Decode one image and bring it to the model's size; any number of threads may do so.

        Args:
            number: names an image without a name in errors.
            image: what `inputs.to_pixels` takes, or an input; a failure is passed on.
            options: of the call of `answer` that follows.
        """
        opened = open_image(number, image, options.levels)
        if isinstance(opened, Failure):
            return opened
        ready = self._prepare_or_fail(opened, options)
        if isinstance(ready, Failure):
            return ready
        bare = replace(options, heatmaps=False, tiles=False, workers=0)
        return PreparedImage(ready, self._variants(opened, bare) if options.stability else {})

    def answer(
        self, batch: Sequence[PreparedImage | Failure], options: PredictOptions
    ) -> Iterator[Prediction | Failure]:
        """Predict images that pass through the model together.

        Args:
            batch: of `prepare`; failures are passed on.
            options: as for `prepare`.

        Yields:
            For every image, in order, its prediction or why there is none. Maps are made one image
            at a time: one at original size may be a hundred times its image here.
        """
        bare = replace(options, heatmaps=False, tiles=False, workers=0)
        ready = [item for item in batch if not isinstance(item, Failure)]
        variants = iter(self._answer_variants(ready, bare))
        whole = [item.image for item in ready]
        answers = iter(self._answer_batch(whole, options) if whole else ())
        for item in batch:
            if isinstance(item, Failure):
                yield item
                continue
            answer, varied = next(answers), next(variants)
            if options.stability and isinstance(answer, Prediction):
                add_stability(answer, varied)
            yield answer
            del answer

    def _stream(
        self, images: Iterable[ImageLike | ImageInput | Failure], options: PredictOptions
    ) -> Iterator[Prediction | Failure]:
        # with tiles, each image is many to the model, and its original must be kept
        together = 1 if options.tiles else options.batch_size

        def prepare(
            numbered: tuple[int, ImageLike | ImageInput | Failure],
        ) -> PreparedImage | Failure:
            return self.prepare(*numbered, options)

        workers = options.workers
        prepared = prefetch(prepare, enumerate(images), workers, together + workers)
        while batch := list(islice(prepared, together)):
            yield from self.answer(batch, options)

    def _prepare_or_fail(self, image: OpenedImage, options: PredictOptions) -> Any:
        try:
            return self._prepare(image, options)
        except ArtifactNetError as error:
            return Failure(image.name, str(error).removeprefix(f"{image.name}: "))

    def _variants(self, image: OpenedImage, options: PredictOptions) -> dict[str, Any]:
        """Re-encodings of an image, prepared, by name."""
        found: dict[str, Any] = {}
        for name, encode in VARIANTS.items():
            try:
                pixels = encode(image.pixels)
            except ArtifactNetError as error:
                found[name] = Failure(image.name, str(error))
            else:
                found[name] = self._prepare_or_fail(replace(image, pixels=pixels), options)
        return found

    def _answer_variants(
        self, images: Sequence[PreparedImage], options: PredictOptions
    ) -> list[dict[str, Prediction | Failure]]:
        """Predictions of the re-encodings of each image, by name."""
        found: list[dict[str, Prediction | Failure]] = [dict(image.variants) for image in images]
        todo = [
            (one, name)
            for one in found
            for name, variant in one.items()
            if not isinstance(variant, Failure)
        ]
        for start in range(0, len(todo), options.batch_size):
            few = todo[start : start + options.batch_size]
            answers = self._answer_batch([one[name] for one, name in few], options)
            for (one, name), answer in zip(few, answers, strict=True):
                one[name] = answer
        return found


def need_answer(answer: Prediction | Failure) -> Prediction:
    """The prediction; ArtifactNetError that names the image if it is a failure."""
    if isinstance(answer, Failure):
        raise ArtifactNetError(f"{answer.path}: {answer.reason}")
    return answer
