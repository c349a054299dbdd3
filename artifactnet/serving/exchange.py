"""Around every request: its figures, headers of every answer, and an end that clients see.

A plain ASGI middleware, so that it sees a body that an endpoint left unread.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

_HEADERS = [(b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store")]
_LINGER = 5.0  # seconds


class ExchangeGuard:
    """Counts requests, and answers early without losing the answer.

    An answer may come before the body was read, to a request that is refused. A connection that is
    closed with unread data is reset, and the client may never see the answer; so the rest is read
    and dropped for a few seconds, and then the connection is closed.

    Args:
        app: the application.
        report: called with the route (``other`` where there is none), the status and the seconds.
    """

    def __init__(self, app: App, report: Callable[[str, int, float], None]) -> None:
        self._app, self._report = app, report

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status, unread = time.perf_counter(), 500, _has_body(scope)

        async def reading() -> Message:
            nonlocal unread
            message = await receive()
            unread = unread and message["type"] == "http.request" and message["more_body"]
            return message

        async def answering(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = [*message.get("headers", ()), *_HEADERS]
                if unread:
                    headers.append((b"connection", b"close"))
                await send({**message, "headers": headers})
            elif unread and not message.get("more_body", False):
                await send({**message, "more_body": True})
                await _drop_rest(receive)
                await send({"type": "http.response.body", "body": b"", "more_body": False})
            else:
                await send(message)

        try:
            await self._app(scope, reading, answering)
        finally:
            route = getattr(scope.get("route"), "path", "other")
            self._report(route, status, time.perf_counter() - started)


def _has_body(scope: Message) -> bool:
    headers = dict(scope["headers"])
    return headers.get(b"content-length", b"0") != b"0" or b"transfer-encoding" in headers


async def _drop_rest(receive: Receive) -> None:
    async def drop() -> None:
        while True:
            message = await receive()
            if message["type"] != "http.request" or not message["more_body"]:
                return

    try:
        await asyncio.wait_for(drop(), _LINGER)
    except asyncio.TimeoutError:
        return  # the client has had its answer for a while
