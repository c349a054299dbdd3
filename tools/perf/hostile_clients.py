"""Clients that mean no good, and one that does: raw HTTP over loopback."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import struct
import zlib
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass

HOSTILE_BYTES = 4 << 20  # the server's limit for a body, so that larger ones take little time
_BOUNDARY = "artifactnet-benchmark"
_TYPE = f"multipart/form-data; boundary={_BOUNDARY}"
_SECONDS = 120.0  # for one answer


def request(body: bytes, kind: str = _TYPE, length: int | None = None, close: bool = True) -> bytes:
    """A POST to ``/v1/predict``.

    Args:
        body: of it.
        kind: its Content-Type.
        length: that is announced; None: that of the body.
        close: the server closes the connection afterwards.
    """
    size = len(body) if length is None else length
    head = (
        f"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\n"
        f"Content-Length: {size}\r\n{'Connection: close' if close else 'Accept: */*'}\r\n\r\n"
    )
    return head.encode() + body


def form(content: bytes, name: str = "photo.jpg") -> bytes:
    """A multipart body with one file."""
    disposition = f'Content-Disposition: form-data; name="images"; filename="{name}"'
    head = f"--{_BOUNDARY}\r\n{disposition}\r\nContent-Type: image/jpeg\r\n\r\n"
    return head.encode() + content + f"\r\n--{_BOUNDARY}--\r\n".encode()


def upload(content: bytes, close: bool = False) -> bytes:
    """A good request for one image."""
    return request(form(content), close=close)


async def exchange(port: int, sent: bytes) -> tuple[int | None, bytes]:
    """Send a request and take the answer: its status (None: none came) and its body."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        with suppress(ConnectionError):  # it may have answered before it read all
            writer.write(sent)
            await writer.drain()
        return await asyncio.wait_for(_take(reader), _SECONDS)
    finally:
        writer.close()


async def _take(reader: asyncio.StreamReader) -> tuple[int | None, bytes]:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head.lower())
        body = await (reader.read() if length is None else reader.readexactly(int(length[1])))
    except (asyncio.IncompleteReadError, ConnectionError):
        return None, b""
    return int(head.split()[1]), body


async def dribble(port: int) -> None:
    """Open connections and send a byte of a request now and then, until it is cancelled."""
    while True:
        with suppress(ConnectionError):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                for letter in request(form(b"x" * 999))[:200]:
                    writer.write(bytes([letter]))
                    await writer.drain()
                    await asyncio.sleep(0.5)
            finally:
                writer.close()


def gif_bomb() -> bytes:
    """Forty bytes that announce 65535 x 65535 pixels."""
    screen = struct.pack("<HHBBB", 65535, 65535, 0x80, 0, 0) + bytes(6)
    frame = b"," + struct.pack("<HHHHB", 0, 0, 65535, 65535, 0) + b"\x02\x02\x4c\x01\x00"
    return b"GIF89a" + screen + frame + b";"


def png_bomb(side: int = 12_000) -> bytes:
    """A black square, a thousandth of its size when compressed."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        checked = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checked)

    squeeze = zlib.compressobj(9)
    rows = [squeeze.compress(bytes(side + 1)) for _ in range(side)]
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    data = b"".join([*rows, squeeze.flush()])
    signature = b"\x89PNG\r\n\x1a\n"
    return signature + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


async def _leave(port: int, sent: bytes) -> int | None:
    """Send something and go without the answer."""
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(sent)
    with suppress(ConnectionError):
        await writer.drain()
    writer.close()
    return None


async def _stream(port: int, content: bytes) -> int | None:
    """Send a body in chunks that has no end, until the server answers."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = (
        "POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n"
        f"Content-Type: {_TYPE}\r\nConnection: close\r\n\r\n"
    )
    piece = b"10000\r\n" + bytes(65536) + b"\r\n"
    start = form(content)[: -len(f"\r\n--{_BOUNDARY}--\r\n")]
    taking = asyncio.ensure_future(asyncio.wait_for(_take(reader), _SECONDS))
    try:
        with suppress(ConnectionError):
            writer.write(head.encode() + f"{len(start):x}\r\n".encode() + start + b"\r\n")
            while not taking.done():
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0)
        return (await taking)[0]
    finally:
        writer.close()


@dataclass(frozen=True)
class Hostile:
    """A kind of hostile request.

    Attributes:
        attack: sends one, given the port and a good image; returns the status of the answer, None
            if the client did not wait for it or got none.
        allowed: statuses that are right.
    """

    attack: Callable[[int, bytes], Awaitable[int | None]]
    allowed: tuple[int | None, ...]


def _sends(make: Callable[[bytes], bytes], *allowed: int | None) -> Hostile:
    """A request that is made of a good image."""

    async def attack(port: int, content: bytes) -> int | None:
        return (await exchange(port, make(content)))[0]

    return Hostile(attack, allowed)


def _document(data: str) -> bytes:
    return request(json.dumps({"images": [{"data": data}]}).encode(), "application/json")


_END = f"--{_BOUNDARY}--\r\n".encode()
_GIF, _PNG = gif_bomb(), png_bomb()
HOSTILE: dict[str, Hostile] = {
    "gif bomb": _sends(lambda _: request(form(_GIF)), 422),
    "png bomb": _sends(lambda _: request(form(_PNG)), 422),
    "png bomb in base64": _sends(lambda _: _document(base64.b64encode(_PNG).decode()), 422),
    "no image": _sends(lambda content: request(form(content[::-1])), 422),
    "cut off image": _sends(lambda content: request(form(content[: len(content) // 2])), 422),
    "empty file": _sends(lambda _: request(form(b"")), 422),
    "path as a name": _sends(lambda c: request(form(c, "../../../../etc/passwd")), 200),
    "path instead of a file": _sends(
        lambda _: request(b'{"images": ["/etc/passwd"]}', "application/json"), 400
    ),
    "url instead of a file": _sends(
        lambda _: request(b'{"images": [{"url": "http://127.0.0.1/"}]}', "application/json"), 400
    ),
    "not base64": _sends(lambda _: _document("!" * 1000), 400),
    "deep json": _sends(lambda _: request(b"[" * 15_000, "application/json"), 400),
    "many values": _sends(
        lambda _: request(b"[" + b"0," * 1_000_000 + b"0]", "application/json"), 400
    ),
    "many parts": _sends(lambda _: request(form(b"x")[: -len(_END)] * 50 + _END), 413),
    "no multipart": _sends(lambda _: request(b"hello"), 400),
    "body without end": _sends(lambda c: request(form(c)[:-9]), 400),
    "gigabyte announced": _sends(lambda c: request(form(c), length=1 << 30), 413),
    "endless chunks": Hostile(_stream, (413,)),
    "rubbish": _sends(lambda c: c[:500] + b"\r\n\r\n", 400),
    "leaves within the body": Hostile(
        lambda port, content: _leave(port, request(form(content))[:2000]), (None,)
    ),
    "leaves without the answer": Hostile(
        lambda port, content: _leave(port, request(form(content))), (None,)
    ),
}
