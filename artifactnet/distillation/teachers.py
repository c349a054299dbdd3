"""Teachers, which label images for a student: a saved detector, a HEIE, or a folder of heatmaps."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from hashlib import blake2b
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from artifactnet.config import ModelConfig
from artifactnet.data.geometry import Geometry, restore_map
from artifactnet.data.heatmaps import HeatmapFolder
from artifactnet.data.sources.base import Splits
from artifactnet.distillation.cache import Identity
from artifactnet.files import hash_files
from artifactnet.inference.forward import forward
from artifactnet.inference.inputs import Failure, ImageInput
from artifactnet.inference.instances import restore_planes
from artifactnet.inference.load import find_model
from artifactnet.inference.preprocessing import preprocess_of
from artifactnet.models.artifact_net import ArtifactNet
from artifactnet.models.checkpoint import load_checkpoint
from artifactnet.models.heads.scorer import UNSCORED
from artifactnet.models.heads.segmentation import any_artifact_of_planes, probabilities
from artifactnet.models.metadata import read_metadata
from artifactnet.runs import run_folder
from artifactnet.types import (
    UNSEEN_SIGMA,
    ArtifactNetError,
    ModelOutput,
    Record,
    TeacherAnswer,
    UInt8Array,
)

if TYPE_CHECKING:
    from artifactnet.vlm.heie.predictor import HeiePredictor

DEFAULT_SIGMA = 1.0  # of a teacher that predicts none


class Teacher(Protocol):
    """What `artifactnet.distillation.labelling.label_splits` needs of a teacher.

    Attributes:
        identity: what makes it this teacher and no other; its pseudo-labels are cached under it.
        about: more about it, for people.
        prepare: from a record and its (H, W, 3) pixels to what `label` takes. It runs in the
            worker processes of a loader, so it holds no model.
        gives_features: whether its pseudo-labels hold features.
    """

    gives_features: bool
    identity: Identity
    about: dict[str, Any]
    prepare: Callable[[Record, UInt8Array], Any]

    def check(self, splits: Splits) -> None:
        """Report, before the work starts, what is known to be missing.

        Raises:
            ArtifactNetError: what is missing.
        """
        ...

    def label(self, prepared: Sequence[Any]) -> list[TeacherAnswer]:
        """Pseudo-labels of a batch, in order; their maps have the aspect ratio of the images.

        Raises:
            ArtifactNetError: names the image that cannot be labelled.
        """
        ...


def open_teacher(path: str | Path, device: str | torch.device = "cpu") -> Teacher:
    """The teacher at a path; weights are loaded when the first image is to be labelled.

    Args:
        path: a run's folder, a ``.safetensors`` file, the name of a packaged model, the folder
            of a HEIE on a language model, what ``predict`` wrote, or a folder of heatmaps.
        device: where a model runs.

    Raises:
        ArtifactNetError: nothing there, nothing that can label, or a run without a model.
    """
    try:
        kind, found = find_model(path)
    except ArtifactNetError as error:
        raise ArtifactNetError(f"distill.teacher={error}, and no folder of heatmaps") from error
    if kind == "weights":
        return ModelTeacher(found, device)
    if kind == "heie":
        return HeieTeacher(found, device)
    if kind == "fakexplainer":
        raise ArtifactNetError(
            f"distill.teacher={found}: a FakeXplainer cannot be a teacher; predict the images with "
            "it and name the folder of heatmaps"
        )
    if kind == "exported":
        raise ArtifactNetError(
            f"distill.teacher={found}: an exported file cannot be a teacher; name the model that "
            "it was made of"
        )
    if (found / run_folder.CONFIG).is_file():
        raise ArtifactNetError(
            f"distill.teacher={found}: a run without {run_folder.BEST}; finish it with resume=true"
        )
    return HeatmapTeacher(found)


class PreparedImage(NamedTuple):
    """An image as a detector takes it."""

    where: str  # its location, for messages
    frame: Tensor  # (3, H, W) float32 at the teacher's size, normalised as it wants it
    geometry: Geometry


class ModelTeacher:
    """A saved detector: its heatmap on the original image, and what else it predicts.

    The heatmap is that of its heatmap head (with sigma and score), else the probability of any
    artifact of its segmentation head, else its attention. The model's own preprocessing is
    undone, so that a student with another size, resize policy or normalisation can learn from it.
    An adaptive mapper cuts each image by its own shape, as it does in `predict`.

    Raises:
        ArtifactNetError: not a model of ours, or one without any heatmap.
    """

    gives_features = True

    def __init__(self, file: Path, device: str | torch.device = "cpu") -> None:
        metadata = read_metadata(file)
        config: ModelConfig = metadata["model"]
        self._file, self._device = file, device
        self._map = _map_of(config, file)
        self.prepare: Callable[[Record, UInt8Array], PreparedImage] = partial(_prepare, config)
        digest = hash_files([file], blake2b(digest_size=16))
        self.identity: Identity = {"kind": "model", "hash": digest, "map": self._map}
        if config.heatmap.head == "mapper" and config.heatmap.adaptive:
            self.identity = {**self.identity, "tiles": "adaptive"}
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
        """The teacher."""
        return load_checkpoint(self._file, self._device)

    def check(self, splits: Splits) -> None:
        """A detector takes any image; `label` refuses one that is too small for it."""

    def label(self, prepared: Sequence[PreparedImage]) -> list[TeacherAnswer]:
        """Pseudo-labels of a batch; maps are (H, W) of the original images.

        Raises:
            ArtifactNetError: an output is not a number, or an image is smaller than a patch of
                the model; the message names the image.
        """
        patch = self.model.backbone.patch_size or 1
        for item in prepared:
            height, width = item.geometry.original
            if min(height, width) < patch:
                raise ArtifactNetError(
                    f"{item.where}: an image of {width}x{height} pixels is too small for one patch "
                    f"of the teacher ({patch}x{patch}); leave it out or use a larger original"
                )
        outputs = forward(self.model, [item.frame for item in prepared], **{self._map: True})
        return [self._label(*pair) for pair in zip(prepared, outputs, strict=True)]

    def _label(self, item: PreparedImage, output: ModelOutput) -> TeacherAnswer:
        if output.segmentation is not None and self._map == "segmentation":
            config = self.model.config
            # planes of categories, not their union, go back to the image, as in the predictor
            planes = probabilities(output.segmentation[None], config.image_size)[0][0].numpy()
            heatmap = any_artifact_of_planes(
                restore_planes(planes, item.geometry), config.segmentation.labels == "softmax"
            )
        else:
            assert output.heatmap is not None
            heatmap = restore_map(output.heatmap.numpy(), item.geometry)
        sigma = np.full(item.geometry.original, UNSEEN_SIGMA, np.float32)
        seen = item.geometry.source.slices
        sigma[seen] = DEFAULT_SIGMA
        if output.sigma is not None:
            sigma[seen] = restore_map(output.sigma.numpy(), item.geometry)[seen]
        score = math.nan if output.score is None else float(output.score)
        logit = float(output.logit)
        assert output.feature is not None
        feature = output.feature.numpy()
        known = heatmap.min() >= 0 and heatmap.max() <= 1 and sigma.min() > 0
        known = known and np.isfinite(feature).all() and not math.isnan(logit)
        if not known or (output.score is not None and math.isnan(score)):
            raise ArtifactNetError(f"{item.where}: the teacher's answer is not a number (NaN)")
        return TeacherAnswer(heatmap, sigma, score, logit, feature)


def _map_of(config: ModelConfig, file: Path) -> str:
    """Which of a model's maps is the target, as its keyword of ``ArtifactNet.forward``."""
    if config.heatmap.head != "none":
        return "heatmap"
    if config.segmentation.head != "none":
        return "segmentation"
    with torch.device("meta"):  # the architecture without weights
        no_attention = ArtifactNet(config).no_attention
    if no_attention is not None:
        raise ArtifactNetError(f"distill.teacher={file}: it has no heatmap: {no_attention}")
    return "attention"


