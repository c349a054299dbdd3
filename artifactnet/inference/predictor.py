"""One image in, one answer out: a saved model with its own preprocessing and threshold."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, overload

import torch

from artifactnet.data.transforms import Geometry, Preprocess
from artifactnet.inference.inputs import ImageLike, to_pixels
from artifactnet.inference.stream import ahead
from artifactnet.models import checkpoint
from artifactnet.models.artifact_net import ArtifactNet
from artifactnet.types import ArtifactNetError, ModelOutput, Prediction

MODEL_FILE = "model.safetensors"


@dataclass(frozen=True, slots=True)
class Failure:
    """An image that could not be judged.

    Attributes:
        path: the image as the caller named it.
        reason: why, in one line.
    """

    path: str
    reason: str


@dataclass(slots=True)
class _Ready:
    """A decoded image at model size; the original pixels are already let go."""

    name: str
    path: str | None
    image: torch.Tensor  # (3, H, W) float32, normalised
    geometry: Geometry


class Predictor:
    """Answers about images, with the preprocessing and thresholds saved in the model.

    Args:
        model: a trained model, on the device where it shall run. Its train/eval state is
            left as it was.

    Attributes:
        model: as given.
        warnings: what must be known before trusting an answer; repeated in each of them.
    """

    def __init__(self, model: ArtifactNet) -> None:
        self.model = model
        self.warnings: tuple[str, ...] = tuple(model.notices)
        patch = model.backbone.patch_size or 1
        self._preprocess = Preprocess(
            model.image_size, model.config.resize, model.mean, model.std, patch
        )

    @overload
    def predict(
        self, images: list[Any] | tuple[Any, ...], batch_size: int = 8
    ) -> list[Prediction]: ...

    @overload
    def predict(self, images: ImageLike, batch_size: int = 8) -> Prediction: ...

    def predict(
        self, images: ImageLike | list[Any] | tuple[Any, ...], batch_size: int = 8
    ) -> Prediction | list[Prediction]:
        """Judge one image or a list of them.

        Args:
            images: a path, PIL image, array or tensor as `inputs.to_pixels` takes them, or a
                list or tuple of such.
            batch_size: images that pass through the model together.

        Returns:
            One answer for one image; for a list, a list in its order.

        Raises:
            ArtifactNetError: an image cannot be used (the message names it), or
                ``batch_size`` is below 1.
        """
        each: list[Any] = list(images) if isinstance(images, list | tuple) else [images]
        answers: list[Prediction] = []
        for answer in self._run(each, batch_size, workers=0, heatmaps=True):
            if isinstance(answer, Failure):
                raise ArtifactNetError(f"{answer.path}: {answer.reason}")
            answers.append(answer)
        return answers if isinstance(images, list | tuple) else answers[0]

    def predict_stream(
        self,
        paths: Iterable[str | Path],
        batch_size: int = 8,
        workers: int = 0,
        heatmaps: bool = True,
    ) -> Iterator[Prediction | Failure]:
        """Judge any number of files with little memory.

        Args:
            paths: image files; read lazily, so that an endless iterator is fine.
            batch_size: images that pass through the model together.
            workers: threads that decode ahead of the model; 0 decodes in between.
            heatmaps: False skips the maps, which spares time.

        Yields:
            For every path, in order, its answer or why there is none.

        Raises:
            ArtifactNetError: ``batch_size`` is below 1 or ``workers`` below 0.
        """
        return self._run(paths, batch_size, workers, heatmaps)

    def _run(
        self, images: Iterable[ImageLike], batch_size: int, workers: int, heatmaps: bool
    ) -> Iterator[Prediction | Failure]:
        if batch_size < 1:
            raise ArtifactNetError(f"batch_size must be 1 or more, not {batch_size}")
        if workers < 0:
            raise ArtifactNetError(f"workers must be 0 or more, not {workers}")
        return self._batches(
            ahead(self._prepare, enumerate(images), workers, batch_size + workers),
            batch_size,
            heatmaps,
        )

    def _batches(
        self, prepared: Iterator[_Ready | Failure], batch_size: int, heatmaps: bool
    ) -> Iterator[Prediction | Failure]:
        while batch := list(islice(prepared, batch_size)):
            ready = [item for item in batch if isinstance(item, _Ready)]
            outputs = iter(self._forward(ready, heatmaps))
            for item in batch:
                # one at a time: a map at original size may be a hundred times its image here
                yield item if isinstance(item, Failure) else self._answer(item, next(outputs))

    def _prepare(self, numbered: tuple[int, ImageLike]) -> _Ready | Failure:
        number, source = numbered
        path = str(source) if isinstance(source, str | Path) else None
        name = f"image {number}" if path is None else path
        try:
            image, geometry = self._preprocess.image(to_pixels(source, name))
        except ArtifactNetError as error:
            return Failure(name, str(error).removeprefix(f"{name}: "))
        return _Ready(name, path, image, geometry)

    def _forward(self, ready: list[_Ready], heatmaps: bool) -> list[ModelOutput]:
        """One output without batch axis per image, on the CPU."""
        if not ready:
            return []
        device = next(self.model.parameters()).device
        batch = torch.stack([item.image for item in ready]).to(device)
        # no_grad rather than inference_mode: gradient rollout needs autograd inside
        with _evaluating(self.model), torch.no_grad():
            output = self.model(batch, attention=heatmaps and self.model.has_attention)
        logits = output.logit.detach().double().cpu()
        if output.heatmap is None:
            return [ModelOutput(logit) for logit in logits]
        attention = output.attention.detach().float().cpu()
        heatmap = output.heatmap.detach().float().cpu()
        return [ModelOutput(*parts) for parts in zip(logits, attention, heatmap, strict=True)]

    def _answer(self, item: _Ready, output: ModelOutput) -> Prediction | Failure:
        probability = float(torch.sigmoid(output.logit))
        if probability != probability:
            return Failure(item.name, "the model's answer is not a number (NaN)")
        heatmap = attention = None
        if output.heatmap is not None and output.attention is not None:
            heatmap = self._preprocess.restore(output.heatmap.numpy(), item.geometry)
            attention = output.attention.numpy().copy()  # not a view that keeps the batch alive
        return Prediction(
            probability=probability,
            is_fake=probability >= self.model.config.threshold,
            heatmap=heatmap,
            attention=attention,
            path=item.path,
            warnings=self.warnings,
        )


def load_model(path: str | Path, device: str | torch.device = "auto") -> Predictor:
    """Load a saved model for use.

    Args:
        path: a ``.safetensors`` file, or a run's folder (its ``model.safetensors``).
        device: ``auto`` takes a CUDA device where there is one, else the CPU; otherwise
            ``cpu``, ``gpu``, ``cuda:1``, ...

    Raises:
        ArtifactNetError: no such file, not one of our models, or no such device.
    """
    file = Path(path)
    if file.is_dir():
        if not (file / MODEL_FILE).is_file():
            others = ", ".join(sorted(p.name for p in file.glob("*.safetensors"))) or "none"
            raise ArtifactNetError(
                f"{file}: no {MODEL_FILE} in this folder, so no finished run "
                f"(other .safetensors files there: {others})"
            )
        file = file / MODEL_FILE
    return Predictor(checkpoint.load_model(file, _device(device)))


def _device(name: str | torch.device) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device("cuda" if name == "gpu" else name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # torch without CUDA asserts
        reason = str(error).splitlines()[0]
        raise ArtifactNetError(f"device {name!s} cannot be used: {reason}") from error
    return device


@contextmanager
def _evaluating(model: torch.nn.Module) -> Iterator[None]:
    """Eval mode inside; afterwards every submodule has its own flag back."""
    before = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in before:
            module.training = training
