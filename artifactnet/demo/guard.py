"""What the page's server lets through: requests of the page itself, and nothing else of Gradio.

Gradio can also take files, hand out files, fetch addresses for its clients and keep their runs. The
page needs none of it, so those routes do not exist here, and a request that refers to a file or an
address is refused.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

_Message = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[_Message]]
_Send = Callable[[_Message], Awaitable[None]]
_App = Callable[[_Message, _Receive, _Send], Awaitable[None]]

_PREFIX = "/gradio_api/"
# of Gradio's routes, those that the page calls
_ROUTES = ("queue/join", "queue/data", "heartbeat/", "startup-events", "app_id", "reset", "cancel")
# Characters that separate values. The page sends few, and an image in base64 has none, but in
# memory every value takes many times its letters.
_SEPARATORS = (b",", b"[", b"{")
_MAX_SEPARATORS = 1000
_BODY_SECONDS = 120.0  # that sending an image may take
# nothing is loaded from elsewhere; Gradio's templates need eval
_POLICY = (
    "default-src 'self' 'unsafe-inline' 'unsafe-eval'; img-src 'self' data: blob:; "
    "font-src 'self' data:; object-src 'none'; base-uri 'self'; form-action 'self'"
)
_HEADERS = (
    (b"content-security-policy", _POLICY.encode()),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
)


class Guard:
    """ASGI middleware around Gradio's application.

    Args:
        app: what answers the requests that pass.
        max_bytes: of the body of a request.
    """

    def __init__(self, app: _App, max_bytes: int) -> None:
        self._app, self._max_bytes = app, max_bytes

    async def __call__(self, scope: _Message, receive: _Receive, send: _Send) -> None:
        """Answer a request, or hand it on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def secured(message: _Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *_HEADERS]
            await send(message)

        _, found, route = str(scope["path"]).partition(_PREFIX)
        if found and not route.startswith(_ROUTES):
            await _refuse(secured, 404, "this page has no such route")
            return
        if scope["method"] in ("GET", "HEAD", "OPTIONS"):
            await self._app(scope, receive, secured)
            return
        try:
            body = await asyncio.wait_for(self._body(receive), _BODY_SECONDS)
        except asyncio.TimeoutError:
            await _refuse(secured, 408, "the request took too long to arrive")
            return
        if body is None:
            await _refuse(secured, 413, f"the request is larger than {self._max_bytes} bytes")
            return
        if sum(map(body.count, _SEPARATORS)) > _MAX_SEPARATORS:
            await _refuse(secured, 400, "the request has too many values")
            return
        if _refers_to_file(body):
            await _refuse(secured, 400, "the request is no JSON, or refers to a file or an address")
            return
        given = False

        async def replay() -> _Message:
            nonlocal given
            if given:
                return await receive()
            given = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self._app(scope, replay, secured)

    async def _body(self, receive: _Receive) -> bytes | None:
        """The whole body; None as soon as it is too large."""
        parts, size, more = [], 0, True
        while more:
            message = await receive()
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > self._max_bytes:
                return None
            more = message.get("more_body", False)  # of a client that left, too
        return b"".join(parts)


def _refers_to_file(body: bytes) -> bool:
    """Whether a body is no JSON, or holds an object that Gradio would read as a file.

    Such an object has a ``path``, which Gradio opens, or fetches if it is an address.
    """
    if not body:
        return False
    try:
        waiting = [json.loads(body)]
    except (ValueError, RecursionError):
        return True
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            if "path" in value:
                return True
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
    return False


async def _refuse(send: _Send, status: int, reason: str) -> None:
    body = json.dumps({"detail": reason}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
