"""Requests over real HTTP to a server that answers correctly, badly, late, or not at all."""

import itertools
import json
import socket
import threading
from email.utils import formatdate

import pytest
from chat_server import Reply, Time, serving
from hypothesis import given
from hypothesis import strategies as st

from artifactnet.llm.client import (
    Cancelled,
    Chat,
    Endpoint,
    EndpointError,
    RateLimiter,
    RefusedError,
    UnansweredError,
    assistant_message,
    backoff,
    is_transient,
    retry_after,
    user_message,
)
from artifactnet.types import ArtifactNetError


@pytest.fixture(autouse=True)
def _environment(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret-42")


UNREADABLE = [
    *(b'{"choices": [{"mess', b"{}", b"[]", b'{"choices": []}', b'{"choices": "none"}'),
    *(b'{"choices": [{"message": null}]}', b'{"choices": [{"message": {"content": [1]}}]}'),
    *(b'{"choices": [{"message": {"content": "\xff"}}]}', b"<html>login</html>"),
]


def chat_with(
    url: str, time: Time, rate: float = 0.0, retries: int = 3, timeout: float = 10
) -> Chat:
    limiter = RateLimiter(rate, time.clock, time.wait)
    return Chat(Endpoint(url, retries=retries, timeout=timeout), "some-model", limiter, seed=0)


def test_request_and_answer():
    with serving([Reply("Hello.\n", finish="length")]) as server:
        answer = chat_with(server.url, Time()).ask(
            [user_message("look", b"\xff\xd8jpeg"), assistant_message("hm")]
        )
    assert (answer.text, answer.finish) == ("Hello.\n", "length")
    (request,) = server.requests
    assert request.path == "/v1/chat/completions"
    assert request.key == "sk-secret-42"
    assert request.body.keys() == {"model", "messages"}
    assert request.body["model"] == "some-model"
    assert request.picture == b"\xff\xd8jpeg"
    assert request.body["messages"][0]["content"][1] == {"type": "text", "text": "look"}
    assert request.body["messages"][1] == {"role": "assistant", "content": "hm"}


@pytest.mark.parametrize("temperature", [None, 0.0, 0.7])
def test_temperature_is_sent_only_if_given(temperature):
    with serving() as server:
        chat_with(server.url, Time()).ask([user_message("x")], temperature)
    body = server.requests[0].body
    assert body.get("temperature") == temperature
    assert ("temperature" in body) == (temperature is not None)


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        *((Reply(status=status), f"status {status}") for status in (429, 500, 503)),
        *((Reply(raw=raw), "unreadable answer") for raw in UNREADABLE),
        *((bad, "connection failed") for bad in (Reply(hang_up=True), Reply(announce=50))),
    ],
)
def test_transient_failures_are_retried_and_counted(bad, reason):
    passing = Time()
    with serving([bad, bad, Reply("at last")]) as server:
        chat = chat_with(server.url, passing)
        assert chat.ask([user_message("x")]).text == "at last"
    assert dict(chat.counts) == {"requests": 3, "answers": 1, f"retried: {reason}": 2}
    assert len(passing.waits) == 2
    assert 0.5 <= passing.waits[0] <= 1 <= passing.waits[1] <= 2


def test_timeout():
    release = threading.Event()
    with serving([Reply(wait_for=release), Reply("quick")]) as server:
        chat = chat_with(server.url, Time(), timeout=0.3)
        assert chat.ask([user_message("x")]).text == "quick"
        release.set()
    assert chat.counts["retried: no answer in time"] == 1


def test_unreachable_server():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/v1"
    passing = Time()
    chat = chat_with(url, passing, retries=2)
    with pytest.raises(UnansweredError) as caught:
        chat.ask([user_message("x")])
    assert str(caught.value).startswith(
        f"{url}, model some-model: asked 3 times; connection failed"
    )
    assert len(passing.waits) == 2
    assert chat.counts["requests"] == 3


@pytest.mark.parametrize(
    ("status", "kind", "hint"),
    [
        *((400, RefusedError, ""), (413, RefusedError, ""), (402, EndpointError, "")),
        *((status, EndpointError, "OPENAI_API_KEY") for status in (401, 403)),
        (404, EndpointError, "/v1"),
    ],
)
def test_permanent_failures_are_one_line_without_the_key(status, kind, hint):
    said = "bad\nthing for sk-secret-42 " + "long " * 100
    with serving([Reply(said, status=status)]) as server:
        with pytest.raises(kind) as caught:
            chat_with(server.url, Time()).ask([user_message("x")])
        line = str(caught.value)
        assert line.startswith(
            f"{server.url}, model some-model: status {status}: bad thing for ***"
        )
    assert hint in line
    assert "\n" not in line
    assert "secret" not in line
    assert len(line) < 450
    assert len(server.requests) == 1


def test_no_credit_is_permanent():
    body = {"error": {"message": "quota", "code": "insufficient_quota"}}
    with (
        serving([Reply(status=429, raw=json.dumps(body).encode())]) as server,
        pytest.raises(EndpointError, match="credit"),
    ):
        chat_with(server.url, Time()).ask([user_message("x")])
    assert len(server.requests) == 1


@pytest.mark.parametrize("seconds", [7, 44.5])
def test_retry_after_is_obeyed(seconds):
    passing = Time()
    with serving([Reply(status=429, headers={"Retry-After": str(seconds)}), Reply()]) as server:
        chat_with(server.url, passing).ask([user_message("x")])
    assert passing.now - 1000.0 == pytest.approx(seconds)


