"""The predictor of detectors: a saved model with its own preprocessing and thresholds."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from artifactnet.data.transforms import Geometry
from artifactnet.inference.backends.exported import AnyModel, ExportedModel
from artifactnet.inference.base import BasePredictor, PredictOptions
from artifactnet.inference.device import pick_device
from artifactnet.inference.forward import forward
from artifactnet.inference.inputs import Failure, OpenedImage
from artifactnet.inference.instances import (
    find_artifacts,
    find_instances,
    frame_probabilities,
    restore_planes,
)
from artifactnet.inference.preprocessing import preprocess_of
from artifactnet.inference.tiles import tiled_probabilities
from artifactnet.models.checkpoint import load_checkpoint
from artifactnet.models.hub import PREFIX, Pushed, download_model, parse_address
from artifactnet.types import (
    ArtifactNetError,
    Float32Array,
    ModelOutput,
    Prediction,
    UInt8Array,
    is_uncertain,
)


@dataclass(slots=True)
class _Ready:
    """A decoded image at model size; the original pixels are kept only for tiles."""

    name: str
    path: str | None
    image: torch.Tensor  # (3, H, W) float32, normalised
    geometry: Geometry
    pixels: UInt8Array | None  # (H0, W0, 3)


class Predictor(BasePredictor):
    """Predicts images with the preprocessing and thresholds saved in the model.

    Args:
        model: a trained model, on its device (its train/eval state is restored), or an exported
            file (`inference.backends.exported.load_exported`).
        source: the file that the model was loaded from; None: it was made in memory.
    """

    def __init__(self, model: AnyModel, source: Path | None = None) -> None:
        self.model = model
        self.source = source
        self.has_segmentation = model.has_segmentation
        self.warnings: tuple[str, ...] = tuple(model.notices)
        self._preprocess = preprocess_of(model)

    @classmethod
    def from_pretrained(
        cls, repo_id: str, revision: str | None = None, device: str | torch.device = "auto"
    ) -> Predictor:
        """Load a detector from the Hugging Face Hub, or from its local cache.

        The same as ``load_model("hf:OWNER/NAME@REVISION")``.

        Args:
            repo_id: ``OWNER/NAME``.
            revision: a branch, tag or commit; None: the branch ``main``.
            device: see `pick_device`.

        Raises:
            ArtifactNetError: see `hub.download_model`, or there is no such device.
        """
        chosen = pick_device(device)
        at = "" if revision is None else f"@{revision}"
        file = download_model(parse_address(f"{PREFIX}{repo_id}{at}"))
        return cls(load_checkpoint(file, chosen), file)

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
        """Upload the model with its config and a model card, as one commit; see `publish`.

        Args:
            repo_id: ``OWNER/NAME``; made if it does not exist.
            runs: folders of the same training with several seeds, for the mean and spread of the
                figures in the card. The run that the model was loaded from is always used.
            licence: of the model, as the hub writes it (``apache-2.0``); None: not stated.
            private: only its owners may see the repository.
            revision: the branch to commit to, made if it does not exist; None: ``main``.
            message: of the commit.
            token: with the right to write; None: that of ``HF_TOKEN`` or of ``hf auth login``.

        Returns:
            The address of exactly this upload, for `load_model`, and the page of the commit.

        Raises:
            ArtifactNetError: an exported model, a run without results or of another training, no
                licence of the hub, or see `hub.upload_model`.
        """
        from artifactnet.inference.publish import publish

        if isinstance(self.model, ExportedModel):
            raise ArtifactNetError(
                f"{repo_id}: an exported file is not pushed; push the model that it was made of"
            )
        return publish(
            self.model, self.source, repo_id, runs=runs, licence=licence, private=private,
            revision=revision, message=message, token=token,
        )  # fmt: skip

    @property
    def threshold(self) -> float:
        """In [0, 1]: an image is called fake if its probability reaches it."""
        return self.model.config.threshold

    @property
    def limits(self) -> tuple[float, float] | None:
        """``(real_below, fake_from)`` of a calibrated model, between which it is uncertain."""
        return self.model.config.limits

    def _prepare(self, image: OpenedImage, options: PredictOptions) -> _Ready:
        pixels = image.pixels
        tensor, geometry = preprocess_of(self.model, pixels.shape[:2]).image(pixels)
        return _Ready(image.name, image.path, tensor, geometry, pixels if options.tiles else None)

    def _answer_batch(
        self, batch: list[_Ready], options: PredictOptions
    ) -> Iterator[Prediction | Failure]:
        outputs = forward(
            self.model,
            [item.image for item in batch],
            attention=options.heatmaps and self.model.has_attention,
            segmentation=options.heatmaps and self.has_segmentation and not options.tiles,
            heatmap=self.model.has_heatmap,  # gives the score, too; the maps may be dropped
        )
        for item, output in zip(batch, outputs, strict=True):
            yield self._answer(item, output, options)

    def _answer(
        self, item: _Ready, output: ModelOutput, options: PredictOptions
    ) -> Prediction | Failure:
        probability = float(torch.sigmoid(output.logit))
        score = None if output.score is None else float(output.score)
        if not all(map(math.isfinite, (probability, 0.0 if score is None else score))):
            return Failure(item.name, "the model's answer is not a number (NaN)")
        answer = Prediction(
            probability=probability,
            is_fake=probability >= self.threshold,
            score=score,
            path=item.path,
            warnings=self.warnings,
            uncertain=is_uncertain(probability, self.limits),
        )
        if options.heatmaps:
            try:
                self._add_maps(answer, item, output, options)
            except ArtifactNetError as error:
                return Failure(item.name, str(error))
        return answer

    def _add_maps(
        self, answer: Prediction, item: _Ready, output: ModelOutput, options: PredictOptions
    ) -> None:
        if output.attention is not None:
            answer.attention = output.attention.numpy().copy()  # no view that keeps the batch
        if output.sigma is not None:
            answer.sigma = self._preprocess.restore(output.sigma.numpy(), item.geometry)
        if self.has_segmentation:
            config = self.model.config
            answer.probabilities = self._probabilities(item, output, options)
            answer.heatmap, answer.mask = find_artifacts(
                answer.probabilities,
                config.map_threshold,
                config.segmentation.labels == "softmax",
                self.model.known_categories,
            )
            answer.instances = find_instances(
                answer.mask, answer.probabilities, answer.heatmap, options.min_area
            )
        elif output.heatmap is not None:
            answer.heatmap = self._preprocess.restore(output.heatmap.numpy(), item.geometry)

    def _probabilities(
        self, item: _Ready, output: ModelOutput, options: PredictOptions
    ) -> Float32Array:
        """(7, H0, W0) from the whole image or from tiles."""
        if item.pixels is not None:
            assert not isinstance(self.model, ExportedModel)  # an exported file has no such head
            return tiled_probabilities(
                self.model, self._preprocess, item.pixels, options.overlap, options.batch_size
            )
        assert output.segmentation is not None
        planes = frame_probabilities(output.segmentation, self._preprocess.size)
        return restore_planes(planes, item.geometry)
