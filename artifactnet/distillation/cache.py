"""Pseudo-labels of a teacher on disk: each image is labelled once, any number of processes read.

CACHE/FINGERPRINT/
  teacher.json                     which teacher this is
  answers-WRITER-NUMBER.safetensors  a few hundred images each, never changed once written
"""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from artifactnet.data.geometry import resample
from artifactnet.files import atomic_path, write_json
from artifactnet.types import ArtifactNetError, TeacherAnswer, UInt8Array

FORMAT = "artifactnet-answers-2"
TEACHER = "teacher.json"
PER_SHARD = 256  # images
PATIENCE = 300.0  # seconds after which a smaller shard is written: a slow teacher's work is costly
ID_BYTES = 16  # of a key and of a stamp
NO_STAMP = bytes(ID_BYTES)
Identity = Mapping[str, str | int]  # JSON-ready; two teachers are one where these are equal

_SHARDS = "answers-*.safetensors"
_FEATURES = "features"  # (n, C); C is 0 of a teacher without
_SCALARS = ("scores", "logits")
_MAPS = ("heatmaps", "sigmas")
_HALF = np.finfo(np.float16)
_OPEN = 16  # shards open at once
_ABANDONED = 3600.0  # seconds after which nobody is still writing a temporary file
_REMEDY = "delete this file and start again: its images will be labelled anew, the others are kept"


def image_key(image: UInt8Array) -> bytes:
    """16 bytes that identify an image's pixels (H, W, 3 uint8), whatever its file is called."""
    hasher = blake2b(repr(image.shape).encode(), digest_size=ID_BYTES)
    hasher.update(np.ascontiguousarray(image).data)
    return hasher.digest()


def fingerprint(identity: Identity) -> str:
    """32 hexadecimal digits that identify a teacher."""
    text = json.dumps(dict(identity), sort_keys=True)
    return blake2b(text.encode(), digest_size=ID_BYTES).hexdigest()


def shrink_maps(answer: TeacherAnswer, side: int) -> TeacherAnswer:
    """The answer with maps whose longer side is at most ``side`` pixels: averaged, never enlarged.

    The aspect ratio is kept to within the rounding of a side.
    """
    height, width = answer.heatmap.shape
    scale = min(1.0, side / max(height, width))
    return resize_maps(answer, (max(1, round(height * scale)), max(1, round(width * scale))))


def resize_maps(answer: TeacherAnswer, size: tuple[int, int]) -> TeacherAnswer:
    """The answer with maps of ``size`` (height, width): averaged or interpolated linearly."""
    heatmap, sigma = resample(answer.heatmap, size), resample(answer.sigma, size)
    return replace(answer, heatmap=np.clip(heatmap, 0.0, 1.0), sigma=sigma)


@dataclass(slots=True)
class Row:
    """The pseudo-label of one image.

    Attributes:
        key: of the image's pixels, 16 bytes.
        stamp: of the file it came from, 16 bytes; `NO_STAMP` where it came from none.
        answer: its maps are (h, w), of the size they are stored at.
    """

    key: bytes
    stamp: bytes
    answer: TeacherAnswer


