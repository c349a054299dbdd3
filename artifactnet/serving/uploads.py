"""Reading the images of a request while its size, its time and all requests' memory are bounded."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import threading
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any

from artifactnet.serving.batcher import QueueFull
from artifactnet.serving.multipart import MAX_NAME, MultipartFiles, find_boundary
from artifactnet.serving.refused import Refused, Upload

MULTIPART, JSON = "multipart/form-data", "application/json"
# Characters that separate values. Images in base64 have none, and every value of a JSON document
# takes many times its size in memory.
_SEPARATORS = b",[{"
_MAX_SEPARATORS = 20_000
_PARSING = threading.Lock()  # meanwhile a document takes five times its size and more
_FORM = '{"images": [{"name": "photo.jpg", "data": "BASE64"}]}'


class Buffered:
    """Bytes that all requests together hold; used by the event loop's thread alone.

    Args:
        limit: of them.
    """

    def __init__(self, limit: int) -> None:
        self.limit, self.held = limit, 0

    def open(self) -> Share:
        """What one request holds of them; nothing at first."""
        return Share(self)


class Share(AbstractContextManager["Share"]):
    """The bytes that one request holds; leaving the block gives them back."""

    def __init__(self, whole: Buffered) -> None:
        self._whole, self._held = whole, 0

    def add(self, count: int) -> None:
        """Hold more.

        Raises:
            Refused: the requests together would hold more than they may.
        """
        if self._whole.held + count > self._whole.limit:
            raise Refused(503, "the server has too many uploads to hold; try again", 1.0)
        self._whole.held += count
        self._held += count

    def release(self) -> None:
        """Give all of them back."""
        self._whole.held -= self._held
        self._held = 0

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()


async def read_uploads(
    headers: Mapping[str, str],
    pieces: AsyncIterator[bytes],
    share: Share,
    *,
    max_bytes: int,
    max_images: int,
    timeout: float,
) -> list[Upload]:
    """The images in the body of a request; one or more.

    Args:
        headers: of the request, by lower-case name.
        pieces: of the body as they arrive. What is refused is not read to its end.
        share: holds the bytes until the images are answered.
        max_bytes, max_images: of this request.
        timeout: seconds for the whole body.

    Raises:
        Refused: of another form, too large, too slow, or there is no memory for it.
    """
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in (MULTIPART, JSON):
        raise Refused(415, f"send images as {MULTIPART}, or in base64 as {JSON}: {_FORM}")
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise Refused(415, "compressed bodies are not taken; leave out Content-Encoding")
    announced = headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > max_bytes:
        raise _too_large(max_bytes)
    files = None
    if kind == MULTIPART:
        files = MultipartFiles(find_boundary(headers["content-type"]), max_images)
    body = bytearray()

    async def read() -> None:
        read = 0
        async for piece in pieces:
            read += len(piece)
            if read > max_bytes:
                raise _too_large(max_bytes)
            share.add(len(piece))
            if files is None:
                body.extend(piece)
            else:
                files.feed(piece)

    try:
        await asyncio.wait_for(read(), timeout)
    except asyncio.TimeoutError:
        raise Refused(408, f"the body was not complete after {timeout:g} s") from None
    if files is None:
        # seconds for large bodies, and other requests go on
        images = await asyncio.to_thread(parse_json, body, max_images)
    else:
        images = files.finish()
    if not images:
        raise Refused(400, "no image in the request; the form field is called images")
    return images


def as_refused(full: QueueFull) -> Refused:
    """What a client is told when the queue is full."""
    return Refused(503, "the server has more images than it can answer soon", full.retry_after)


def parse_json(body: bytes | bytearray, max_images: int) -> list[Upload]:
    """The images of ``{"images": [{"name": "photo.jpg", "data": "BASE64"}]}``.

    Raises:
        Refused: another document, not base64, or too many images.
    """
    with _PARSING:
        return _parse(body, max_images)


def _parse(body: bytes | bytearray, max_images: int) -> list[Upload]:
    if sum(map(body.count, (bytes([each]) for each in _SEPARATORS))) > _MAX_SEPARATORS:
        raise Refused(400, f"too many values in the JSON body; send {_FORM}")
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        reason = str(error).splitlines()[0]
        raise Refused(400, f"the body is not JSON ({reason}); send {_FORM}") from None
    entries = document.get("images") if isinstance(document, dict) else None
    if not isinstance(entries, list):
        raise Refused(400, f"the JSON body has no list of images; send {_FORM}")
    if len(entries) > max_images:
        raise Refused(413, f"more than {max_images} images in one request; send fewer")
    return [_image(entry, f"images[{k}]") for k, entry in enumerate(entries)]


def _image(entry: Any, place: str) -> Upload:
    known = isinstance(entry, dict) and entry.keys() <= {"name", "data"}
    if not known or not isinstance(entry.get("data"), str):
        raise Refused(400, f"{place} must be an object with data and, if you like, name: {_FORM}")
    name = entry.get("name", "")
    if not isinstance(name, str) or len(name) > MAX_NAME:
        raise Refused(400, f"{place}: its name must be text of at most {MAX_NAME} characters")
    name = name.encode("utf-8", "replace").decode("utf-8")  # halves of characters have no bytes
    try:
        return Upload(name, base64.b64decode(entry["data"], validate=True))
    except (binascii.Error, ValueError):
        hint = "; leave out what is before the comma" if entry["data"][:5] == "data:" else ""
        raise Refused(400, f"{place}: its data is not base64{hint}") from None


def _too_large(max_bytes: int) -> Refused:
    return Refused(
        413, f"the request is larger than {max_bytes} bytes; send fewer or smaller images"
    )
