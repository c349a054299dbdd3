"""Requests over real HTTP to a server that answers well, badly, late, or not at all."""

from __future__ import annotations

import itertools
import json
import socket
import threading
import time
from email.utils import formatdate
from types import SimpleNamespace

import pytest
from chat_server import Reply, Time, serving
from hypothesis import given
from hypothesis import strategies as st

from artifactnet.llm.client import (
    Chat,
    Endpoint,
    EndpointError,
    Pace,
    RefusedError,
    Stopped,
    UnansweredError,
    assistant,
    backoff,
    is_transient,
    pause_asked_for,
    user,
)
from artifactnet.types import ArtifactNetError


@pytest.fixture(autouse=True)
def _environment(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret-42")


def chat_with(
    url: str, time: Time, rate: float = 0.0, retries: int = 3, timeout: float = 10
) -> Chat:
    pace = Pace(rate, time.clock, time.wait)
    return Chat(Endpoint(url, retries=retries, timeout=timeout), "some-model", pace, seed=0)


def test_a_good_answer_and_what_is_sent():
    with serving([Reply("Hello.\n", finish="length")]) as server:
        answer = chat_with(server.url, Time()).ask([user("look", b"\xff\xd8jpeg"), assistant("hm")])
    assert (answer.text, answer.finish) == ("Hello.\n", "length")
    (request,) = server.requests
    assert request.path == "/v1/chat/completions"
    assert request.key == "sk-secret-42"
    assert request.body.keys() == {"model", "messages"}
    assert request.body["model"] == "some-model"
    assert request.picture == b"\xff\xd8jpeg"
    assert request.body["messages"][0]["content"][1] == {"type": "text", "text": "look"}
    assert request.body["messages"][1] == {"role": "assistant", "content": "hm"}


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (Reply(status=500), "status 500"),
        (Reply(status=503), "status 503"),
        (Reply(status=429), "status 429"),
        (Reply(raw=b'{"choices": [{"mess'), "unreadable answer"),
        (Reply(raw=b"{}"), "unreadable answer"),
        (Reply(raw=b"[]"), "unreadable answer"),
        (Reply(raw=b'{"choices": []}'), "unreadable answer"),
        (Reply(raw=b'{"choices": "none"}'), "unreadable answer"),
        (Reply(raw=b'{"choices": [{"message": null}]}'), "unreadable answer"),
        (Reply(raw=b'{"choices": [{"message": {"content": [1]}}]}'), "unreadable answer"),
        (Reply(raw=b'{"choices": [{"message": {"content": "\xff"}}]}'), "unreadable answer"),
        (
            Reply(raw=b"<html>login</html>", headers={"content-type": "text/html"}),
            "unreadable answer",
        ),
        (Reply(hang_up=True), "connection failed"),
        (Reply(announce=50), "connection failed"),
    ],
)
def test_what_may_pass_is_tried_again_and_counted(bad, reason):
    passing = Time()
    with serving([bad, bad, Reply("at last")]) as server:
        chat = chat_with(server.url, passing)
        assert chat.ask([user("x")]).text == "at last"
    assert dict(chat.counts) == {"requests": 3, "answers": 1, f"retried: {reason}": 2}
    assert len(passing.waits) == 2
    assert 0.5 <= passing.waits[0] <= 1 <= passing.waits[1] <= 2


def test_silence_is_a_failure_after_the_timeout():
    release = threading.Event()
    with serving([Reply(wait_for=release), Reply("quick")]) as server:
        chat = chat_with(server.url, Time(), timeout=0.3)
        assert chat.ask([user("x")]).text == "quick"
        release.set()
    assert chat.counts["retried: no answer in time"] == 1


def test_a_server_that_is_not_there():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/v1"
    passing = Time()
    chat = chat_with(url, passing, retries=2)
    with pytest.raises(UnansweredError) as caught:
        chat.ask([user("x")])
    assert str(caught.value).startswith(
        f"{url}, model some-model: asked 3 times; connection failed"
    )
    assert len(passing.waits) == 2
    assert chat.counts["requests"] == 3


