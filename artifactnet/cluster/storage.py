"""Files by name, on a disk of this machine or where a URL leads: s3://, gs://, hdfs:// and others.

A name is what predictions call a file: a path as the user wrote it, or a URL without credentials
and options.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import BinaryIO, TypeVar, cast
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from artifactnet.data.image_files import HEAD
from artifactnet.data.shards import open_parquet
from artifactnet.inference.urls import is_url
from artifactnet.types import ArtifactNetError

MAX_BYTES = 2 << 30  # of an image file; 150 megapixels of 16 bits, uncompressed, have fewer
_URL = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
# options of a file system behind a URL, as in s3://bucket/folder?region=eu-west-1
_OPTIONS = re.compile(r"\?[\w.-]+=[^&?]*(&[\w.-]+=[^&?]*)*$")
_PAUSES = (1.0, 4.0)  # seconds before a file is asked for again
_REASON = 300  # characters of what a file system says
_Result = TypeVar("_Result")


def is_remote(name: str) -> bool:
    """Whether this is a URL."""
    return _URL.match(name) is not None


def local_path(url: str) -> str:
    """A ``file://`` URL as a path; anything else as it is."""
    if not url.lower().startswith("file://"):
        return url
    path = unquote(url[len("file://") :])  # also what follows a # or ?, which names may hold
    return path.removeprefix("localhost") if path.startswith("localhost/") else path


def split_url(url: str) -> tuple[str, str]:
    """What opens the file system of a URL, and the name: the URL without credentials and options.

    ``s3://key:secret@bucket/a/b?region=x`` is ``s3://key:secret@bucket?region=x`` and
    ``s3://bucket/a/b``. The path is taken as it is written; nothing in it is decoded.
    """
    found = _OPTIONS.search(url)
    options = "" if found is None else found[0]
    scheme, _, rest = url.removesuffix(options).partition("://")
    authority, slash, path = rest.partition("/")
    user, at, host = authority.rpartition("@")
    if ":" not in user:  # a container, as in abfs://container@account
        host = user + at + host
    name = f"{scheme}://{host}{slash}{path}".rstrip("/")
    return f"{scheme}://{authority}{options}", name if host else f"{scheme}://{slash}{path}"


class Remote:
    """The file system behind a URL.

    Args:
        root: of `split_url`.

    Attributes:
        files: the file system.

    Raises:
        ArtifactNetError: there is none for such URLs, or it refuses.
    """

    def __init__(self, root: str) -> None:
        self._name = split_url(root)[1]
        if is_url(root):
            raise ArtifactNetError(
                f"{self._name}: the ray engine reads no web pages; `predict --allow-urls` does, "
                "without --engine"
            )
        self.files, self._base = _connect(root, self._name)

    def path(self, name: str) -> str:
        """Path in the file system of what a URL names."""
        below = name[len(self._name) :].strip("/")
        return f"{self._base}/{below}" if below else self._base or "/"

    def name(self, path: str) -> str:
        """The URL of a path, without credentials and options."""
        return f"{self._name.rstrip('/')}/{path[len(self._base) :].lstrip('/')}"


def _connect(root: str, name: str) -> tuple[fs.FileSystem, str]:
    """A file system, and the path in it that ``root`` stands for."""
    try:
        try:
            files, base = fs.FileSystem.from_uri(root)
        except pa.ArrowInvalid:  # not one of pyarrow's own
            from fsspec.core import url_to_fs

            other, base = url_to_fs(_OPTIONS.sub("", root))
            files = fs.PyFileSystem(fs.FSSpecHandler(other))
    except (OSError, ValueError, ImportError, pa.ArrowException) as error:
        raise ArtifactNetError(f"{name}: cannot be opened ({describe(error)})") from error
    return files, base.rstrip("/")


