"""A model for the server that waits when it is told to, and the server in a thread."""

import contextlib
import io
import socket
import threading

import numpy as np
import pytest
from canned_predictor import CannedPredictor
from PIL import Image

for package in ("fastapi", "uvicorn", "python_multipart", "prometheus_client", "httpx"):
    pytest.importorskip(package, reason="the extra serve is not installed")

from artifactnet.serving import schema  # noqa: E402
from artifactnet.serving.app import Service  # noqa: E402
from artifactnet.serving.server import make_server  # noqa: E402
from artifactnet.serving.settings import ServerSettings  # noqa: E402

KEY = "s3cret-key"


class GatedPredictor(CannedPredictor):
    """Waits before every batch until its gate is open; red 77 raises what is no user's error.

    Attributes:
        gate: an event, set at first.
        sizes: of the batches.
        entered: set when a batch has come.
    """

    default_batch_size = 8

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.entered = threading.Event(), threading.Event()
        self.gate.set()
        self.sizes: list[int] = []

    def _answer_batch(self, batch, options):
        self.sizes.append(len(batch))
        self.entered.set()
        assert self.gate.wait(60)
        if any(image.pixels[0, 0, 0] == 77 for image in batch):
            raise RuntimeError("a bug in the model")
        return super()._answer_batch(batch, options)


def png(red: int, size: tuple[int, int] = (20, 30), green: int = 0) -> bytes:
    """A picture that `CannedPredictor` gives the probability ``1 - red / 255``."""
    pixels = np.zeros((*size, 3), np.uint8)
    pixels[..., 0], pixels[..., 1] = red, green
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def model_answer(heatmap: bool = True) -> schema.ModelAnswer:
    return schema.ModelAnswer(
        name="canned", kind="CannedPredictor", backend="torch", device="cpu", version="0",
        fingerprint=None, threshold=0.5, limits=None, heatmap=heatmap, instances=False, warnings=[],
    )  # fmt: skip


def make_service(predictor=None, heatmap: bool = True, **settings) -> Service:
    found = GatedPredictor() if predictor is None else predictor
    return Service(found, model_answer(heatmap), ServerSettings(**settings))


@contextlib.contextmanager
def running(service: Service, key: str | None = None):
    """The port at which the service answers."""
    with socket.create_server(("127.0.0.1", 0)) as opened:
        started = threading.Event()
        server = make_server(service, key, started.set)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [opened]})
        thread.start()
        try:
            assert started.wait(20)
            yield opened.getsockname()[1]
        finally:
            service.predictor.gate.set()
            server.should_exit = server.force_exit = True
            thread.join(30)
            service.batcher.close()
        assert not thread.is_alive()


def post(path: str, body: bytes, headers: str, length: int | None = None) -> bytes:
    """The bytes of a request."""
    size = len(body) if length is None else length
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\n{headers}Content-Length: {size}\r\n\r\n"
    return head.encode() + body


def cut(body: bytes, size: int) -> list[bytes]:
    """A body in pieces."""
    return [body[k : k + size] for k in range(0, len(body), size)]


def read_all(connection: socket.socket, seconds: float = 20) -> bytes:
    """What a server sends until it closes the connection."""
    connection.settimeout(seconds)
    found = b""
    with contextlib.suppress(ConnectionResetError):
        while piece := connection.recv(1 << 16):
            found += piece
    return found
