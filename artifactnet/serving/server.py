"""Running the application: the socket, signals and the end."""

from __future__ import annotations

import logging
import math
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from types import FrameType

import numpy as np
import uvicorn

from artifactnet.inference.base import BasePredictor
from artifactnet.inference.predictor import Predictor
from artifactnet.serving.app import Service, make_app
from artifactnet.serving.connections import guarded_protocol
from artifactnet.serving.schema import ModelAnswer
from artifactnet.serving.settings import ServerSettings
from artifactnet.types import ArtifactNetError

_KEEP_ALIVE = 20  # seconds of an idle connection
_BACKLOG = 2048  # connections that the system holds until they are accepted
_FILES = 64  # open files beside the connections
_LAST_PORT = 65535
_WARM_UP = 256  # side of a gray image, pixels


def open_socket(host: str, port: int) -> socket.socket:
    """A socket at an address, which does not listen yet.

    Args:
        host: a name or address of this machine.
        port: 0 takes any that is free.

    Raises:
        ArtifactNetError: there is no such address here, or the port is taken.
    """
    if port > _LAST_PORT:
        raise ArtifactNetError(f"--port {port}: ports go up to {_LAST_PORT}")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        opened = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError) as error:  # the latter of what can be no name, as "a..b"
        reason = getattr(error, "strerror", None) or error
        raise ArtifactNetError(f"--host {host}: {reason}") from None
    try:
        if os.name != "nt":  # where it would let two servers share a port
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind(address)
    except OSError as error:
        opened.close()
        raise _cannot_serve(host, port, error) from None
    return opened


def _cannot_serve(host: str, port: int, error: OSError) -> ArtifactNetError:
    return ArtifactNetError(
        f"cannot serve at {host} port {port} ({error.strerror or error}); name another --host or "
        "--port"
    )


def address_of(opened: socket.socket) -> str:
    """The URL of a socket."""
    host, port = opened.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def serve(
    predictor: BasePredictor,
    model: ModelAnswer,
    opened: socket.socket,
    settings: ServerSettings,
    key: str | None = None,
    report: Callable[[], None] | None = None,
) -> None:
    """Answer requests until SIGTERM or Ctrl-C, and those that are here to their end.

    Args:
        predictor: of any kind.
        model: describes it.
        opened: of `open_socket`; closed at the end.
        settings: the limits.
        key: that clients must send; None: none.
        report: called when requests are answered.

    Raises:
        ArtifactNetError: the model fails on a gray image, or the port was taken meanwhile.
    """
    if isinstance(predictor, Predictor):  # others may write for a minute
        predictor.predict(np.full((_WARM_UP, _WARM_UP, 3), 128, np.uint8))
    try:
        opened.listen(_BACKLOG)  # two sockets can be bound to a port, and one of them can listen
    except OSError as error:
        host, port = opened.getsockname()[:2]
        raise _cannot_serve(host, port, error) from None
    _allow_files(2 * settings.max_connections + _FILES)
    service = Service(predictor, model, settings)
    try:
        make_server(service, key, report).run(sockets=[opened])
    finally:
        opened.close()
        service.batcher.close()


def make_server(
    service: Service, key: str | None = None, report: Callable[[], None] | None = None
) -> uvicorn.Server:
    """The server of a service, for `serve`; ``run(sockets=[...])`` starts it.

    Args:
        service: answers.
        key, report: see `serve`.
    """
    settings = service.settings
    config = uvicorn.Config(
        make_app(service, key),
        http=guarded_protocol(settings.timeout, settings.max_connections),
        ws="none",
        lifespan="off",
        log_level=logging.INFO if settings.access_log else logging.WARNING,
        access_log=settings.access_log,
        server_header=False,
        proxy_headers=False,
        backlog=_BACKLOG,
        timeout_keep_alive=_KEEP_ALIVE,
        timeout_graceful_shutdown=math.ceil(settings.timeout),
    )
    return _Server(config, service, report)


class _Server(uvicorn.Server):
    """Stops when it is told to, which is no failure: the process may exit with 0."""

    def __init__(
        self, config: uvicorn.Config, service: Service, report: Callable[[], None] | None
    ) -> None:
        super().__init__(config)
        self._service, self._report = service, report
        self._stop_at = math.inf  # monotonic seconds

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """See uvicorn."""
        await super().startup(sockets)
        if self._report is not None:
            self._report()

    async def on_tick(self, counter: int) -> bool:
        """See uvicorn: whether to stop, ten times a second."""
        self.should_exit = self.should_exit or time.monotonic() >= self._stop_at
        return await super().on_tick(counter)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first SIGTERM lets the server drain, Ctrl-C or a second one does not wait for it.

        A third signal cuts off what is running.
        """
        if self.should_exit:
            self.force_exit = True
        elif sig == signal.SIGTERM and not self._service.stopping:
            self._stop_at = time.monotonic() + self._service.settings.drain
        else:
            self.should_exit = True
        self._service.stopping = True


def _allow_files(count: int) -> None:
    """Let the process open so many files, as far as the system's hard limit goes."""
    if sys.platform == "win32":
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count if hard == resource.RLIM_INFINITY else min(count, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
