"""One file of a teacher's answers: a few hundred images, as safetensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from artifactnet.files import atomic_path
from artifactnet.types import ArtifactNetError, Float32Array, TeacherAnswer

FORMAT = "artifactnet-answers-2"
ID_BYTES = 16  # of a key and of a stamp
NO_STAMP = bytes(ID_BYTES)
REMEDY = "delete this file and start again: its images will be labelled anew, the others are kept"
_SCALARS = ("scores", "logits")
_FEATURES = "features"  # (n, C); C is 0 of a teacher without
_MAPS = ("heatmaps", "sigmas")
_HALF = np.finfo(np.float16)


@dataclass(slots=True)
class Row:
    """The answer about one image.

    Attributes:
        key: of the image's pixels, 16 bytes.
        stamp: of the file it came from, 16 bytes; `NO_STAMP` where it came from none.
        answer: its maps are (h, w), of the size they are stored at.
    """

    key: bytes
    stamp: bytes
    answer: TeacherAnswer


def write_shard(path: Path, teacher: str, rows: Sequence[Row]) -> None:
    """Write answers to one file, atomically.

    Maps become float16: an error of at most 0.0005 in the heatmap and of 0.05 % in sigma, which
    is kept within float16's range. So do features, within its range likewise. Score and logit
    are float32.

    Args:
        path: the ``.safetensors`` file to write.
        teacher: fingerprint of the teacher whose answers they are.
        rows: one per image, at least one.

    Raises:
        ArtifactNetError: the disk refused; nothing is left behind.
    """
    answers = [row.answer for row in rows]
    sigmas = [np.clip(a.sigma, _HALF.tiny, _HALF.max).ravel() for a in answers]
    tensors: dict[str, npt.NDArray[Any]] = {
        "keys": _ids(row.key for row in rows),
        "stamps": _ids(row.stamp for row in rows),
        "sizes": np.array([a.heatmap.shape for a in answers], np.int32),
        "heatmaps": np.concatenate([a.heatmap.ravel() for a in answers]).astype(np.float16),
        "sigmas": np.concatenate(sigmas).astype(np.float16),
        "scores": np.array([a.score for a in answers], np.float32),
        "logits": np.array([a.logit for a in answers], np.float32),
        _FEATURES: _features(answers),
    }
    content = save(tensors, metadata={"format": FORMAT, "teacher": teacher})
    try:
        with atomic_path(path) as temporary:
            temporary.write_bytes(content)
    except OSError as error:
        raise ArtifactNetError(
            f"{path}: the teacher's answers cannot be written: {error.strerror}; what was written "
            "before is kept: make room or choose another distill.cache, then start again"
        ) from error


def _features(answers: Sequence[TeacherAnswer]) -> npt.NDArray[np.float16]:
    """(n, C), where C is 0 if the teacher has none."""
    found = [a.feature for a in answers if a.feature is not None]
    if not found:
        return np.zeros((len(answers), 0), np.float16)
    if len(found) < len(answers) or len({len(feature) for feature in found}) > 1:
        raise ArtifactNetError(
            "the teacher's features have unequal lengths, or some answers have none: it must give "
            "equally many numbers for every image"
        )
    return np.clip(np.stack(found), -_HALF.max, _HALF.max).astype(np.float16)


def _ids(values: Any) -> npt.NDArray[np.uint8]:
    """(n, 16) from n times 16 bytes."""
    return np.frombuffer(b"".join(values), np.uint8).reshape(-1, ID_BYTES)


class Shard:
    """A finished file of answers, open for reading; maps are read row by row.

    Args:
        path: of the file.
        teacher: fingerprint that it must carry.

    Attributes:
        keys: (n,) of 16 bytes each.
        stamps: (n,) likewise.

    Raises:
        ArtifactNetError: the file is missing, broken, from another teacher, or not of this kind.
    """

    def __init__(self, path: Path, teacher: str) -> None:
        self._path = path
        try:
            self._file: Any = safe_open(path, framework="np")
            metadata = self._file.metadata() or {}
            self._tensors = set(self._file.keys())
        except FileNotFoundError:
            raise ArtifactNetError(
                f"{path}: vanished while its answers were in use; start again to label its images"
            ) from None
        except (SafetensorError, OSError) as error:
            raise self._broken(str(error)) from error
        if metadata.get("format") != FORMAT:
            raise self._broken(f"format {metadata.get('format')!r} instead of {FORMAT!r}")
        if metadata.get("teacher") != teacher:
            raise ArtifactNetError(
                f"{path}: answers of another teacher ({metadata.get('teacher')}) in the folder of "
                f"{teacher}; move the file to {metadata.get('teacher')}/, or delete it"
            )
        missing = {"keys", "stamps", "sizes", _FEATURES, *_SCALARS, *_MAPS} - self._tensors
        if missing:
            raise self._broken(f"no {', '.join(sorted(missing))} in it")
        self._sizes = self._read("sizes")
        if self._sizes.ndim != 2 or self._sizes.shape[1] != 2 or (self._sizes < 1).any():
            raise self._broken("sizes are not rows of two sides, 1 pixel or more")
        self._starts = np.concatenate([[0], np.cumsum(self._sizes.astype(np.int64).prod(1))])
        self._check()
        # S16 compares like the bytes themselves: all are equally long
        self.keys = self._read("keys").view(f"S{ID_BYTES}")[:, 0]
        self.stamps = self._read("stamps").view(f"S{ID_BYTES}")[:, 0]

    def read(self, row: int) -> TeacherAnswer:
        """Answer of a row; its maps are (h, w) float32, of the size they are stored at.

        Raises:
            ArtifactNetError: a value is out of range, so the file is damaged.
        """
        place = slice(int(self._starts[row]), int(self._starts[row + 1]))
        heatmap, sigma = (self._read(name, place) for name in _MAPS)
        if not (heatmap.min() >= 0 and heatmap.max() <= 1 and sigma.min() > 0):
            raise self._broken(f"row {row} holds a heatmap outside 0..1 or a sigma not above 0")
        size = tuple(self._sizes[row])
        score, logit = (float(self._read(name, slice(row, row + 1))[0]) for name in _SCALARS)
        feature = self._read(_FEATURES, slice(row, row + 1))[0].astype(np.float32)
        if not np.isfinite(feature).all():
            raise self._broken(f"row {row} holds a feature that is not a number")
        maps = _map(heatmap, size), _map(sigma, size)
        return TeacherAnswer(*maps, score, logit, feature if len(feature) else None)

    def _read(self, name: str, place: slice | None = None) -> npt.NDArray[Any]:
        try:
            if place is None:
                whole: npt.NDArray[Any] = self._file.get_tensor(name)
                return whole
            part: npt.NDArray[Any] = self._file.get_slice(name)[place]
            return part
        except (SafetensorError, OSError) as error:
            raise self._broken(str(error)) from error

    def _check(self) -> None:
        """Refuse tensors that do not go together."""
        count, total = len(self._sizes), int(self._starts[-1])
        wanted = {"keys": [count, ID_BYTES], "stamps": [count, ID_BYTES]}
        wanted |= {name: [count] for name in _SCALARS} | {name: [total] for name in _MAPS}
        features = list(self._file.get_slice(_FEATURES).get_shape())
        wanted[_FEATURES] = [count, features[-1] if len(features) == 2 else -1]  # any number
        for name, shape in wanted.items():
            found = list(self._file.get_slice(name).get_shape())
            if found != shape:
                raise self._broken(f"{name} has shape {found} instead of {shape}")

    def _broken(self, why: str) -> ArtifactNetError:
        return ArtifactNetError(f"{self._path}: broken file of answers ({why}); {REMEDY}")


def _map(values: npt.NDArray[Any], size: tuple[Any, ...]) -> Float32Array:
    return values.astype(np.float32).reshape(size)