def write_shard(path: Path, teacher: str, rows: Sequence[Row]) -> None:
    """Write pseudo-labels, at least one, to one file, atomically.

    Maps become float16: an error of at most 0.0005 in the heatmap and of 0.05 % in sigma, which
    is kept within float16's range, as are features. Score and logit are float32.

    Raises:
        ArtifactNetError: features of unequal lengths, or the file cannot be written; no part of
            it stays.
    """
    answers = [row.answer for row in rows]
    features = [a.feature for a in answers if a.feature is not None]
    if len(features) not in (0, len(answers)) or len({len(feature) for feature in features}) > 1:
        raise ArtifactNetError(
            "the teacher's features have unequal lengths, or some answers have none: it must give "
            "equally many numbers for every image"
        )
    stacked = np.stack(features) if features else np.zeros((len(answers), 0))
    sigmas = [np.clip(a.sigma, _HALF.tiny, _HALF.max).ravel() for a in answers]
    tensors: dict[str, npt.NDArray[Any]] = {
        "keys": _ids(row.key for row in rows),
        "stamps": _ids(row.stamp for row in rows),
        "sizes": np.array([a.heatmap.shape for a in answers], np.int32),
        "heatmaps": np.concatenate([a.heatmap.ravel() for a in answers]).astype(np.float16),
        "sigmas": np.concatenate(sigmas).astype(np.float16),
        "scores": np.array([a.score for a in answers], np.float32),
        "logits": np.array([a.logit for a in answers], np.float32),
        _FEATURES: np.clip(stacked, -_HALF.max, _HALF.max).astype(np.float16),
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


def _ids(values: Iterable[bytes]) -> npt.NDArray[np.uint8]:
    """(n, 16) from n times 16 bytes."""
    return np.frombuffer(b"".join(values), np.uint8).reshape(-1, ID_BYTES)


class Shard:
    """A finished file of pseudo-labels, open for reading; maps are read row by row.

    Attributes:
        keys, stamps: (n,) of 16 bytes each.

    Raises:
        ArtifactNetError: the file is missing, broken, from another teacher than the one whose
            fingerprint is given, or not of this kind.
    """

    def __init__(self, path: Path, teacher: str) -> None:
        self._path = path
        try:
            self._file: Any = safe_open(path, framework="np")
            metadata = self._file.metadata() or {}
            tensors = set(self._file.keys())
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
        missing = {"keys", "stamps", "sizes", _FEATURES, *_SCALARS, *_MAPS} - tensors
        if missing:
            raise self._broken(f"no {', '.join(sorted(missing))} in it")
        self._sizes = self._read("sizes")
        if self._sizes.ndim != 2 or self._sizes.shape[1] != 2 or (self._sizes < 1).any():
            raise self._broken("sizes are not rows of two sides, 1 pixel or more")
        self._starts = np.concatenate([[0], np.cumsum(self._sizes.astype(np.int64).prod(1))])
        self._check_shapes()
        # S16 compares like the bytes themselves: all are equally long
        self.keys = self._read("keys").view(f"S{ID_BYTES}")[:, 0]
        self.stamps = self._read("stamps").view(f"S{ID_BYTES}")[:, 0]

    def read(self, row: int) -> TeacherAnswer:
        """The pseudo-label of a row; its maps are (h, w) float32, of the size they are stored at.

        Raises:
            ArtifactNetError: a value is out of range, so the file is damaged.
        """
        place = slice(int(self._starts[row]), int(self._starts[row + 1]))
        size = tuple(self._sizes[row])
        heatmap, sigma = (self._read(n, place).astype(np.float32).reshape(size) for n in _MAPS)
        if not (heatmap.min() >= 0 and heatmap.max() <= 1 and sigma.min() > 0):
            raise self._broken(f"row {row} holds a heatmap outside 0..1 or a sigma not above 0")
        score, logit = (float(self._read(name, slice(row, row + 1))[0]) for name in _SCALARS)
        feature = self._read(_FEATURES, slice(row, row + 1))[0].astype(np.float32)
        if not np.isfinite(feature).all():
            raise self._broken(f"row {row} holds a feature that is not a number")
        return TeacherAnswer(heatmap, sigma, score, logit, feature if len(feature) else None)

    def _read(self, name: str, place: slice | None = None) -> npt.NDArray[Any]:
        try:
            whole = place is None
            tensor = self._file.get_tensor(name) if whole else self._file.get_slice(name)[place]
        except (SafetensorError, OSError) as error:
            raise self._broken(str(error)) from error
        return np.asarray(tensor)

    def _check_shapes(self) -> None:
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
        return ArtifactNetError(f"{self._path}: broken file of answers ({why}); {_REMEDY}")


class TeacherCache:
    """The pseudo-labels of one teacher.

    Safe with several processes: each writes files of its own, and none touches another's.
    It can be pickled or forked into the workers of a loader.

    Args:
        root: folder of the pseudo-labels of all teachers; made if missing.
        identity: of the teacher; its fingerprint is the name of ``folder``.
        about: what else people should know about it; JSON-ready.

    Attributes:
        keys: sorted keys of the labelled images, 16 bytes each.

    Raises:
        ArtifactNetError: the folder belongs to another teacher, cannot be written, or holds a
            broken file; the message says what to do.
    """

    def __init__(self, root: Path, identity: Identity, about: Mapping[str, Any]) -> None:
        if (root / TEACHER).is_file():
            raise ArtifactNetError(
                f"distill.cache={root}: this is the folder of one teacher's answers; name the "
                f"folder above it, {root.resolve().parent}"
            )
        self.teacher = fingerprint(identity)
        self.folder = root / self.teacher
        self._write_identity(identity, about)
        for leftover in self.folder.glob(".*.tmp"):  # of killed processes; a fresh one is in use
            try:
                if time.time() - leftover.stat().st_mtime > _ABANDONED:
                    leftover.unlink()
            except FileNotFoundError:
                continue  # its writer has just renamed it
        self.refresh()

    def refresh(self) -> None:
        """Look up what is on disk now; `ArtifactNetError` for a broken or foreign file."""
        self._open: dict[int, Shard] = {}
        self._pid = os.getpid()
        self._paths = sorted(self.folder.glob(_SHARDS))
        keys, stamps, places = [], [], []
        for number, path in enumerate(self._paths):
            shard = Shard(path, self.teacher)
            keys.append(shard.keys)
            stamps.append(shard.stamps)
            rows = np.arange(len(shard.keys), dtype=np.int32)
            places.append(np.stack([np.full_like(rows, number), rows], 1))
        none = np.zeros(0, f"S{ID_BYTES}")
        # of an image that two processes labelled at once the first label counts
        self.keys, first = np.unique(np.concatenate([none, *keys]), return_index=True)
        self._places = np.concatenate([np.zeros((0, 2), np.int32), *places])[first]
        self._stamps = np.concatenate([none, *stamps])

    def __len__(self) -> int:
        """Number of labelled images."""
        return len(self.keys)

    def known(self) -> tuple[set[bytes], set[bytes]]:
        """Keys of the labelled images, and stamps of their files."""
        return _padded(self.keys), _padded(self._stamps) - {NO_STAMP}

    def read(self, key: bytes) -> TeacherAnswer | None:
        """The pseudo-label of an image, at the size it is stored at; None if it has none."""
        at = int(np.searchsorted(self.keys, np.array(key, f"S{ID_BYTES}")))
        if at == len(self.keys) or bytes(self.keys[at]).ljust(ID_BYTES, b"\0") != key:
            return None
        number, row = (int(value) for value in self._places[at])
        return self._shard(number).read(row)

    def _shard(self, number: int) -> Shard:
        if self._pid != os.getpid():  # a fork: each process has handles of its own
            self._open, self._pid = {}, os.getpid()
        shard = self._open.pop(number, None)
        if shard is None:
            shard = Shard(self._paths[number], self.teacher)
            if len(self._open) >= _OPEN:
                del self._open[next(iter(self._open))]
        self._open[number] = shard  # the last one used is the last to go
        return shard

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": {}}

    def _write_identity(self, identity: Identity, about: Mapping[str, Any]) -> None:
        """Record who the teacher is, or check that the folder was made for the same one."""
        path = self.folder / TEACHER
        try:
            recorded = json.loads(path.read_text(encoding="utf-8"))["identity"]
        except FileNotFoundError:
            try:
                write_json(path, {"identity": dict(identity), "about": dict(about)})
            except OSError as error:
                raise ArtifactNetError(
                    f"{path}: cannot be written ({error.strerror}); set distill.cache to a folder "
                    "that can"
                ) from error
            return
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ArtifactNetError(
                f"{path}: cannot be read ({str(error).splitlines()[0]}); delete it if the answers "
                "beside it are of this teacher, else the folder"
            ) from error
        if recorded != dict(identity):
            raise ArtifactNetError(
                f"{path}: the answers beside it are of another teacher ({recorded}), not of "
                f"{dict(identity)}; set distill.cache to another folder"
            )


class CacheWriter:
    """Adds pseudo-labels to a cache; full shards are written at once, the rest on closing.

    Args:
        cache: of the teacher.
        side: longer side of a stored map, pixels.
        per_shard: images per file, fewer if they take longer than `PATIENCE`; at most so many
            are lost when the process is killed.
    """

    def __init__(self, cache: TeacherCache, side: int, per_shard: int = PER_SHARD) -> None:
        self._folder, self._teacher = cache.folder, cache.teacher
        self._side, self._per_shard = side, per_shard
        self._name = uuid.uuid4().hex[:12]  # of this writer alone: no two write the same file
        self._written = 0
        self._rows: list[Row] = []
        self._flushed = time.monotonic()

    def add(self, key: bytes, stamp: bytes, answer: TeacherAnswer) -> None:
        """Keep the pseudo-label of an image, see `Row`; errors as of `write_shard`."""
        self._rows.append(Row(key, stamp, shrink_maps(answer, self._side)))
        late = time.monotonic() - self._flushed > PATIENCE
        if late or len(self._rows) >= self._per_shard:
            self.flush()

    def flush(self) -> None:
        """Write what has been added; errors as of `write_shard`."""
        if self._rows:
            name = f"answers-{self._name}-{self._written:05d}.safetensors"
            write_shard(self._folder / name, self._teacher, self._rows)
            self._written += 1
            self._rows = []
        self._flushed = time.monotonic()

    def __enter__(self) -> CacheWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.flush()  # also after Ctrl-C or a bad image: what was labelled is kept


def _padded(ids: Any) -> set[bytes]:
    """Numpy drops trailing zero bytes of what it hands out."""
    return {bytes(value).ljust(ID_BYTES, b"\0") for value in ids}
