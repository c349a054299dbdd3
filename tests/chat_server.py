"""A local HTTP server that speaks the chat-completions interface, well or badly."""

import base64
import json
import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

GOOD = """### Image Description
A cat sits on a chair.

### Problematic Regions Identification
Issues around the cat's left paw.
So, the potential problematic regions in the image are [MAP]

### Analysis of Issues
- Left paw: it has seven toes.
Based on the overall analysis, the plausibility score for this image is [SCORE]."""


@dataclass(frozen=True)
class Request:
    """One request as it came over the wire."""

    path: str
    key: str
    body: dict

    @property
    def text(self) -> str:
        """Text of the last message."""
        content = self.body["messages"][-1]["content"]
        if isinstance(content, str):
            return content
        return "".join(part["text"] for part in content if part["type"] == "text")

    @property
    def picture(self) -> bytes | None:
        """Content of the JPEG in the first message."""
        content = self.body["messages"][0]["content"]
        if isinstance(content, str):
            return None
        urls = [part["image_url"]["url"] for part in content if part["type"] == "image_url"]
        head, _, data = urls[0].partition(",")
        assert head == "data:image/jpeg;base64"
        return base64.b64decode(data, validate=True)

    @property
    def stage(self) -> str:
        if self.picture is not None:
            return "analysis"
        first = self.body["messages"][0]["content"]
        return "formatting" if "fixed form" in first else "judge"


@dataclass
class Reply:
    """What the server does: answers, or anything else that servers do."""

    text: str | None = "hello"
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    finish: str = "stop"
    raw: bytes | None = None  # instead of a completion
    hang_up: bool = False  # close the connection without a word
    wait_for: threading.Event | None = None  # answer only then
    announce: int = 0  # bytes promised beyond those sent

    def content(self) -> bytes:
        if self.raw is not None:
            return self.raw
        if self.status != 200:
            return json.dumps({"error": {"message": self.text, "code": None}}).encode()
        message = {"role": "assistant", "content": self.text}
        choice = {"index": 0, "message": message, "finish_reason": self.finish}
        return json.dumps({"object": "chat.completion", "choices": [choice]}).encode()


def polite(request: Request) -> Reply:
    """A model that does everything right; its analysis tells pictures apart."""
    if request.stage == "analysis":
        return Reply(f"A free analysis of {len(request.picture or b'')} bytes.")
    if request.stage == "formatting":
        seen = re.findall(r"analysis of (\d+) bytes", request.text)
        return Reply(GOOD.replace("seven toes", f"seven toes ({seen[-1]})" if seen else "toes"))
    return Reply('{"similarity": 80, "reason": "much the same"}')


class ChatServer:
    """Answers as ``plan`` says; keeps every request.

    A list as plan is worked off in order; a function is asked each time.
    """

    def __init__(self, plan: list[Reply] | Callable[[Request], Reply]) -> None:
        self.plan = plan
        self.requests: list[Request] = []
        self.most_at_once = 0
        self._now = 0
        self._lock = threading.Lock()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                key = self.headers.get("authorization", "").removeprefix("Bearer ")
                reply = server.reply(Request(self.path, key, body))
                if reply.wait_for is not None:
                    reply.wait_for.wait(20)
                server.done()
                if reply.hang_up:
                    self.connection.shutdown(socket.SHUT_RDWR)
                    self.close_connection = True
                    return
                content = reply.content()
                self.send_response(reply.status)
                headers = {"content-type": "application/json", **reply.headers}
                headers["content-length"] = str(len(content) + reply.announce)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)
                self.close_connection = bool(reply.announce)

            def log_message(self, *args: object) -> None:
                """Keep the test's output clean."""

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: object, client_address: object) -> None:
                """A client that does not wait for its answer is part of the tests."""

        self._http = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_port}/v1"

    def reply(self, request: Request) -> Reply:
        with self._lock:
            self.requests.append(request)
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)
            if not isinstance(self.plan, list):
                return self.plan(request)
            assert self.plan, "more requests than planned"
            return self.plan.pop(0)

    def done(self) -> None:
        with self._lock:
            self._now -= 1

    def stages(self) -> list[str]:
        return [request.stage for request in self.requests]


@contextmanager
def serving(plan: list[Reply] | Callable[[Request], Reply] = polite) -> Iterator[ChatServer]:
    """A server that runs while the block does."""
    server = ChatServer(plan)
    thread = threading.Thread(target=server._http.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server._http.shutdown()
        server._http.server_close()
        thread.join()


class Time:
    """A clock that only runs while somebody waits: no test sits through a real pause."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.waits: list[float] = []
        self._lock = threading.Lock()

    def clock(self) -> float:
        with self._lock:
            return self.now

    def wait(self, seconds: float) -> bool:
        with self._lock:
            self.now += seconds
            self.waits.append(seconds)
        return False
