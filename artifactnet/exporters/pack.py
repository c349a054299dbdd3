"""A saved model in half the space, written only if it answers as before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from artifactnet import __version__
from artifactnet.files import atomic_path, sha256_file, write_text
from artifactnet.inference.inputs import Failure, ImageInput
from artifactnet.inference.load import find_weights, load_model
from artifactnet.inference.predictor import Predictor
from artifactnet.models.artifact_net import ArtifactNet
from artifactnet.models.checkpoint import save_checkpoint
from artifactnet.models.metadata import read_metadata
from artifactnet.types import ArtifactNetError, Prediction

SUFFIX = ".safetensors"

# a packed model may differ by this much from its original; by a share in sigma, which spans decades
LIMITS = {"probability": 0.01, "heatmap": 0.02, "sigma": 0.1, "score": 0.01}
_NOISE_IMAGES = 8


@dataclass(frozen=True, slots=True)
class Packed:
    """A packed model that was checked and written.

    Attributes:
        path: the file.
        size: its bytes.
        original_size: the original's bytes.
        images: number of images that both were asked about.
        differences: the largest of each of `LIMITS` that the model answers; of maps that of any
            pixel, of sigma as a share of the original's.
    """

    path: Path
    size: int
    original_size: int
    images: int
    differences: dict[str, float]


def pack_model(
    source: str | Path,
    out: str | Path,
    images: Sequence[str | Path | ImageInput] = (),
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
            `LIMITS`. Nothing is written then.
    """
    out = Path(out)
    file = find_weights(source)
    words = None if card is None else _read_card(Path(card))
    beside = out.with_suffix(".md")
    _check(file, out, overwrite)
    if card is not None and beside.exists() and not (overwrite or beside.samefile(card)):
        raise ArtifactNetError(f"{beside}: exists already; overwrite replaces it")
    original = load_model(file, device="cpu")
    extra = read_metadata(file)["extra"]
    extra["packed"] = {
        "artifactnet": __version__,
        "original_sha256": sha256_file(file),
        "trained_on": trained_on,
    }
    assert isinstance(original.model, ArtifactNet)  # it was loaded from weights
    asked = list(images) or _noise(*original.model.image_size)
    try:
        with atomic_path(out) as temporary:
            save_checkpoint(original.model, temporary, extra, half=True)
            differences = _differences(original, load_model(temporary, device="cpu"), asked)
            _refuse(out, differences)
        if words is not None:
            write_text(beside, words)
    except OSError as error:
        raise ArtifactNetError(f"{out}: cannot be written: {error}") from error
    sizes = out.stat().st_size, file.stat().st_size
    return Packed(out, *sizes, len(asked), differences)


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


def _noise(height: int, width: int) -> list[str | Path | ImageInput]:
    """Images that never repeat, always the same ones."""
    rng = np.random.default_rng(0)
    sources: list[str | Path | ImageInput] = []
    for number in range(_NOISE_IMAGES):
        buffer = BytesIO()
        pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(buffer, format="PNG")
        sources.append(ImageInput(f"noise {number}", buffer.getvalue()))
    return sources


def _differences(
    original: Predictor, packed: Predictor, images: Sequence[str | Path | ImageInput]
) -> dict[str, float]:
    """Largest distance of each part of the answers."""
    found: dict[str, list[float]] = {}
    pairs = zip(original.predict_stream(images), packed.predict_stream(images), strict=True)
    for before, after in pairs:
        for name, distance in _distances(_usable(before), _usable(after)).items():
            found.setdefault(name, []).append(distance)
    # numpy's maximum, since Python's loses a NaN
    return {name: float(np.max(distances)) for name, distances in found.items()}


def _distances(one: Prediction, other: Prediction) -> dict[str, float]:
    """How far two answers about one image are apart; not finite where either is not."""
    found = {"probability": abs(one.probability - other.probability)}
    if one.heatmap is not None and other.heatmap is not None:
        found["heatmap"] = float(np.abs(one.heatmap - other.heatmap).max())
    if one.sigma is not None and other.sigma is not None:
        found["sigma"] = float((np.abs(one.sigma - other.sigma) / one.sigma).max())
    if one.score is not None and other.score is not None:
        found["score"] = abs(one.score - other.score)
    return found


def _usable(answer: Prediction | Failure) -> Prediction:
    if isinstance(answer, Failure):
        raise ArtifactNetError(f"{answer.path}: {answer.reason}")
    return answer


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