@pytest.mark.parametrize(
    ("status", "kind", "hint"),
    [
        (400, RefusedError, ""),
        (413, RefusedError, ""),
        (401, EndpointError, "environment variable OPENAI_API_KEY"),
        (403, EndpointError, "may not use this model"),
        (404, EndpointError, "ends in the version"),
        (402, EndpointError, "cannot be used"),
    ],
)
def test_what_cannot_pass_fails_at_once_in_one_line(status, kind, hint):
    said = "bad\nthing for sk-secret-42 " + "long " * 100
    with serving([Reply(said, status=status)]) as server:
        with pytest.raises(kind) as caught:
            chat_with(server.url, Time()).ask([user("x")])
        line = str(caught.value)
        assert line.startswith(
            f"{server.url}, model some-model: status {status}: bad thing for ***"
        )
    assert hint in line
    assert "\n" not in line
    assert "secret" not in line
    assert len(line) < 450
    assert len(server.requests) == 1


def test_an_account_without_credit_is_not_asked_again():
    body = {"error": {"message": "quota", "code": "insufficient_quota"}}
    with (
        serving([Reply(status=429, raw=json.dumps(body).encode())]) as server,
        pytest.raises(EndpointError, match="no credit"),
    ):
        chat_with(server.url, Time()).ask([user("x")])
    assert len(server.requests) == 1


@pytest.mark.parametrize("seconds", [7, 44.5])
def test_retry_after_is_obeyed(seconds):
    passing = Time()
    with serving([Reply(status=429, headers={"Retry-After": str(seconds)}), Reply()]) as server:
        chat_with(server.url, passing).ask([user("x")])
    assert passing.now - 1000.0 == pytest.approx(seconds)


def test_retry_after_holds_every_thread_back():
    passing = Time()
    sent = []

    def plan(request):
        sent.append((request.body["model"], passing.now - 1000.0))
        return Reply(status=429, headers={"Retry-After": "30"}) if len(sent) == 1 else Reply()

    def wait(seconds):
        if len(sent) == 1 and not passing.waits:  # while the first thread sits out its pause
            passing.waits.append(0.0)
            other.ask([user("x")])
        return passing.wait(seconds)

    with serving(plan) as server:
        pace = Pace(0, passing.clock, wait)
        endpoint = Endpoint(server.url)
        other = Chat(endpoint, "other", pace)
        Chat(endpoint, "first", pace).ask([user("x")])
    assert [model for model, _ in sent] == ["first", "other", "first"]
    assert all(at >= 30 for _, at in sent[1:])


def test_the_last_attempt_does_not_wait_for_nothing():
    passing = Time()
    with (
        serving([Reply(status=429, headers={"Retry-After": "30"})]) as server,
        pytest.raises(UnansweredError, match="asked once; status 429"),
    ):
        chat_with(server.url, passing, retries=0).ask([user("x")])
    assert passing.waits == []


def test_a_pause_of_an_hour_is_not_sat_through():
    passing = Time()
    with (
        serving([Reply(status=503, headers={"Retry-After": "3600"})]) as server,
        pytest.raises(UnansweredError, match="wants a pause of 3600 s"),
    ):
        chat_with(server.url, passing).ask([user("x")])
    assert passing.waits == []


def test_no_text_is_an_empty_answer_and_half_a_character_does_no_harm():
    raw = b'{"choices": [{"message": {"content": "a\\ud800b"}, "finish_reason": null}]}'
    with serving([Reply(None), Reply(raw=raw)]) as server:
        chat = chat_with(server.url, Time())
        assert chat.ask([user("x")]).text == ""
        answer = chat.ask([user("x")])
    assert answer.text == "a\ufffdb"
    assert answer.finish == ""