def _prepare(config: ModelConfig, record: Record, image: UInt8Array) -> PreparedImage:
    frame, geometry = preprocess_of(config, image.shape[:2]).image(image)
    return PreparedImage(record.location, frame, geometry)


class HeieTeacher:
    """A saved HEIE, reading its heatmap from a fixed text: one forward pass per batch.

    Raises:
        ArtifactNetError: no HEIE in ``folder``, not of this format, or its heatmap is untrained.
    """

    gives_features = False

    def __init__(self, folder: Path, device: str | torch.device = "cpu") -> None:
        from artifactnet.vlm.heie.saving import BASE, FACTS, UNMAPPED, WEIGHTS, read_facts
        from artifactnet.vlm.text.template import TEMPLATE

        self._folder, self._device = folder, device
        facts = read_facts(folder)
        notices = list(facts["extra"].get("notices", ()))
        if UNMAPPED in notices:
            raise ArtifactNetError(
                f"distill.teacher={folder}: {UNMAPPED}; name a run with loss.heatmap above 0"
            )
        tuned = sorted((folder / BASE).glob("*.safetensors"))  # where the whole base was tuned
        # everything that decides the labels: trained weights, configuration and fixed text
        hasher = blake2b(TEMPLATE.encode(), digest_size=16)
        digest = hash_files((folder / FACTS, folder / WEIGHTS, *tuned), hasher)
        self.identity: Identity = {"kind": "heie", "hash": digest}
        self.about: dict[str, Any] = {
            "name": folder.name,
            "path": str(folder),
            "base": facts["mllm"]["base"],
            "revision": facts["mllm"]["revision"],
            "notices": notices,
            "artifactnet": version("artifactnet"),
        }
        self.prepare: Callable[[Record, UInt8Array], ImageInput] = _name_image

    @cached_property
    def predictor(self) -> HeiePredictor:
        """The teacher."""
        from artifactnet.vlm.heie.predictor import load_heie_predictor

        return load_heie_predictor(self._folder, self._device, "template")

    def check(self, splits: Splits) -> None:
        """HEIE takes any image."""

    def label(self, prepared: Sequence[ImageInput]) -> list[TeacherAnswer]:
        """Pseudo-labels of a batch; maps are (H, W) of the images, and there is no logit."""
        answers = []
        for one in self.predictor.predict_stream(prepared, len(prepared)):
            if isinstance(one, Failure):
                raise ArtifactNetError(f"{one.path}: {one.reason}")
            assert one.heatmap is not None
            assert one.sigma is not None
            assert one.score is not None
            score = math.nan if UNSCORED in self.predictor.model.notices else one.score
            answers.append(TeacherAnswer(one.heatmap, one.sigma, score))
        return answers


def _name_image(record: Record, image: UInt8Array) -> ImageInput:
    return ImageInput(record.location, image)


class HeatmapTeacher:
    """Heatmaps made by ``predict`` or elsewhere (see `HeatmapFolder`): sigma 1, no score, no logit.

    Raises:
        ArtifactNetError: no heatmap in the folder.
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
            _read_heatmap, self._heatmaps
        )

    def check(self, splits: Splits) -> None:
        """Raise `ArtifactNetError` naming the first few images without a heatmap."""
        self._heatmaps.check(record for source in splits.values() for record in source.records)

    def label(self, prepared: Sequence[TeacherAnswer]) -> list[TeacherAnswer]:
        """What was read, as it is."""
        return list(prepared)


def _read_heatmap(heatmaps: HeatmapFolder, record: Record, image: UInt8Array) -> TeacherAnswer:
    height, width = image.shape[:2]
    heatmap = heatmaps.read(record, (height, width))
    return TeacherAnswer(heatmap, np.full_like(heatmap, DEFAULT_SIGMA))