def test_retry_after_pauses_every_thread():
    passing = Time()
    sent = []

    def plan(request):
        sent.append((request.body["model"], passing.now - 1000.0))
        return Reply(status=429, headers={"Retry-After": "30"}) if len(sent) == 1 else Reply()

    def wait(seconds):
        if len(sent) == 1 and not passing.waits:  # while the first thread waits
            passing.waits.append(0.0)
            other.ask([user_message("x")])
        return passing.wait(seconds)

    with serving(plan) as server:
        limiter = RateLimiter(0, passing.clock, wait)
        endpoint = Endpoint(server.url)
        other = Chat(endpoint, "other", limiter)
        Chat(endpoint, "first", limiter).ask([user_message("x")])
    assert [model for model, _ in sent] == ["first", "other", "first"]
    assert all(at >= 30 for _, at in sent[1:])


@pytest.mark.parametrize(
    ("status", "pause", "retries", "said"),
    [(429, "30", 0, "once; status 429"), (503, "3600", 3, "3600 s")],
)
def test_last_attempt_and_overlong_pauses_are_not_waited_for(status, pause, retries, said):
    passing = Time()
    with (
        serving([Reply(status=status, headers={"Retry-After": pause})]) as server,
        pytest.raises(UnansweredError, match=said),
    ):
        chat_with(server.url, passing, retries=retries).ask([user_message("x")])
    assert passing.waits == []


def test_null_content_and_lone_surrogate():
    raw = b'{"choices": [{"message": {"content": "a\\ud800b"}, "finish_reason": null}]}'
    with serving([Reply(None), Reply(raw=raw)]) as server:
        chat = chat_with(server.url, Time())
        assert chat.ask([user_message("x")]).text == ""
        answer = chat.ask([user_message("x")])
    assert answer.text == "a\ufffdb"
    assert answer.finish == ""


def test_rate_covers_requests_and_retries():
    passing = Time()
    sent = []

    def plan(request):
        sent.append(passing.now)
        return Reply(status=500) if len(sent) == 2 else Reply()

    with serving(plan) as server:
        chat = chat_with(server.url, passing, rate=12)
        for _ in range(4):
            chat.ask([user_message("x")])
    gaps = [b - a for a, b in itertools.pairwise(sent)]
    assert len(sent) == 5
    assert gaps == pytest.approx([5.0] * 4)


def test_threads_share_the_rate():
    passing, turns = Time(), []
    limiter = RateLimiter(60, passing.clock, passing.wait)

    def work():
        for _ in range(3):
            limiter.acquire()
            turns.append(passing.now)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(turns) == 12
    assert passing.now - 1000.0 >= 11


def test_stop_wakes_waiting_threads():
    limiter = RateLimiter(0.01)  # one request in 100 minutes
    limiter.acquire()
    ended = []

    def work():
        with pytest.raises(Cancelled):
            limiter.acquire()
        ended.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    limiter.stop()
    thread.join(5)
    assert ended == [True]
    with pytest.raises(Cancelled):
        limiter.sleep(60)
    limiter.resume()
    limiter.sleep(0)


@pytest.mark.parametrize(
    "url", ["", "localhost:8000/v1", "ftp://x/v1", "http://", "http://x:99999/v1", "http://[::1/v1"]
)
def test_bad_url_is_refused(url):
    with pytest.raises(ArtifactNetError, match="http://localhost:8000/v1"):
        Chat(Endpoint(url), "m")


def test_password_in_url_is_refused_and_not_shown():
    with pytest.raises(ArtifactNetError, match="OPENAI_API_KEY") as caught:
        Chat(Endpoint("http://me:hidden@example.org/v1"), "m")
    assert "hidden" not in str(caught.value)


def test_keys(monkeypatch):
    with pytest.raises(ArtifactNetError, match="MY_KEY"):
        Chat(Endpoint("http://x/v1", "MY_KEY"), "m")
    monkeypatch.setenv("MY_KEY", "sk-\u00e9")
    with pytest.raises(ArtifactNetError, match="MY_KEY") as caught:
        Chat(Endpoint("http://x/v1", "MY_KEY"), "m")
    assert "sk-" not in str(caught.value)
    with pytest.raises(ArtifactNetError, match="model"):
        Chat(Endpoint("http://x/v1"), " ")
    monkeypatch.delenv("OPENAI_API_KEY")
    with serving([Reply()]) as server:
        Chat(Endpoint(server.url), "m").ask([user_message("x")])
    assert server.requests[0].key == "none"


def test_missing_package(monkeypatch):
    monkeypatch.setattr("artifactnet.llm.client.find_spec", lambda name: None)
    with pytest.raises(ArtifactNetError, match=r"artifactnet\[endpoint\]"):
        Chat(Endpoint("http://x/v1"), "m")


@given(st.integers(0, 5000), st.floats(0, 1))
def test_backoff_doubles_to_a_minute(attempt, share):
    full = min(60, 2 ** min(attempt, 10))
    assert full / 2 <= backoff(attempt, share) <= full


@pytest.mark.parametrize(
    ("status", "code", "wanted"),
    [
        *((status, None, True) for status in (408, 429, 500, 529)),
        *((status, None, False) for status in (400, 404)),
        *((429, "rate_limit_exceeded", True), (429, "insufficient_quota", False)),
    ],
)
def test_transient(status, code, wanted):
    assert is_transient(status, code) is wanted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        *(("3", 3.0), (" 2.5 ", 2.5), ("-4", 0.0), ("nan", None), ("", None), ("soon", None)),
        (formatdate(1_000_090, usegmt=True), 90.0),
        (formatdate(999_000, usegmt=True), 0.0),
    ],
)
def test_retry_after(text, wanted):
    assert retry_after({"retry-after": text}, now=1_000_000.0) == wanted
