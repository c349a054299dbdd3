"""One image in, one answer out: a saved model with its own preprocessing and threshold."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, overload, runtime_checkable

import torch

from artifactnet.data.transforms import Geometry, Preprocess
from artifactnet.inference import instances
from artifactnet.inference.backends.base import SUFFIXES, AnyModel, ExportedModel
from artifactnet.inference.forward import forward
from artifactnet.inference.inputs import Failure, ImageInput, ImageLike, need_counts, open_image
from artifactnet.inference.instances import find_instances
from artifactnet.inference.stream import prefetch
from artifactnet.inference.tiles import MAX_OVERLAP, tiled_probabilities
from artifactnet.models import checkpoint, packaged
from artifactnet.models.heads.tiling import adapted_size
from artifactnet.types import (
    ArtifactNetError,
    Float32Array,
    ModelOutput,
    Prediction,
    UInt8Array,
)


@runtime_checkable
class PredictorLike(Protocol):
    """A `artifactnet.inference.predictor.Predictor`, or what answers as it does.

    Folders and reports need no more than this: neither layers nor gradients.
    """

    @property
    def warnings(self) -> tuple[str, ...]:
        """What must be known before trusting an answer; repeated in each of them."""
        ...

    @property
    def threshold(self) -> float:
        """In [0, 1]: an image is called fake if its probability is not below."""
        ...

    def predict_stream(
        self,
        paths: Iterable[str | Path | ImageInput | Failure],
        batch_size: int = 8,
        workers: int = 0,
        heatmaps: bool = True,
        *,
        tiles: bool = False,
        overlap: float = 0.25,
        min_area: int = 1,
    ) -> Iterator[Prediction | Failure]:
        """One answer per image, in order; see `Predictor.predict_stream` for every argument.

        Raises:
            ArtifactNetError: an option is out of range, or asks for what the model cannot give.
        """
        ...


MODEL_FILE = "model.safetensors"
HEIE_FILE = "heie.json"  # beside the weights of a HEIE on a language model, which mllm opens


@dataclass(frozen=True, slots=True)
class _Options:
    """How a call wants its answers; see `Predictor.predict_stream`."""

    batch_size: int
    heatmaps: bool
    tiles: bool
    overlap: float
    min_area: int


@dataclass(slots=True)
class _Ready:
    """A decoded image at model size; the original pixels are let go unless tiles need them."""

    name: str
    path: str | None
    image: torch.Tensor  # (3, H, W) float32, normalised
    geometry: Geometry
    pixels: UInt8Array | None  # (H0, W0, 3)


class Predictor:
    """Answers about images, with the preprocessing and thresholds saved in the model.

    Args:
        model: a trained model, on the device where it shall run (its train/eval state is left
            as it was), or an exported file (`artifactnet.inference.backends.base.load_exported`).

    Attributes:
        model: as given.
        warnings: what must be known before trusting an answer; repeated in each of them.
    """

    def __init__(self, model: AnyModel) -> None:
        self.model = model
        self.warnings: tuple[str, ...] = tuple(model.notices)
        self._preprocess = preprocess_of(model)

    @property
    def threshold(self) -> float:
        """An image is called fake if its probability is not below."""
        return self.model.config.threshold

    @overload
    def predict(
        self,
        images: list[Any] | tuple[Any, ...],
        batch_size: int = 8,
        *,
        tiles: bool = False,
        overlap: float = 0.25,
        min_area: int = 1,
    ) -> list[Prediction]: ...

    @overload
    def predict(
        self,
        images: ImageLike,
        batch_size: int = 8,
        *,
        tiles: bool = False,
        overlap: float = 0.25,
        min_area: int = 1,
    ) -> Prediction: ...

    def predict(
        self,
        images: ImageLike | list[Any] | tuple[Any, ...],
        batch_size: int = 8,
        *,
        tiles: bool = False,
        overlap: float = 0.25,
        min_area: int = 1,
    ) -> Prediction | list[Prediction]:
        """Judge one image or a list of them.

        Args:
            images: a path, file content, PIL image, array or tensor as `inputs.to_pixels`
                takes them, or a list or tuple of such.
            batch_size: images, or tiles, that pass through the model together.
            tiles: see `predict_stream`.
            overlap: see `predict_stream`.
            min_area: see `predict_stream`.

        Returns:
            One answer for one image; for a list, a list in its order. The maps of all of them
            are in memory; `predict_stream` holds one image's at a time.

        Raises:
            ArtifactNetError: an image cannot be used (the message names it), or an option
                (see `predict_stream`).
        """
        each: list[Any] = list(images) if isinstance(images, list | tuple) else [images]
        options = _Options(batch_size, True, tiles, overlap, min_area)
        answers: list[Prediction] = []
        for answer in self._run(each, 0, options):
            if isinstance(answer, Failure):
                raise ArtifactNetError(f"{answer.path}: {answer.reason}")
            answers.append(answer)
        return answers if isinstance(images, list | tuple) else answers[0]

    def predict_stream(
        self,
        paths: Iterable[str | Path | ImageInput | Failure],
        batch_size: int = 8,
        workers: int = 0,
        heatmaps: bool = True,
        *,
        tiles: bool = False,
        overlap: float = 0.25,
        min_area: int = 1,
    ) -> Iterator[Prediction | Failure]:
        """Judge any number of files with little memory.

        Args:
            paths: image files, or sources; read lazily, so that an endless iterator is fine.
                A failure is passed on.
            batch_size: images, or tiles, that pass through the model together.
            workers: threads that decode ahead of the model; 0 decodes in between.
            heatmaps: False skips all maps (heatmap, sigma, attention, probabilities, mask,
                instances), which spares time and memory; probability and score stay.
            tiles: look for artifacts at the image's own resolution, in overlapping tiles as
                large as the model's frame. Whether the image is fake is still judged from the
                whole of it. Needs a segmentation head.
            overlap: least share of a tile that its neighbour sees too, 0..0.9.
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
        return self._run(paths, workers, _Options(batch_size, heatmaps, tiles, overlap, min_area))

    def _run(
        self, images: Iterable[ImageLike | ImageInput | Failure], workers: int, options: _Options
    ) -> Iterator[Prediction | Failure]:
        self._check(options, workers)
        # with tiles, each image is many to the model, and its original must be kept
        together = 1 if options.tiles else options.batch_size

        def prepare(numbered: tuple[int, ImageLike | ImageInput | Failure]) -> _Ready | Failure:
            return self._prepare(*numbered, keep=options.tiles)

        prepared = prefetch(prepare, enumerate(images), workers, together + workers)
        return self._batches(prepared, together, options)

    def _check(self, options: _Options, workers: int) -> None:
        need_counts(options.batch_size, workers, options.min_area)
        if not 0 <= options.overlap <= MAX_OVERLAP:
            raise ArtifactNetError(f"overlap must be in 0..{MAX_OVERLAP}, not {options.overlap}")
        if not options.tiles:
            return
        need_segmentation(self.model, "tiles")
        if not options.heatmaps:
            raise ArtifactNetError("tiles make maps, but no map is asked for; leave them out")

    def _batches(
        self, prepared: Iterator[_Ready | Failure], together: int, options: _Options
    ) -> Iterator[Prediction | Failure]:
        attention = options.heatmaps and self.model.has_attention
        segmentation = options.heatmaps and self.model.has_segmentation and not options.tiles
        heatmap = self.model.has_heatmap  # the score comes from there; the maps may be dropped
        while batch := list(islice(prepared, together)):
            ready = [item.image for item in batch if isinstance(item, _Ready)]
            outputs = iter(
                forward(
                    self.model,
                    ready,
                    attention=attention,
                    segmentation=segmentation,
                    heatmap=heatmap,
                )
            )
            for item in batch:
                if isinstance(item, Failure):
                    yield item
                else:
                    # one at a time: a map at original size may be a hundred times its image here
                    yield self._answer(item, next(outputs), options)

    def _prepare(
        self, number: int, source: ImageLike | ImageInput | Failure, keep: bool
    ) -> _Ready | Failure:
        opened = open_image(number, source)
        if isinstance(opened, Failure):
            return opened
        name, pixels = opened.name, opened.pixels
        try:
            image, geometry = preprocess_of(self.model, pixels.shape[:2]).image(pixels)
        except ArtifactNetError as error:
            return Failure(name, str(error).removeprefix(f"{name}: "))
        return _Ready(name, opened.path, image, geometry, pixels if keep else None)

    def _answer(self, item: _Ready, output: ModelOutput, options: _Options) -> Prediction | Failure:
        probability = float(torch.sigmoid(output.logit))
        score = None if output.score is None else float(output.score)
        if not all(map(math.isfinite, (probability, 0.0 if score is None else score))):
            return Failure(item.name, "the model's answer is not a number (NaN)")
        answer = Prediction(
            probability=probability,
            is_fake=probability >= self.model.config.threshold,
            score=score,
            path=item.path,
            warnings=self.warnings,
        )
        if options.heatmaps:
            try:
                self._add_maps(answer, item, output, options)
            except ArtifactNetError as error:
                return Failure(item.name, str(error))
        return answer

    def _add_maps(
        self, answer: Prediction, item: _Ready, output: ModelOutput, options: _Options
    ) -> None:
        if output.attention is not None:
            answer.attention = output.attention.numpy().copy()  # no view that keeps the batch
        if output.heatmap is not None and not self.model.has_segmentation:
            answer.heatmap = self._preprocess.restore(output.heatmap.numpy(), item.geometry)
        if output.sigma is not None:
            answer.sigma = self._preprocess.restore(output.sigma.numpy(), item.geometry)
        if self.model.has_segmentation:
            self._add_segmentation(answer, item, output, options)

    def _add_segmentation(
        self, answer: Prediction, item: _Ready, output: ModelOutput, options: _Options
    ) -> None:
        config = self.model.config
        answer.probabilities = self._probabilities(item, output, options)
        answer.heatmap, answer.mask = instances.find_artifacts(
            answer.probabilities,
            config.map_threshold,
            config.segmentation.labels == "softmax",
            self.model.known_categories,
        )
        answer.instances = find_instances(
            answer.mask, answer.probabilities, answer.heatmap, options.min_area
        )

    def _probabilities(self, item: _Ready, output: ModelOutput, options: _Options) -> Float32Array:
        """(7, H0, W0) from the whole image or from tiles."""
        if item.pixels is not None:
            assert not isinstance(self.model, ExportedModel)  # `_check`: an export lacks the head
            return tiled_probabilities(
                self.model, self._preprocess, item.pixels, options.overlap, options.batch_size
            )
        assert output.segmentation is not None
        planes = instances.frame_probabilities(output.segmentation, self._preprocess.size)
        return instances.restore_planes(planes, item.geometry)


