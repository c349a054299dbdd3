"""An exported file in place of a model, run by ONNX Runtime, OpenVINO or PyTorch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from artifactnet.config import ModelConfig
from artifactnet.inference.backends.metadata import NONE
from artifactnet.inference.backends.onnx import OnnxSession
from artifactnet.inference.backends.openvino import OpenvinoSession
from artifactnet.inference.backends.pt2 import ProgramSession
from artifactnet.inference.backends.session import Session, first_line
from artifactnet.models.artifact_net import ArtifactNet
from artifactnet.types import ArtifactNetError, ModelOutput, UInt8Array

# backend -> suffixes of the exported files that it runs
BACKENDS: dict[str, tuple[str, ...]] = {
    "torch": (".pt2",),
    "onnx": (".onnx",),
    "openvino": (".xml", ".onnx"),
}
SUFFIXES = {".pt2": "torch", ".onnx": "onnx", ".xml": "openvino"}  # -> the backend by default


def open_session(path: Path, backend: str, threads: int = 0) -> Session:
    """Open an exported file; see `load_exported`."""
    if backend not in BACKENDS:
        raise ArtifactNetError(f"unknown backend {backend!r}; known: {', '.join(BACKENDS)}")
    if path.suffix not in BACKENDS[backend]:
        raise ArtifactNetError(
            f"{path}: the {backend} backend runs exported {' or '.join(BACKENDS[backend])} files"
        )
    if threads < 0:
        raise ArtifactNetError(f"threads must be 0 or more, not {threads}")
    if not path.is_file():
        raise ArtifactNetError(f"{path}: no such file")
    session: Session
    if backend == "torch":
        session = ProgramSession(path, threads)
    elif backend == "onnx":
        session = OnnxSession(path, threads)
    else:
        session = OpenvinoSession(path, threads)
    if tuple(session.shape) != session.facts.image_size:
        raise ArtifactNetError(
            f"{path}: takes images of {session.shape}, but its metadata says "
            f"{session.facts.image_size}; the file was changed after its export: export again"
        )
    return session


def load_exported(path: str | Path, backend: str | None = None, threads: int = 0) -> ExportedModel:
    """An exported file, ready for `Predictor`.

    Args:
        path: ``.onnx``, ``.xml`` (its ``.bin`` beside it) or ``.pt2``.
        backend: ``onnx``, ``openvino`` or ``torch``; None goes by the suffix.
        threads: 0 leaves it to the runtime. ``torch`` sets it for the whole process.

    Raises:
        ArtifactNetError: no such file or backend, a file of another kind, one that was not
            exported by ArtifactNet, or one whose input contradicts its metadata.
    """
    path = Path(path)
    chosen = backend or SUFFIXES.get(path.suffix)
    if chosen is None:
        raise ArtifactNetError(
            f"{path}: not an exported file; their names end in {', '.join(SUFFIXES)}"
        )
    return ExportedModel(open_session(path, chosen, threads), str(path))


def to_frames(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> UInt8Array:
    """Undo normalisation: (B, 3, H, W) float32 to the (B, H, W, 3) uint8 pixels it came from.

    Exact where the pixels were whole levels, as images at model size are; padding, which is the
    mean colour, goes to the nearest level.
    """
    scale, shift = (255 * torch.tensor(x, dtype=torch.float32)[:, None, None] for x in (std, mean))
    levels = (images.float() * scale + shift).round_().clamp_(0, 255).to(torch.uint8)
    return np.ascontiguousarray(levels.permute(0, 2, 3, 1).numpy())


class ExportedModel(nn.Module):
    """Looks like an `ArtifactNet` to `Predictor`; takes no gradient.

    Args:
        session: the open file.
        path: of the file, which errors name.

    Attributes:
        path: as given.
        config: thresholds and preprocessing; `ExportFacts.model` has the network's own keys.
        image_size, mean, std, notices, known_categories, has_heatmap, has_score, no_attention: as
            of `ArtifactNet`.
        has_attention, has_segmentation: False: of a segmentation head only the probability of
            any artifact was exported, as the heatmap.
    """

    has_attention = False
    has_segmentation = False
    no_attention = "an exported file has none"

    def __init__(self, session: Session, path: str) -> None:
        super().__init__()
        facts = session.facts
        self.facts = facts
        self.config = ModelConfig(
            backbone=str(facts.model.get("backbone")),
            image_size=list(facts.image_size),
            resize=facts.resize,
            mean=list(facts.mean),
            std=list(facts.std),
            threshold=facts.threshold,
            map_threshold=facts.map_threshold,
            fake_from=facts.fake_from,
            real_below=facts.real_below,
        )
        self.image_size = facts.image_size
        self.mean, self.std = facts.mean, facts.std
        self.notices = facts.notices
        self.known_categories = facts.categories
        self.has_heatmap = facts.heatmap != NONE
        self.has_score = "score" in facts.outputs
        self.backbone = SimpleNamespace(patch_size=facts.patch_size)
        # tells callers, as the weights of a model do, that images are wanted on the CPU
        self._place = nn.Parameter(torch.empty(0), requires_grad=False)
        self._session = session
        self.path = path

    def forward(
        self,
        images: Tensor,
        *,
        attention: bool = False,
        segmentation: bool = False,
        heatmap: bool = False,
    ) -> ModelOutput:
        """The logit, the score if the file has one, and the requested maps of a batch.

        Args:
            images: (B, 3, *image_size) on the CPU, normalised with ``mean`` and ``std``.
            attention, segmentation: refused if True.
            heatmap: also return heatmap and sigma, if the file has them.

        Raises:
            ArtifactNetError: the file lacks a requested map, images have another size, or the
                runtime fails.
        """
        if attention or segmentation or (heatmap and not self.has_heatmap):
            what = "attention" if attention else "segmentation" if segmentation else "heatmap"
            raise ArtifactNetError(f"{self.path}: an export without {what}")
        if images.shape[1:] != (3, *self.image_size):
            raise ArtifactNetError(
                f"{self.path}: takes images of (3, {self.image_size[0]}, {self.image_size[1]}), "
                f"not {tuple(images.shape[1:])}"
            )
        try:
            arrays = self._session.run(to_frames(images, self.mean, self.std))
        except RuntimeError as error:
            raise ArtifactNetError(f"{self.path}: failed to run: {first_line(error)}") from error
        tensors = dict(zip(self.facts.outputs, map(torch.from_numpy, arrays), strict=True))
        output = ModelOutput(tensors["logit"], score=tensors.get("score"))
        if heatmap:
            output.heatmap, output.sigma = tensors.get("heatmap"), tensors.get("sigma")
        return output


AnyModel: TypeAlias = ArtifactNet | ExportedModel  # what `Predictor` takes
