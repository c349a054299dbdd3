"""Who can teach: a saved model of ours, or a folder of heatmaps made elsewhere."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property, partial
from hashlib import blake2b
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from artifactnet.config import ModelConfig
from artifactnet.data.geometry import Geometry
from artifactnet.data.heatmaps import HeatmapFolder
from artifactnet.data.sources.base import Splits
from artifactnet.distillation.cache import Identity
from artifactnet.files import hash_files
from artifactnet.inference.load import find_model
from artifactnet.inference.preprocessing import preprocess_of
from artifactnet.models.artifact_net import ArtifactNet
from artifactnet.models.checkpoint import load_checkpoint
from artifactnet.models.heads.segmentation import any_artifact_of_planes, probabilities
from artifactnet.models.metadata import read_metadata
from artifactnet.models.state import by_size, evaluating
from artifactnet.runs import run_folder
from artifactnet.types import (
    UNSEEN_SIGMA,
    ArtifactNetError,
    Float32Array,
    ModelOutput,
    Record,
    TeacherAnswer,
    UInt8Array,
)

SILENT_SIGMA = 1.0  # of a teacher that gives none


class Ready(NamedTuple):
    """An image as a teacher takes it."""

    where: str  # its location, for messages
    frame: Tensor  # (3, H, W) float32 at the teacher's size, normalised as it wants it
    geometry: Geometry


class ModelTeacher:
    """A saved model: its heatmap on the original image, and what else it gives.

    The heatmap is that of its heatmap head (with sigma and score), else the probability of any
    artifact of its segmentation head, else its attention. The model's own preprocessing is
    undone, so that a student with another size, resize policy or normalisation can learn from it.
    An adaptive mapper cuts each image by its own shape, as it does in `predict`.

    Weights are loaded when the first question comes: where all images have their answers, never.

    Args:
        file: the ``.safetensors`` file.
        device: where it runs.

    Raises:
        ArtifactNetError: not a model of ours, or one without any heatmap.
    """

    gives_features = True

    def __init__(self, file: Path, device: str | torch.device = "cpu") -> None:
        metadata = read_metadata(file)
        config: ModelConfig = metadata["model"]
        self._file, self._device = file, device
        self._map = _map_of(config, file)
        # as saved, which is complete; images below one patch are refused when they come
        self._preprocess = preprocess_of(config)
        self.prepare: Callable[[Record, UInt8Array], Ready] = partial(_fit, config)
        identity = {"kind": "model", "hash": content_hash([file]), "map": self._map}
        if config.heatmap.head == "mapper" and config.heatmap.adaptive:
            identity["tiles"] = "adaptive"
        self.identity: Identity = identity
        self.about: dict[str, Any] = {
            "name": file.parent.name if file.name == run_folder.BEST else file.stem,
            "path": str(file),
            "backbone": config.backbone,
            "image_size": list(config.image_size),
            "notices": list(metadata["notices"]),
            "artifactnet": version("artifactnet"),
        }

    @cached_property
    def model(self) -> ArtifactNet:
        """The teacher.

        Raises:
            ArtifactNetError: its weights do not fit its config.
        """
        return load_checkpoint(self._file, self._device)

    def check(self, splits: Splits) -> None:
        """A model takes any image; `answer` refuses one that is too small for it."""

    def answer(self, prepared: Sequence[Ready]) -> list[TeacherAnswer]:
        """Answers about a batch; maps are (H, W) of the original images.

        Raises:
            ArtifactNetError: an answer is not a number, or an image is smaller than a patch of the
                model; the message names the image.
        """
        for item in prepared:
            _check_size(item, self.model.backbone.patch_size or 1)
        device = next(self.model.parameters()).device
        answers: dict[int, TeacherAnswer] = {}
        # no_grad rather than inference_mode: gradient rollout needs autograd inside
        with evaluating(self.model), torch.no_grad():
            for indices, frames in by_size([item.frame for item in prepared]):
                output = self.model(frames.to(device), **{self._map: True})
                for row, index in enumerate(indices):
                    answers[index] = self._one(prepared[index], _row(output, row))
        return [answers[k] for k in range(len(prepared))]

    def _one(self, item: Ready, output: ModelOutput) -> TeacherAnswer:
        restore = partial(self._preprocess.restore_map, geometry=item.geometry)
        if self._map == "segmentation":
            heatmap = self._any_artifact(output, restore)
        else:
            assert output.heatmap is not None
            heatmap = restore(output.heatmap.numpy())
        sigma = np.full(item.geometry.original, UNSEEN_SIGMA, np.float32)
        seen = item.geometry.source.slices
        sigma[seen] = SILENT_SIGMA
        if output.sigma is not None:
            sigma[seen] = restore(output.sigma.numpy())[seen]
        score = math.nan if output.score is None else float(output.score)
        logit = float(output.logit)
        assert output.feature is not None
        feature = output.feature.numpy()
        known = heatmap.min() >= 0 and heatmap.max() <= 1 and sigma.min() > 0
        known = known and np.isfinite(feature).all() and not math.isnan(logit)
        if not known or (output.score is not None and math.isnan(score)):
            raise ArtifactNetError(f"{item.where}: the teacher's answer is not a number (NaN)")
        return TeacherAnswer(heatmap, sigma, score, logit, feature)

    def _any_artifact(
        self, output: ModelOutput, restore: Callable[[Float32Array], Float32Array]
    ) -> Float32Array:
        """Probability of any artifact, on the original image, as the predictor shows it.

        Logits are resized to the frame before softmax or sigmoid, as the head was trained;
        planes of categories, not their union, go back to the image.
        """
        assert output.segmentation is not None
        found = probabilities(output.segmentation[None], self._preprocess.size)[0][0]
        planes = np.stack([restore(plane) for plane in found.numpy()])
        exclusive = self.model.config.segmentation.labels == "softmax"
        return any_artifact_of_planes(planes, exclusive)


def _map_of(config: ModelConfig, file: Path) -> str:
    """Which of a model's maps teaches, as its keyword of ``ArtifactNet.forward``."""
    if config.heatmap.head != "none":
        return "heatmap"
    if config.segmentation.head != "none":
        return "segmentation"
    with torch.device("meta"):  # the architecture without weights
        no_attention = ArtifactNet(config).no_attention
    if no_attention is not None:
        raise ArtifactNetError(f"distill.teacher={file}: it has no heatmap: {no_attention}")
    return "attention"


