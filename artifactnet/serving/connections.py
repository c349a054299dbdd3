"""HTTP/1.1 of uvicorn, with what it lacks against slow clients and too many of them."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

from artifactnet.serving.exchange import ExchangeGuard

_RETRY_AFTER = "1"


class GuardedProtocol(H11Protocol):
    """A connection that a client cannot keep for itself.

    uvicorn closes idle connections after an answer. Here a client also has to send the head of a
    request in time (the application sees to the body) and to take its answer in time. Beyond a
    number of connections, requests are refused, and beyond twice that number connections are.

    Attributes:
        timeout: seconds; set by `guarded_protocol`.
        max_connections: likewise.
    """

    timeout: float
    max_connections: int

    _deadline: asyncio.TimerHandle | None = None  # for the head of a request
    _stalled: asyncio.TimerHandle | None = None  # for the answer to be taken
    _heard = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """See `asyncio.Protocol`."""
        super().connection_made(transport)
        if len(self.connections) > 2 * self.max_connections:
            transport.abort()
            return
        if len(self.connections) > self.max_connections:
            self.app = _refuse_all
        self._deadline = self.loop.call_later(self.timeout, self._end)

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        self._heard = True
        super().data_received(data)
        if self._is_busy:
            self._stop_waiting_for_a_head()
        elif self._deadline is None and not self.transport.is_closing():
            self._deadline = self.loop.call_later(self.timeout, self._end)

    def pause_writing(self) -> None:
        """See `asyncio.Protocol`: more is waiting for the client than the buffer should hold."""
        super().pause_writing()
        self._stalled = self._stalled or self.loop.call_later(self.timeout, self.transport.abort)

    def resume_writing(self) -> None:
        """See `asyncio.Protocol`."""
        super().resume_writing()
        self._stop_waiting_for_the_client()

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self._stop_waiting_for_a_head()
        self._stop_waiting_for_the_client()
        super().connection_lost(exc)

    @property
    def _is_busy(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _stop_waiting_for_a_head(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _stop_waiting_for_the_client(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None

    def _end(self) -> None:
        """Close a connection whose request did not come; who sent part of one is told why."""
        self._deadline = None
        if self._is_busy or self.transport.is_closing():
            return
        if self._heard:
            detail = f"the head of the request was not complete after {self.timeout:g} s"
            body = json.dumps({"detail": detail}).encode()
            head = (
                "HTTP/1.1 408 Request Timeout\r\nContent-Type: application/json\r\n"
                f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
            )
            self.transport.write(head.encode() + body)
        self.transport.close()


def guarded_protocol(timeout: float, max_connections: int) -> type[GuardedProtocol]:
    """The protocol of a server; see `GuardedProtocol`."""
    bounds = {"timeout": timeout, "max_connections": max_connections}
    return type("Connection", (GuardedProtocol,), bounds)


async def _refuse(scope: Any, receive: Any, send: Any) -> None:
    """The application of connections that are too many."""
    body = b'{"detail": "the server has too many connections; try again"}'
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"retry-after", _RETRY_AFTER.encode()),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": 503, "headers": headers})
    await send({"type": "http.response.body", "body": body})


_refuse_all = ExchangeGuard(_refuse, lambda *_: None)  # so that a client still sending learns why