def preprocess_of(model: AnyModel, shape: tuple[int, ...] | None = None) -> Preprocess:
    """The preprocessing that belongs to a model.

    Args:
        model: any of ours.
        shape: (height, width) of an image, pixels: an adaptive mapper cuts it by a grid of tiles
            that suits it. None: as in training.
    """
    size = adapted_size(model.config.heatmap, shape[0], shape[1]) if shape is not None else None
    if size is not None:
        return Preprocess(size, "stretch", model.mean, model.std)
    patch = model.backbone.patch_size or 1
    return Preprocess(model.image_size, model.config.resize, model.mean, model.std, patch)


def need_segmentation(model: AnyModel | None, what: str) -> None:
    """Refuse ``what`` of a model that cannot say where artifacts of each category are.

    Args:
        model: None stands for one that is no `AnyModel`, and so has no segmentation head.
        what: that needs such a head, in the plural.

    Raises:
        ArtifactNetError: the model has no segmentation head.
    """
    if model is None or not model.has_segmentation:
        raise ArtifactNetError(
            f"{what} need a model with a segmentation head (trained with "
            "model.segmentation.head=upernet); this one has none"
        )


def load_model(path: str | Path, device: str | torch.device = "auto") -> Predictor:
    """Load a saved model for use.

    Args:
        path: a ``.safetensors`` file, a run's folder (its ``model.safetensors``), or the name
            of a model that travels with the package; a path that exists wins.
        device: ``auto`` takes a CUDA device where there is one, else the CPU; otherwise
            ``cpu``, ``gpu``, ``cuda:1``, ...

    Raises:
        ArtifactNetError: no such file or name, not one of our models, or no such device.
    """
    return Predictor(checkpoint.load_checkpoint(model_file(path), pick_device(device)))