def test_rate_is_kept_over_requests_and_retries():
    passing = Time()
    sent = []

    def plan(request):
        sent.append(passing.now)
        return Reply(status=500) if len(sent) == 2 else Reply()

    with serving(plan) as server:
        chat = chat_with(server.url, passing, rate=12)
        for _ in range(4):
            chat.ask([user("x")])
    gaps = [b - a for a, b in itertools.pairwise(sent)]
    assert len(sent) == 5
    assert gaps == pytest.approx([5.0] * 4)


def test_threads_share_the_rate():
    pace = Pace(60 / 0.05)
    turns = []

    def work():
        for _ in range(3):
            pace.turn()
            turns.append(time.monotonic())

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    turns.sort()
    assert len(turns) == 12
    assert turns[-1] - turns[0] >= 11 * 0.05 - 0.02


def test_stop_wakes_those_who_wait():
    pace = Pace(0.01)  # one request in 100 minutes
    pace.turn()
    ended = []

    def work():
        with pytest.raises(Stopped):
            pace.turn()
        ended.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    pace.stop()
    thread.join(5)
    assert ended == [True]
    with pytest.raises(Stopped, match="called off"):
        pace.sleep(60)
    pace.resume()
    pace.sleep(0)


@pytest.mark.parametrize(
    "url", ["", "localhost:8000/v1", "ftp://x/v1", "http://", "http://x:99999/v1", "http://[::1/v1"]
)
def test_a_bad_url_is_refused(url):
    with pytest.raises(ArtifactNetError, match="no URL of an endpoint"):
        Chat(Endpoint(url), "m")


def test_a_password_in_the_url_is_refused_and_not_shown():
    with pytest.raises(ArtifactNetError, match="environment variable") as caught:
        Chat(Endpoint("http://me:hidden@example.org/v1"), "m")
    assert "hidden" not in str(caught.value)


def test_keys(monkeypatch):
    with pytest.raises(ArtifactNetError, match="MY_KEY is not set"):
        Chat(Endpoint("http://x/v1", "MY_KEY"), "m")
    monkeypatch.setenv("MY_KEY", "sk-\u00e9")
    with pytest.raises(ArtifactNetError, match="MY_KEY holds no key") as caught:
        Chat(Endpoint("http://x/v1", "MY_KEY"), "m")
    assert "sk-" not in str(caught.value)
    with pytest.raises(ArtifactNetError, match="name is empty"):
        Chat(Endpoint("http://x/v1"), " ")
    monkeypatch.delenv("OPENAI_API_KEY")
    with serving([Reply()]) as server:
        Chat(Endpoint(server.url), "m").ask([user("x")])
    assert server.requests[0].key == "none"


def test_a_missing_package_is_said_with_its_command(monkeypatch):
    monkeypatch.setattr("artifactnet.llm.client.find_spec", lambda name: None)
    with pytest.raises(ArtifactNetError, match=r"pip install 'artifactnet\[endpoint\]'"):
        Chat(Endpoint("http://x/v1"), "m")


@given(st.integers(0, 5000), st.floats(0, 1))
def test_backoff_doubles_to_a_minute(attempt, share):
    full = min(60, 2 ** min(attempt, 10))
    assert full / 2 <= backoff(attempt, share) <= full


@pytest.mark.parametrize(
    ("status", "code", "wanted"),
    [
        (429, None, True),
        (429, "rate_limit_exceeded", True),
        (429, "insufficient_quota", False),
        (408, None, True),
        (500, None, True),
        (529, None, True),
        (400, None, False),
        (404, None, False),
    ],
)
def test_transient(status, code, wanted):
    assert is_transient(status, code) is wanted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("3", 3.0),
        (" 2.5 ", 2.5),
        ("-4", 0.0),
        ("nan", None),
        ("", None),
        ("soon", None),
        (formatdate(1_000_090, usegmt=True), 90.0),
        (formatdate(999_000, usegmt=True), 0.0),
    ],
)
def test_both_forms_of_retry_after(text, wanted):
    response = SimpleNamespace(headers={"retry-after": text})
    assert pause_asked_for(response, now=1_000_000.0) == wanted


def test_no_retry_after():
    assert pause_asked_for(SimpleNamespace(headers={})) is None
