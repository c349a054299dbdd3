"""RichHF-18K (Liang et al. 2024): TFRecords of scores and heatmaps of Pick-a-Pic v1 images.

Scores are in [0, 1], higher is better: a high ``artifact_score`` means few artifacts, so it is our
plausibility. The images are not in the records; they are joined by file stem.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from artifactnet.data.converters.common import Conversion, ManifestWriter
from artifactnet.data.converters.tfrecord import Feature, decode_example, read_tfrecord
from artifactnet.data.folder_names import split_of
from artifactnet.data.heatmaps import read_gray
from artifactnet.data.image_folders import ImageFolder
from artifactnet.data.manifest_format import ManifestLine
from artifactnet.files import write_json
from artifactnet.types import Annotation, ArtifactNetError

SCORES = ("artifact_score", "misalignment_score", "aesthetics_score", "overall_score")
FILES = ("train", "dev", "test")  # stems
SUFFIX = ".tfrecord"


@dataclass(frozen=True, slots=True)
class RichHFRecord:
    """One record; its maps (image files of one channel, 255 = wrong) are not decoded yet.

    Attributes:
        filename: of the Pick-a-Pic image, as the record gives it.
        scores: the four `SCORES`, each in [0, 1], higher is better.
        artifact_map: 255 = implausible.
        misalignment_map: 255 = contradicts the prompt.
        token_labels: one ``0`` (misaligned) or ``1`` per token of the prompt.
        where: ``FILE: record 3 at byte 1024``.
    """

    filename: str
    scores: dict[str, float]
    artifact_map: bytes
    misalignment_map: bytes
    token_labels: str
    where: str


def read_richhf(path: str | Path) -> Iterator[RichHFRecord]:
    """Records of one TFRecord file, lazily.

    Raises:
        ArtifactNetError: the file is damaged, a feature is missing or of another type, or a score
            is outside [0, 1]; the message names file, record and byte offset.
    """
    for where, data in read_tfrecord(path):
        features = decode_example(data, where)
        yield RichHFRecord(
            filename=_text(features, "filename", where),
            scores={name: _score(features, name, where) for name in SCORES},
            artifact_map=_single(features, "artifact_map", bytes, where),
            misalignment_map=_single(features, "misalignment_map", bytes, where),
            token_labels=_text(features, "prompt_misalignment_label", where),
            where=where,
        )


def convert_richhf(
    source: Path,
    images: Path,
    out: Path,
    *,
    name: str = "richhf",
    generator: str = "pickapic",
    overwrite: bool = False,
) -> Conversion:
    """Make a manifest of RichHF-18K: ``train``, ``dev``, ``test.tfrecord`` or one such file.

    ``artifact_map`` becomes the heatmap (an all-zero one: annotated and clean) and
    ``artifact_score`` the score; ``dev`` is our ``val``. Annotations of the prompt, and the other
    scores, go to ``NAME.prompt.json`` by uid, and misalignment maps that are not empty to
    ``misalignment/NAME``. Left out, counted and listed are: records without image, unreadable
    images, file names that occurred before, and images whose aspect ratio differs from their map's
    (`artifactnet.data.heatmaps.same_aspect`), since the data do not say how it was fitted.
    Arguments: see `convert_dataset`.

    Raises:
        ArtifactNetError: see `read_richhf` and `ManifestWriter`; or nothing can be used.
    """
    files = [source / f"{split}{SUFFIX}" for split in FILES] if source.is_dir() else [source]
    files = [path for path in files if path.is_file()]
    if not files:
        names = ", ".join(f"{split}{SUFFIX}" for split in FILES)
        raise ArtifactNetError(f"{source}: no such file, nor a folder with any of {names}")
    writer = ManifestWriter(out, name, overwrite, inputs=[images], generator=generator)
    folder = ImageFolder(images)
    prompts: dict[str, dict[str, Any]] = {}
    for file in files:
        for record in read_richhf(file):
            uid = PurePosixPath(record.filename).stem
            if uid in prompts:
                writer.leave_out("file names occur more than once", record.where)
                continue
            path, size = writer.find(folder, record.filename, record.filename)
            if path is None:
                continue
            split, score = split_of(file.stem), record.scores["artifact_score"]
            line = ManifestLine(path, uid, 1, Annotation.CLEAN, split, generator, score=score)
            heatmap = read_gray(record.artifact_map, f"{record.where}: artifact_map")
            if not writer.add(line, folder.key(path), size=size, heatmap=heatmap):
                continue
            name_of_map = f"{record.where}: misalignment_map"
            misaligned = read_gray(record.misalignment_map, name_of_map)
            stored = None
            if misaligned.any():
                stored = Path(writer.store("misalignment", folder.key(path), misaligned, path))
            prompts[uid] = {
                **{key: value for key, value in record.scores.items() if key != "artifact_score"},
                "prompt_misalignment_label": record.token_labels,
                "misalignment_map": None if stored is None else stored.relative_to(out).as_posix(),
            }
    if prompts:
        write_json(out / f"{name}.prompt.json", prompts)
    return writer.finish(source, folder.skipped.describe(images))


def _single(features: dict[str, Feature], name: str, kind: type, where: str) -> Any:
    values = features.get(name)
    if values is None:
        raise ArtifactNetError(f"{where}: feature {name!r} is missing; is this RichHF-18K?")
    if len(values) != 1 or not isinstance(values[0], kind):
        given = f"{len(values)} of {type(values[0]).__name__}" if values else "none"
        raise ArtifactNetError(f"{where}: {name!r} must be one value of {kind.__name__}: {given}")
    return values[0]


def _text(features: dict[str, Feature], name: str, where: str) -> str:
    raw: bytes = _single(features, name, bytes, where)
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise ArtifactNetError(f"{where}: {name!r} is not UTF-8 text: {raw[:40]!r}") from None


def _score(features: dict[str, Feature], name: str, where: str) -> float:
    value: float = _single(features, name, float, where)
    if not 0 <= value <= 1:
        raise ArtifactNetError(f"{where}: {name!r} must be from 0 to 1, not {value!r}")
    return value