def _check_size(item: Ready, patch: int) -> None:
    height, width = item.geometry.original
    if min(height, width) < patch:
        raise ArtifactNetError(
            f"{item.where}: an image of {width}x{height} pixels is too small for one patch of the "
            f"teacher ({patch}x{patch}); leave it out or use a larger original"
        )


def _row(output: ModelOutput, k: int) -> ModelOutput:
    """Answer of one image, on the CPU."""

    def of(tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else tensor[k].detach().float().cpu()

    return ModelOutput(
        output.logit[k].detach().double().cpu(),
        heatmap=of(output.heatmap),
        segmentation=of(output.segmentation),
        sigma=of(output.sigma),
        score=of(output.score),
        feature=of(output.feature),
    )


def _fit(config: ModelConfig, record: Record, image: UInt8Array) -> Ready:
    frame, geometry = preprocess_of(config, image.shape[:2]).image(image)
    return Ready(record.location, frame, geometry)


def content_hash(paths: Iterable[Path], start: bytes = b"") -> str:
    """Fingerprint of what decides a teacher's answers.

    Args:
        paths: files, in a fixed order.
        start: comes before them.
    """
    return hash_files(paths, blake2b(start, digest_size=16))


class Teacher(Protocol):
    """What `artifactnet.distillation.labelling.label` asks.

    Attributes:
        identity: what makes it this teacher and no other; answers are kept under it.
        about: more about it, for people.
        prepare: from a record and its (H, W, 3) pixels to what `answer` takes. It runs in the
            worker processes of a loader, so it holds no model.
        gives_features: whether its answers hold features.
    """

    gives_features: bool
    identity: Identity
    about: dict[str, Any]
    prepare: Callable[[Record, UInt8Array], Any]

    def check(self, splits: Splits) -> None:
        """Say before the work starts what can be known to be missing.

        Raises:
            ArtifactNetError: what is missing.
        """
        ...

    def answer(self, prepared: Sequence[Any]) -> list[TeacherAnswer]:
        """Answers about a batch, in order; their maps have the aspect ratio of the images.

        Raises:
            ArtifactNetError: names the image that has none.
        """
        ...


OpenTeacher = Callable[[str, str], Teacher]  # of a path and a device, see `open_teacher`


def open_teacher(path: str | Path, device: str | torch.device = "cpu") -> Teacher:
    """The teacher at a path.

    Args:
        path: a ``.safetensors`` file of ours, the name of a packaged model, a run's folder, or a
            folder of heatmaps.
        device: where a model runs.

    Raises:
        ArtifactNetError: nothing there, nothing that could teach, or a run without a model.
    """
    try:
        kind, path = find_model(path)
    except ArtifactNetError as error:
        raise ArtifactNetError(f"distill.teacher={error}, and no folder of heatmaps") from error
    if kind == "weights":
        return ModelTeacher(path, device)
    if kind != "folder":
        raise ArtifactNetError(f"distill.teacher={path}: a model of this kind cannot be a teacher")
    if (path / run_folder.CONFIG).is_file():
        raise ArtifactNetError(
            f"distill.teacher={path}: a run without {run_folder.BEST}; finish it with resume=true"
        )
    return HeatmapTeacher(path)


class HeatmapTeacher:
    """Heatmaps made elsewhere: no deviation (sigma 1), no score, no verdict.

    Args:
        folder: of the heatmaps, see `HeatmapFolder`.

    Raises:
        ArtifactNetError: no heatmap there.
    """

    gives_features = False

    def __init__(self, folder: Path) -> None:
        self._heatmaps = HeatmapFolder(folder)
        self.identity: Identity = {"kind": "heatmaps", "hash": self._heatmaps.hash}
        self.about: dict[str, Any] = {
            "name": folder.name,
            "path": str(folder),
            "heatmaps": len(self._heatmaps),
            "artifactnet": version("artifactnet"),
        }
        self.prepare: Callable[[Record, UInt8Array], TeacherAnswer] = partial(
            _read_answer, self._heatmaps
        )

    def check(self, splits: Splits) -> None:
        """Every image must have a heatmap of its own.

        Raises:
            ArtifactNetError: names the first few that have none, and how many they are.
        """
        self._heatmaps.check(record for source in splits.values() for record in source.records)

    def answer(self, prepared: Sequence[TeacherAnswer]) -> list[TeacherAnswer]:
        """What was read, as it is."""
        return list(prepared)


def _read_answer(heatmaps: HeatmapFolder, record: Record, image: UInt8Array) -> TeacherAnswer:
    height, width = image.shape[:2]
    heatmap = heatmaps.read(record, (height, width))
    return TeacherAnswer(heatmap, np.full_like(heatmap, SILENT_SIGMA))
