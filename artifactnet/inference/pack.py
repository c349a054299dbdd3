"""A saved model in half the space, written only if it answers as before."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from artifactnet import __version__
from artifactnet.files import atomic_path, write_text
from artifactnet.inference.inputs import Failure, Source
from artifactnet.inference.predictor import Predictor, load_model, model_file
from artifactnet.models.artifact_net import ArtifactNet
from artifactnet.models.checkpoint import read_metadata, save_model
from artifactnet.types import ArtifactNetError, Prediction

SUFFIX = ".safetensors"
PROBABILITY_LIMIT = 0.01  # a packed model may differ by this much from its original
HEATMAP_LIMIT = 0.02
_NOISE_IMAGES = 8
_CHUNK = 1 << 20  # bytes read at once


@dataclass(frozen=True, slots=True)
class Packed:
    """A packed model that was checked and written.

    Attributes:
        path: the file.
        size: its bytes.
        original_size: the original's bytes.
        images: number of images that both were asked about.
        probability: largest difference of the probability of being fake.
        heatmap: largest difference of a heatmap's pixel; None for a model without heatmap.
    """

    path: Path
    size: int
    original_size: int
    images: int
    probability: float
    heatmap: float | None


def pack_model(
    source: str | Path,
    out: str | Path,
    images: Sequence[str | Path | Source] = (),
    *,
    card: str | Path | None = None,
    trained_on: str | None = None,
    overwrite: bool = False,
) -> Packed:
    """Write a copy of a saved model with float16 weights.

    Config, preprocessing, notices and extra facts are kept; ``extra.packed`` adds the version of
    ArtifactNet, the original's SHA-256 and ``trained_on``. The copy is loaded back and compared
    with the original before it takes its place.

    Args:
        source: a ``.safetensors`` file, a run's folder, or the name of a packaged model.
        out: the ``.safetensors`` file to write.
        images: to compare the answers on; none takes noise of the model's image size.
        card: a model card in Markdown, copied beside ``out`` under its name.
        trained_on: the data that the model learned from, in a few words; who starts from its
            weights is told.
        overwrite: replace files that exist.

    Raises:
        ArtifactNetError: a file cannot be read or written or exists, an image cannot be used, a
            weight does not fit into half precision, or the answers differ by more than
            `PROBABILITY_LIMIT` or `HEATMAP_LIMIT`. Nothing is written then.
    """
    out = Path(out)
    file = model_file(source)
    words = None if card is None else _read_card(Path(card))
    beside = out.with_suffix(".md")
    _check(file, out, overwrite)
    if card is not None and beside.exists() and not (overwrite or beside.samefile(card)):
        raise ArtifactNetError(f"{beside}: exists already; overwrite replaces it")
    original = load_model(file, device="cpu")
    extra = read_metadata(file)["extra"]
    extra["packed"] = {
        "artifactnet": __version__,
        "original_sha256": _sha256(file),
        "trained_on": trained_on,
    }
    assert isinstance(original.model, ArtifactNet)  # it was loaded from weights
    asked = list(images) or _noise(*original.model.image_size)
    try:
        with atomic_path(out) as temporary:
            save_model(original.model, temporary, extra, half=True)
            probability, heatmap = _differences(
                original, load_model(temporary, device="cpu"), asked
            )
            _refuse(out, probability, heatmap)
        if words is not None:
            write_text(beside, words)
    except OSError as error:
        raise ArtifactNetError(f"{out}: cannot be written: {error}") from error
    sizes = out.stat().st_size, file.stat().st_size
    return Packed(out, *sizes, len(asked), probability, heatmap)


def _check(file: Path, out: Path, overwrite: bool) -> None:
    """Refuse names that cannot be written to."""
    if out.suffix != SUFFIX:
        raise ArtifactNetError(f"{out}: a packed model's name must end in {SUFFIX}")
    if out.exists() and out.samefile(file):
        raise ArtifactNetError(f"{out}: is the original, which packing must not replace")
    if out.exists() and not overwrite:
        raise ArtifactNetError(f"{out}: exists already; overwrite replaces it")


def _read_card(path: Path) -> str:
    try:
        words = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ArtifactNetError(f"{path}: the model card cannot be read: {error}") from error
    if not words.strip():
        raise ArtifactNetError(f"{path}: the model card is empty")
    return words


def _noise(height: int, width: int) -> list[str | Path | Source]:
    """Images that never repeat, always the same ones."""
    rng = np.random.default_rng(0)
    sources: list[str | Path | Source] = []
    for number in range(_NOISE_IMAGES):
        buffer = BytesIO()
        pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(buffer, format="PNG")
        sources.append(Source(f"noise {number}", buffer.getvalue()))
    return sources


def _differences(
    original: Predictor, packed: Predictor, images: Sequence[str | Path | Source]
) -> tuple[float, float | None]:
    """Largest difference of probabilities, and of heatmaps where there are any."""
    probabilities: list[float] = []
    heatmaps: list[float] = []
    pairs = zip(original.predict_stream(images), packed.predict_stream(images), strict=True)
    for before, after in pairs:
        one, other = _usable(before), _usable(after)
        probabilities.append(abs(one.probability - other.probability))
        if one.heatmap is not None and other.heatmap is not None:
            heatmaps.append(float(np.abs(one.heatmap - other.heatmap).max()))
    # numpy's maximum, since Python's loses a NaN
    return float(np.max(probabilities)), float(np.max(heatmaps)) if heatmaps else None


def _usable(answer: Prediction | Failure) -> Prediction:
    if isinstance(answer, Failure):
        raise ArtifactNetError(f"{answer.path}: {answer.reason}")
    return answer


def _refuse(out: Path, probability: float, heatmap: float | None) -> None:
    found = {"probability": (probability, PROBABILITY_LIMIT)}
    if heatmap is not None:
        found["heatmap"] = (heatmap, HEATMAP_LIMIT)
    wrong = [
        f"{name} by {value:.2g} (limit {limit:g})"
        for name, (value, limit) in found.items()
        if not value <= limit  # also for NaN
    ]
    if wrong:
        raise ArtifactNetError(
            f"{out}: not written, since in half precision the answers differ: {', '.join(wrong)}; "
            "keep the original"
        )


def _sha256(file: Path) -> str:
    hasher = hashlib.sha256()
    with open(file, "rb") as handle:
        while chunk := handle.read(_CHUNK):
            hasher.update(chunk)
    return hasher.hexdigest()
