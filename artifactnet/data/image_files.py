"""Which files of a folder are images: by content, wherever images are looked for.

An image is a file whose first bytes are those of a raster format that Pillow decodes; its name does
not matter. Names that start with a dot are hidden. Links to files and folders are followed, and
whatever they lead to is listed once. Everything else is skipped, counted by reason.
"""

from __future__ import annotations

import os
import stat
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image, features

from artifactnet.types import ArtifactNetError

HEAD = 64  # bytes read of each file
_NAMED = 3  # files named per reason

# Files named like this are meant as images: predictions name each one that is none.
SUFFIXES = frozenset(
    (
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".gif", ".bmp"),
        *(".dib", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".j2k", ".jpf", ".jpx"),
        *(".j2c", ".jpc", ".avif", ".heic", ".heif", ".jxl", ".tga"),
    )
)
_SIGNATURES = (
    (b"\xff\xd8\xff", "JPEG"),  # MPO and JFIF too
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),  # BigTIFF
    (b"MM\0+", "TIFF"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG2000"),
    (b"\xff\x4f\xff\x51", "JPEG2000"),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "JXL"),
    (b"\xff\x0a", "JXL"),
    (b"8BPS\0\x01", "PSD"),
    (b"DDS ", "DDS"),
    (b"qoif", "QOI"),
    (b"icns", "ICNS"),
    (b"\x59\xa6\x6a\x95", "SUN"),
)
_BITMAP_HEADERS = (12, 40, 52, 56, 64, 108, 124)  # sizes of a BMP's second header
_BITMAP_DEPTHS = (b"\1\0", b"\4\0", b"\x08\0", b"\x10\0", b"\x18\0", b"\x20\0")
_AVIF = (b"avif", b"avis")
_HEIF = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs")
_EITHER = (b"mif1", b"msf1")  # the brands that follow say which
_VIDEOS = (b"\x1aE\xdf\xa3", b"\0\0\x01\xba", b"\0\0\x01\xb3", b"FLV\x01", b"OggS", b"0&\xb2u")
_ARCHIVES = (b"PK\x03\x04", b"\x1f\x8b", b"7z\xbc\xaf", b"Rar!", b"BZh", b"\xfd7zXZ")
_PLUGIN = ("HEIF", "JXL")  # Pillow reads them where a plug-in has been registered

EMPTY, TEXT, VIDEO, HIDDEN = "empty", "text", "video", "hidden"
BROKEN_LINK, LISTED_ALREADY = "broken link", "link to what is listed already"
SHARD, ARCHIVE, SPECIAL = "parquet file (name it to read its rows)", "archive", "not a file"
OTHER = "not an image by content"


@dataclass(slots=True)
class Skipped:
    """Files that were not taken: how many for which reason, and the first few names of each."""

    counts: Counter[str] = field(default_factory=Counter)
    names: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def add(self, reason: str, path: str) -> None:
        """Count a file."""
        self.counts[reason] += 1
        if len(self.names[reason]) < _NAMED:
            self.names[reason].append(path)

    def lines(self) -> list[str]:
        """``COUNT REASON: NAMES``, the most frequent reason first."""
        return [
            f"{count} {reason}: {', '.join(self.names[reason])}"
            + (", ..." if count > _NAMED else "")
            for reason, count in self.counts.most_common()
        ]

    def describe(self, where: str | Path) -> list[str]:
        """One warning about the files below ``where``; none if all were taken."""
        if not self.counts:
            return []
        total = sum(self.counts.values())
        files = "1 file was" if total == 1 else f"{total} files were"
        return [f"{where}: {files} skipped: {'; '.join(self.lines())}"]

    def to_json(self) -> dict[str, Any]:
        """reason -> ``{"files": count, "first": [path]}``."""
        return {
            reason: {"files": count, "first": list(self.names[reason])}
            for reason, count in self.counts.most_common()
        }


@dataclass(frozen=True, slots=True)
class Entry:
    """A file: its path below the folder, its path, and why it is no image (None: it is one)."""

    name: str
    path: str
    reason: str | None

    @property
    def claims(self) -> bool:
        """Whether it has the name of an image."""
        return os.path.splitext(self.name)[1].lower() in SUFFIXES

    @property
    def complaint(self) -> str:
        """The reason as a message about this file."""
        reason = str(self.reason)
        whole = reason == OTHER or reason.startswith("cannot")
        return reason if whole else f"not an image: {reason}"