def model_file(path: str | Path) -> Path:
    """The ``.safetensors`` file that `load_checkpoint` reads.

    Args:
        path: a file, a run's folder, or the name of a packaged model.

    Raises:
        ArtifactNetError: none of these, a folder without a finished run, a HEIE on a language
            model, or an exported file.
    """
    file = packaged.resolve(path)
    if file.is_dir():
        if (file / HEIE_FILE).is_file():
            raise ArtifactNetError(
                f"{file}: a HEIE on a language model: "
                f"artifactnet.vlm.heie.predictor.load_predictor opens it, "
                f"and so do `artifactnet predict IMAGES --model {file}` and "
                f"`artifactnet report {file} --images IMAGES`"
            )
        if not (file / MODEL_FILE).is_file():
            others = ", ".join(sorted(p.name for p in file.glob("*.safetensors"))) or "none"
            raise ArtifactNetError(
                f"{file}: no {MODEL_FILE} in this folder, so no finished run "
                f"(other .safetensors files there: {others})"
            )
        return file / MODEL_FILE
    if file.suffix in SUFFIXES:
        raise ArtifactNetError(
            f"{file}: an exported file, not a model; `artifactnet predict --backend "
            f"{SUFFIXES[file.suffix]}` and "
            "artifactnet.inference.backends.base.load_exported run it, "
            "everything else takes the model that it was made of"
        )
    return file


def pick_device(name: str | torch.device) -> torch.device:
    """The device of a name: ``auto`` takes a CUDA device where there is one, ``gpu`` asks for it.

    Raises:
        ArtifactNetError: no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device("cuda" if name == "gpu" else name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # torch without CUDA asserts
        reason = str(error).splitlines()[0]
        raise ArtifactNetError(f"device {name!s} cannot be used: {reason}") from error
    return device
