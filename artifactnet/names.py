"""Names of images: as files of ours, and on a terminal."""

from __future__ import annotations

import os
import re
from hashlib import blake2b
from pathlib import Path

NAME_BYTES = 255  # of a name, on nearly all file systems
PATH_BYTES = 4096  # of a path, on Linux
_SUFFIX = len(".overlay.png")  # the longest that is put behind a name
_MARGIN = 64  # bytes of a path that are left for folders of ours
_LONGEST_EXTENSION = 10  # bytes; what is longer is no extension worth keeping
# what a file system, a csv or a terminal may not take: control characters and halves of characters
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
# names that would meet one that we make: a shortened one, or the overlay of a map
_OURS = re.compile(r"~[0-9a-f]{16}(\.[^.]*)?$|\.overlay$")
# control characters, marks that turn the direction of writing around (a name ending in "gnp.exe"
# would read as one ending in "exe.png"), other invisible ones, and halves of characters
_INVISIBLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]"
)


def visible(text: str) -> str:
    """Text from data on one line: each invisible character is spelled out, as \\u202e."""
    return _INVISIBLE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def name_limits(folder: str | Path) -> tuple[int, int]:
    """The most bytes that a name, and a path below ``folder``, may have there, for `file_path`.

    The folder need not exist yet. What is put behind a name (``.png``) is taken off already.
    """
    place = Path(os.path.abspath(folder))
    longest = len(_bytes(str(place))) + _MARGIN
    while not place.is_dir() and place != place.parent:
        place = place.parent
    try:
        name, path = os.pathconf(place, "PC_NAME_MAX"), os.pathconf(place, "PC_PATH_MAX")
    except (AttributeError, OSError, ValueError):  # Windows
        name, path = NAME_BYTES, 259 if os.name == "nt" else PATH_BYTES
    return min(name, NAME_BYTES) - _SUFFIX, max(path - longest, NAME_BYTES)


def unsafe_name(name: object) -> str | None:
    """Why a name from data cannot name a file or folder of ours; None if it can.

    Names come from untrusted data: a separator or ``..`` would let them write anywhere. Any
    length is fine, see `file_name`.
    """
    if not isinstance(name, str):
        return "is not text"
    if not name.strip():
        return "is empty"
    if name in (".", "..") or any(c in "/\\" or not c.isprintable() for c in name):
        return "cannot name a folder"
    return None


def file_name(name: str, limit: int = NAME_BYTES - _SUFFIX) -> str:
    """A name as one that any file system takes, of at most ``limit`` bytes.

    A name that is short and printable stays as it is. From another one a hash, behind ``~``,
    keeps it apart from all others: ``START~0123456789abcdef.jpg``.
    """
    safe = _UNSAFE.sub("_", name)
    if not safe.strip(" ."):
        safe = "_"
    if safe == name and len(_bytes(name)) <= limit and not _OURS.search(name):
        return name
    return _hashed(name, safe, limit)


def file_path(relative: str, limits: tuple[int, int]) -> str:
    """A relative path (with forward slashes) of names as `file_name` makes them.

    Different paths stay different, and ``PATH.png`` is never a folder of another one.

    Args:
        relative: of an image.
        limits: of `name_limits`.
    """
    *folders, last = relative.split("/")
    name = file_name(last, limits[0])
    parts = [_folder_name(part, limits[0]) for part in folders]
    path = "/".join([*parts, name])
    if len(_bytes(path)) <= limits[1]:
        return path
    return f"~{_digest('/'.join(folders))}/{name}"


def _folder_name(name: str, limit: int) -> str:
    if name.lower().endswith(".png"):  # as the picture of an image beside it may be called
        return _hashed(name, _UNSAFE.sub("_", name), limit)
    return file_name(name, limit)


def _hashed(name: str, safe: str, limit: int) -> str:
    stem, extension = os.path.splitext(safe)
    if len(_bytes(extension)) > _LONGEST_EXTENSION:
        stem, extension = safe, ""
    end = f"~{_digest(name)}{extension}"
    start = _bytes(stem)[: limit - len(_bytes(end))]
    return start.decode("utf-8", "ignore") + end  # a character that was cut is left out


def _digest(text: str) -> str:
    return blake2b(_bytes(text), digest_size=8).hexdigest()


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