def image_format(head: bytes) -> str | None:
    """Format of an image file by its first `HEAD` bytes, as Pillow names it; None if no image."""
    for signature, name in _SIGNATURES:
        if head.startswith(signature):
            return name
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head[:2] == b"BM" and int.from_bytes(head[14:18], "little") in _BITMAP_HEADERS:
        return "BMP"
    if int.from_bytes(head[:4], "little") in _BITMAP_HEADERS[1:] and head[12:14] == b"\1\0":
        return "DIB" if head[14:16] in _BITMAP_DEPTHS else None  # a BMP without its first header
    if head[:1] == b"P" and head[1:2] in b"1234567fF" and head[2:3].isspace():
        return "PPM" if (head[3:].split(maxsplit=1) or [b"x"])[0][:1] in b"0123456789#" else None
    if head[4:8] == b"ftyp":
        brands = [head[8:12], *(head[k : k + 4] for k in range(16, len(head), 4))]
        if brands[0] in _AVIF or (brands[0] in _EITHER and any(b in _AVIF for b in brands)):
            return "AVIF"
        return "HEIF" if brands[0] in (*_HEIF, *_EITHER) else None
    if head[:4] == b"\0\0\1\0" and head[4:6] != b"\0\0" and head[9:10] == b"\0":
        return "ICO"
    if head[:2] == b"\x01\xda" and head[2:4] in (b"\0\1", b"\0\2", b"\1\1", b"\1\2"):
        return "SGI"
    if head[:1] == b"\n" and head[1:2] in b"\0\2\3\5" and head[2:3] == b"\1" and len(head) >= HEAD:
        return "PCX"
    return "TGA" if _is_targa(head) else None


def _is_targa(head: bytes) -> bool:
    """TGA has no signature: every field of its header must be possible."""
    if len(head) < 18 or head[1] > 1 or head[2] not in (1, 2, 3, 9, 10, 11):
        return False
    palette = head[1] == 1
    if palette != (head[2] in (1, 9)) or (not palette and any(head[3:8])):
        return False
    sized = any(head[12:14]) and any(head[14:16])
    return sized and head[16] in (1, 8, 16, 24, 32) and not head[17] & 0xC0


def why_no_image(path: str) -> str | None:
    """Why a file is not an image, in a few words; None if it is one. Its first bytes are read."""
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for its writer
            return SPECIAL
        if status.st_size == 0:
            return EMPTY
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        try:
            head = os.read(handle, HEAD)
        finally:
            os.close(handle)
    except OSError as error:
        if os.path.islink(path) and not os.path.exists(path):
            return BROKEN_LINK
        return f"cannot be read ({error.strerror})"
    return why_no_image_content(head)


def why_no_image_content(head: bytes) -> str | None:
    """Why what begins with these bytes (the first `HEAD`) is not an image; None if it is one."""
    if not head:
        return EMPTY
    name = image_format(head)
    if name is None:
        return _kind(head)
    return None if _is_readable(name) else f"{name} image, which this Pillow cannot read"


def is_image(path: str | Path) -> bool:
    """Whether a file is an image by its first bytes."""
    return why_no_image(str(path)) is None


def _is_readable(name: str) -> bool:
    if name in _PLUGIN:
        return name in Image.OPEN
    if name == "AVIF":
        return bool(features.check("avif"))
    return name != "JPEG2000" or bool(features.check("jpg_2000"))


def _kind(head: bytes) -> str:
    """What a file that is no image holds."""
    if head.startswith(b"PAR1"):
        return SHARD
    riff = head[:4] == b"RIFF" and head[8:12] == b"AVI "
    if riff or head[4:8] == b"ftyp" or head.startswith(_VIDEOS):
        return VIDEO
    if head.startswith(_ARCHIVES):
        return ARCHIVE
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return TEXT  # UTF-16
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.end < len(head) or len(head) < HEAD:  # not just the last character, cut off
            return OTHER
        text = head[: error.start].decode("utf-8")
    return TEXT if all(c.isprintable() or c.isspace() or c == "\ufeff" for c in text) else OTHER


def raise_unreadable(error: OSError) -> None:
    """For `os.walk`: say which folder cannot be listed."""
    raise ArtifactNetError(f"{error.filename}: cannot be listed ({error.strerror})") from error