class Storage:
    """Reads the files that names stand for.

    Args:
        urls: that the user named; their credentials and options hold for all below them.
        folder: that relative paths start from.
    """

    def __init__(self, urls: Iterable[str], folder: str) -> None:
        self._folder = folder
        self._roots: dict[str, str] = {}  # scheme and host -> what opens its file system
        for url in urls:
            if is_remote(url):
                root, _ = split_url(url)
                self._roots.setdefault(split_url(root)[1], root)

    def place(self, name: str) -> str:
        """Absolute path of a file on a disk."""
        return os.path.join(self._folder, name)

    def remote(self, name: str) -> Remote:
        """The file system of a URL's name.

        Raises:
            ArtifactNetError: see `Remote`.
        """
        host = split_url(split_url(name)[0])[1]
        return _remote(self._roots.get(host, host))

    def read(self, name: str, accept: Callable[[bytes], bool] | None = None) -> bytes | None:
        """Content of a file; a URL that does not answer is asked twice more.

        Args:
            name: of the file.
            accept: called with its first bytes; where it says no, the rest is not read.

        Returns:
            The content; None: it was not accepted.

        Raises:
            ArtifactNetError: it is larger than `MAX_BYTES`, or see `Remote`.
            OSError: it cannot be read.
        """
        return _patiently(partial(self._read, name, accept), len(_PAUSES) if is_remote(name) else 0)

    def _read(self, name: str, accept: Callable[[bytes], bool] | None) -> bytes | None:
        with self.open_stream(name) as file:
            head = file.read(HEAD)
            if accept is not None and not accept(head):
                return None
            content = head + file.read(MAX_BYTES)
        if len(content) > MAX_BYTES:
            raise ArtifactNetError(f"larger than {MAX_BYTES >> 30} GiB")
        return content

    def open_stream(self, name: str) -> BinaryIO:
        """A file, read from its start to its end.

        Raises:
            ArtifactNetError: see `Remote`.
            OSError: it cannot be opened.
        """
        if not is_remote(name):
            return open(self.place(name), "rb")
        remote = self.remote(name)
        # as it is: pyarrow would decompress what is called .gz
        return cast(BinaryIO, remote.files.open_input_stream(remote.path(name), compression=None))

    def read_range(self, name: str, start: int, end: int) -> bytes:
        """Bytes of a file from ``start`` up to ``end``; a URL is asked again as in `read`.

        Raises:
            ArtifactNetError: see `Remote`.
            OSError: it cannot be read.
        """

        def read() -> bytes:
            with self._open_file(name) as file:
                file.seek(start)
                content: bytes = file.read(end - start)
            return content

        return _patiently(read, len(_PAUSES) if is_remote(name) else 0)

    def open_parquet(self, name: str | Path, columns: Iterable[str] = ()) -> pq.ParquetFile:
        """See `artifactnet.data.shards.open_parquet`, whose errors this has."""
        name = str(name)
        try:
            file = self._open_file(name)
        except OSError as error:
            raise ArtifactNetError(f"{name}: cannot be read ({describe(error)})") from error
        return open_parquet(name, columns, file)

    def _open_file(self, name: str) -> pa.NativeFile:
        """A file, opened for random access."""
        if not is_remote(name):
            return pa.OSFile(os.fsencode(self.place(name)))
        remote = self.remote(name)
        return remote.files.open_input_file(remote.path(name))


@lru_cache(maxsize=64)
def _remote(root: str) -> Remote:
    return Remote(root)


def _patiently(function: Callable[[], _Result], retries: int) -> _Result:
    """Call again where a file system does not answer."""
    for pause in _PAUSES[:retries]:
        try:
            return function()
        except FileNotFoundError:
            raise
        except OSError:
            time.sleep(pause)
    return function()


def describe(error: BaseException) -> str:
    """What went wrong, in one line."""
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return error.strerror
    text = " ".join(str(error).split())[:_REASON]
    return text or type(error).__name__


def split_lines(file: BinaryIO) -> Iterator[bytes]:
    """Lines of a file with their ends, which is read in large pieces."""
    rest = b""
    while piece := file.read(1 << 20):
        *lines, rest = (rest + piece).split(b"\n")
        yield from (line + b"\n" for line in lines)
    if rest:
        yield rest


def local_and_remote(sources: Sequence[str]) -> tuple[list[str], list[str]]:
    """Paths, and URLs, each in the order given."""
    names = [local_path(source) for source in sources]
    return [n for n in names if not is_remote(n)], [n for n in names if is_remote(n)]
