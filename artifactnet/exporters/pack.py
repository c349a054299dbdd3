"""A saved model in half precision, written only if its predictions stay the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from io import BytesIO
from itertools import chain
from pathlib import Path

import numpy as np
from PIL import Image

from artifactnet.files import atomic_path, sha256_file, write_text
from artifactnet.inference.base import need_answer
from artifactnet.inference.collect import resolve_inputs, sample_evenly
from artifactnet.inference.inputs import Failure, ImageInput
from artifactnet.inference.load import find_weights
from artifactnet.inference.predictor import Predictor
from artifactnet.models.artifact_net import ArtifactNet
from artifactnet.models.checkpoint import load_checkpoint, save_checkpoint
from artifactnet.models.metadata import read_metadata
from artifactnet.models.shared_backbone import Backbones, find_backbones
from artifactnet.types import ArtifactNetError, Prediction

SUFFIX = ".safetensors"

# a packed model may differ by this much from its original; by a share in sigma, which spans decades
LIMITS = {"probability": 0.01, "heatmap": 0.02, "sigma": 0.1, "score": 0.01}
_NOISE_IMAGES = 8


@dataclass(frozen=True, slots=True)
class Packed:
    """A packed model that was checked and written.

    Attributes:
        size, original_size: of the files, bytes.
        images: number of images compared.
        differences: the largest of each of `LIMITS` that the model predicts; for maps over all
            pixels, for sigma as a share of the original's.
    """

    path: Path
    size: int
    original_size: int
    images: int
    differences: dict[str, float]


def pack_model(
    source: str | Path,
    out: str | Path,
    images: Sequence[str | Path] = (),
    *,
    check: int = 16,
    card: str | Path | None = None,
    trained_on: str | None = None,
    share_backbone: bool = False,
    overwrite: bool = False,
) -> Packed:
    """Write a copy of a saved model with float16 weights.

    Config, preprocessing, notices and extra facts are kept; ``extra.packed`` adds the version of
    ArtifactNet, the original's SHA-256 and ``trained_on``. The copy is loaded back and compared
    with the original before it appears.

    Args:
        source: a ``.safetensors`` file, a run's folder, or the name of a packaged model.
        out: the ``.safetensors`` file to write.
        images: to compare on: files, folders, shards and patterns; none: noise at model size.
        check: number of images to sample evenly from them.
        card: a model card in Markdown, copied beside ``out`` under its name.
        trained_on: the training data in a few words; training from these weights repeats them.
        share_backbone: leave out what equals published weights in the package (see
            `artifactnet.models.shared_backbone`): the copy is a small part as large, and loads
            where this package is installed.
        overwrite: replace files that exist.

    Raises:
        ArtifactNetError: with ``share_backbone``, the package has no weights of the backbone, or
            none of its tensors equals them; a file cannot be read or written or exists, an image
            cannot be used, a weight does not fit into half precision, or predictions differ by
            more than `LIMITS`.
            Nothing is written then.
    """
    out = Path(out)
    file = find_weights(source)
    text = None if card is None else _read_card(Path(card))
    beside = out.with_suffix(".md")
    if out.suffix != SUFFIX:
        raise ArtifactNetError(f"{out}: a packed model's name must end in {SUFFIX}")
    if out.exists() and out.samefile(file):
        raise ArtifactNetError(f"{out}: is the original, which packing must not replace")
    if out.exists() and not overwrite:
        raise ArtifactNetError(f"{out}: exists already; overwrite replaces it")
    if card is not None and beside.exists() and not (overwrite or beside.samefile(card)):
        raise ArtifactNetError(f"{beside}: exists already; overwrite replaces it")
    model = load_checkpoint(file)
    backbones = _shared(model, file) if share_backbone else None
    extra = read_metadata(file)["extra"]
    extra["packed"] = {
        "artifactnet": version("artifactnet"),
        "original_sha256": sha256_file(file),
        "trained_on": trained_on,
    }
    chosen = _chosen(images, check) if images else _noise(*model.image_size)
    try:
        with atomic_path(out) as temporary:
            save_checkpoint(model, temporary, extra, half=True, backbones=backbones)
            packed = Predictor(load_checkpoint(temporary))
            differences = _differences(Predictor(model), packed, chosen)
            _refuse(out, differences)
        if text is not None:
            write_text(beside, text)
    except OSError as error:
        raise ArtifactNetError(f"{out}: cannot be written: {error}") from error
    return Packed(out, out.stat().st_size, file.stat().st_size, len(chosen), differences)


def _shared(model: ArtifactNet, file: Path) -> Backbones:
    try:
        return find_backbones(model)
    except ArtifactNetError as error:
        raise ArtifactNetError(f"{file}: {error}") from error


def _read_card(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ArtifactNetError(f"{path}: the model card cannot be read: {error}") from error
    if not text.strip():
        raise ArtifactNetError(f"{path}: the model card is empty")
    return text


def _chosen(inputs: Sequence[str | Path], count: int) -> list[ImageInput]:
    """Some of the images of the inputs, evenly spread; all must be usable."""
    resolved = resolve_inputs(inputs, skip="")
    images = []
    for item in chain(resolved.failures, sample_evenly(resolved, count)):
        if isinstance(item, Failure):
            raise ArtifactNetError(f"{item.path}: {item.reason}")
        images.append(item)
    if not images:
        raise ArtifactNetError(f"{', '.join(map(str, inputs))}: no images to compare on")
    return images


def _noise(height: int, width: int) -> list[ImageInput]:
    """Reproducible noise."""
    rng = np.random.default_rng(0)
    sources: list[ImageInput] = []
    for number in range(_NOISE_IMAGES):
        buffer = BytesIO()
        pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(buffer, format="PNG")
        sources.append(ImageInput(f"noise {number}", buffer.getvalue()))
    return sources


def _differences(
    original: Predictor, packed: Predictor, images: Sequence[ImageInput]
) -> dict[str, float]:
    """Largest distance of each part of the predictions."""
    distances: dict[str, list[float]] = {}
    pairs = zip(original.predict_stream(images), packed.predict_stream(images), strict=True)
    for before, after in pairs:
        for name, distance in _distances(need_answer(before), need_answer(after)).items():
            distances.setdefault(name, []).append(distance)
    # numpy's maximum, since Python's loses a NaN
    return {name: float(np.max(values)) for name, values in distances.items()}


def _distances(one: Prediction, other: Prediction) -> dict[str, float]:
    """How far two predictions of one image are apart; not finite where either is not."""
    distances = {"probability": abs(one.probability - other.probability)}
    if one.heatmap is not None and other.heatmap is not None:
        distances["heatmap"] = float(np.abs(one.heatmap - other.heatmap).max())
    if one.sigma is not None and other.sigma is not None:
        distances["sigma"] = float((np.abs(one.sigma - other.sigma) / one.sigma).max())
    if one.score is not None and other.score is not None:
        distances["score"] = abs(one.score - other.score)
    return distances


def _refuse(out: Path, differences: dict[str, float]) -> None:
    wrong = [
        f"{name} by {value:.2g} (limit {LIMITS[name]:g})"
        for name, value in differences.items()
        if not value <= LIMITS[name]  # also for NaN
    ]
    if wrong:
        raise ArtifactNetError(
            f"{out}: not written, since in half precision the answers differ: {', '.join(wrong)}; "
            "keep the original"
        )