class FileWalk:
    """Lists the files of folders; what links lead to is listed once, however many lead there.

    A folder named twice, or inside another one that was named, is listed once too.

    Args:
        skip: a folder not to look into: that of the output, which may lie among the images.
        once: False lists files under each of their paths; only loops end.
    """

    def __init__(self, skip: str | Path = "", once: bool = True) -> None:
        self._skip = os.path.realpath(skip) + os.sep if str(skip) else None
        self._once = once
        self._root = ""
        self._trees: list[str] = []  # real folders that are, or will be, listed to the bottom
        self._visited: set[str] = set()  # real folders
        self._files: set[str] = set()  # real files that links have led to

    def files(
        self,
        folder: str | Path,
        skipped: Skipped | None = None,
        onerror: Callable[[OSError], object] = raise_unreadable,
    ) -> Iterator[Entry]:
        """Files below a folder, sorted; hidden and repeated ones are counted in ``skipped``.

        ``onerror`` is called for a folder that cannot be listed.
        """
        skipped = Skipped() if skipped is None else skipped
        for current, names in self.folders(folder, skipped, onerror):
            relative = os.path.relpath(current, folder)
            for name in sorted(names):
                path = os.path.join(current, name)
                if name.startswith("."):
                    skipped.add(HIDDEN, path)
                elif self._is_new_file(path, skipped):
                    below = os.path.normpath(os.path.join(relative, name))
                    yield Entry(below, path, why_no_image(path))

    def folders(
        self, folder: str | Path, skipped: Skipped, onerror: Callable[[OSError], object]
    ) -> Iterator[tuple[str, list[str]]]:
        """A folder and all below it, each with the names of its files."""
        root = str(folder)
        real = os.path.realpath(root)
        if self._once and real in self._visited:
            return
        self._root = real + os.sep
        self._trees.append(real)
        self._visited.add(real)
        chains: dict[str, tuple[str, ...]] = {root: (real,)}  # real folders down to this one
        for current, names, files in os.walk(root, onerror=onerror, followlinks=True):
            chain = chains.pop(current)
            kept = []
            for name in sorted(names):
                path = os.path.join(current, name)
                target = self._enter(path, chain, skipped)
                if target is not None:
                    chains[path] = (*chain, target)
                    kept.append(name)
            names[:] = kept
            yield current, files

    def _enter(self, path: str, chain: tuple[str, ...], skipped: Skipped) -> str | None:
        """Real path of a folder to be listed; None for one that is not."""
        linked = os.path.islink(path)
        name = os.path.basename(path)
        real = os.path.realpath(path) if linked else os.path.join(chain[-1], name)
        if self._is_output(real):
            return None
        if name.startswith("."):
            skipped.add(HIDDEN, path)
            return None
        repeated = real in self._visited or (linked and self._is_below_a_tree(real))
        if real in chain or (self._once and repeated):
            if linked:
                skipped.add(LISTED_ALREADY, path)
            return None
        if linked:
            self._trees.append(real)
        self._visited.add(real)
        return real

    def _is_new_file(self, path: str, skipped: Skipped) -> bool:
        if not os.path.islink(path):
            return True
        real = os.path.realpath(path)
        if self._is_output(real):
            return False
        repeated = real in self._files or self._is_below_a_tree(real)
        if self._once and repeated and os.path.exists(real):
            skipped.add(LISTED_ALREADY, path)
            return False
        self._files.add(real)
        return True

    def _is_output(self, real: str) -> bool:
        """Whether this lies in the folder to be skipped, which does not hold all of the input."""
        if self._skip is None or self._root.startswith(self._skip):
            return False
        return (real + os.sep).startswith(self._skip)

    def _is_below_a_tree(self, real: str) -> bool:
        """Whether a walk meets this without a link; hidden folders are not entered."""
        for tree in self._trees:
            if real == tree:
                return True
            if real.startswith(tree.rstrip(os.sep) + os.sep):
                parts = os.path.relpath(real, tree).split(os.sep)
                if not any(part.startswith(".") for part in parts):
                    return True
        return False


def list_images(
    folder: str | Path, skipped: Skipped | None = None, *, once: bool = True
) -> Iterator[tuple[str, str]]:
    """(path relative to ``folder``, full path) of every image below it, sorted.

    Each file's first bytes are read, once. Files that are not images are counted in ``skipped``.
    ``once=False`` lists an image under each of its paths, for folders whose names mean something.

    Raises:
        ArtifactNetError: a folder cannot be listed.
    """
    for entry in FileWalk(once=once).files(folder, skipped):
        if entry.reason is None:
            yield entry.name, entry.path
        elif skipped is not None:
            skipped.add(entry.reason, entry.path)


def real_paths(paths: Iterable[str]) -> Iterator[str]:
    """Real path of each file; every folder is resolved once."""
    folders: dict[str, str] = {}
    for path in paths:
        if os.path.islink(path):
            yield os.path.realpath(path)
            continue
        folder, name = os.path.split(path)
        if folder not in folders:
            folders[folder] = os.path.realpath(folder)
        yield os.path.join(folders[folder], name)
