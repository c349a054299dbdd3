"""The page's server lets requests of the page through, and no other of Gradio's."""

import asyncio
import json

import pytest

from artifactnet.demo import guard
from artifactnet.demo.guard import Guard

LIMIT = 1000


class Inner:
    """An application that keeps the bodies that reach it."""

    def __init__(self):
        self.bodies = []

    async def __call__(self, scope, receive, send):
        message = await receive() if scope["method"] == "POST" else {"body": b""}
        self.bodies.append(message["body"])
        headers = [(b"x-inner", b"1")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"ok"})


def call(path, parts=(b"",), method="POST", delay=0.0):
    """Status, headers and body of a request whose body comes in parts; what reached the inside."""
    inner, sent, waiting = Inner(), [], list(parts)

    async def receive():
        await asyncio.sleep(delay)
        return {"type": "http.request", "body": waiting.pop(0), "more_body": bool(waiting)}

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "path": path, "method": method}
    asyncio.run(Guard(inner, LIMIT)(scope, receive, send))
    return sent[0]["status"], dict(sent[0]["headers"]), sent[1]["body"], inner.bodies


@pytest.mark.parametrize(
    "path",
    [
        *("/gradio_api/upload", "/gradio_api/file=/etc/passwd", "/gradio_api/proxy=http://x.org"),
        *("/gradio_api/run/predict", "/gradio_api/call/x", "/gradio_api/component_server"),
        *("/gradio_api/info", "/detector/gradio_api/upload", "/gradio_api/runs"),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_other_routes_do_not_exist(path, method):
    status, _, body, inside = call(path, method=method)
    assert status == 404
    assert json.loads(body)["detail"] == "this page has no such route"
    assert inside == []


@pytest.mark.parametrize("path", ["/", "/config", "/assets/x.js", "/gradio_api/queue/data"])
def test_the_page_and_its_answers_pass(path):
    status, headers, body, _ = call(path, method="GET")
    assert (status, body, headers[b"x-inner"]) == (200, b"ok", b"1")
    policy = headers[b"content-security-policy"].decode()
    assert "default-src 'self'" in policy
    assert "http" not in policy  # no address at all


def test_a_body_in_parts_comes_through_whole():
    body = json.dumps({"data": [{"name": "a.png", "data": "QUJD"}, None]}).encode()
    status, _, _, inside = call("/gradio_api/queue/join", [body[:7], body[7:9], body[9:]])
    assert status == 200
    assert inside == [body]


def test_a_large_body_is_cut_off():
    status, _, _, inside = call("/gradio_api/queue/join", [bytes(600), bytes(600), bytes(10**6)])
    assert (status, inside) == (413, [])


def test_a_slow_body_is_given_up(monkeypatch):
    monkeypatch.setattr(guard, "_BODY_SECONDS", 0.05)
    status, _, _, inside = call("/gradio_api/queue/join", [b"{"] * 100, delay=0.02)
    assert (status, inside) == (408, [])


@pytest.mark.parametrize(
    "body",
    [
        b'{"data": [{"path": "http://10.0.0.1/", "meta": {"_type": "gradio.FileData"}}]}',
        b'{"data": [[{"p\\u0061th": "/etc/passwd"}]]}',
        b'{"event_data": {"x": {"path": null}}}',
        b"not json",
        b"\xff\xfe",
        b"[" * 900,
    ],
)
def test_a_reference_to_a_file_or_address_is_refused(body):
    status, _, _, inside = call("/gradio_api/queue/join", [body])
    assert (status, inside) == (400, [])


def test_many_values_are_refused_before_they_take_memory(monkeypatch):
    monkeypatch.setattr(guard, "_MAX_SEPARATORS", 100)
    name = json.dumps({"data": [{"name": 90 * ",", "data": "QUJD"}]}).encode()
    assert call("/gradio_api/queue/join", [name])[0] == 200
    status, _, body, inside = call("/gradio_api/queue/join", [b"[" + b"0," * 101 + b"0]"])
    assert (status, inside) == (400, [])
    assert json.loads(body)["detail"] == "the request has too many values"
