"""``artifactnet annotate``: options, output, and exit codes."""

import json

import numpy as np
import pytest
from annotated_files import picture, png, spot
from chat_server import Reply, polite, serving

from artifactnet.cli import _parser
from artifactnet.llm.client import RateLimiter
from artifactnet.types import ArtifactNetError


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.chdir(tmp_path)
    for k in range(3):
        picture(tmp_path / "images" / f"{k}.png")
    (tmp_path / "masks").mkdir()
    for k in range(2):
        (tmp_path / "masks" / f"{k}.png").write_bytes(png(np.where(spot(), 255, 0)))
    return tmp_path


def run(*words: str) -> int:
    args = _parser().parse_args(["annotate", "images", "masks", "--out", "out.jsonl", *words])
    return args.run(args)


def test_a_good_run(data, capsys, monkeypatch):
    monkeypatch.setenv("MY_KEY", "k-1")
    words = ["--model", "eye", "--format-model", "pen", "--api-key-env", "MY_KEY"]
    with serving() as server:
        options = ["--base-url", server.url, *words, "--keep-pictures", "kept", "--workers", "2"]
        assert run(*options, "--rate", "60000") == 0
    assert {request.key for request in server.requests} == {"k-1"}
    models = {(request.stage, request.body["model"]) for request in server.requests}
    assert models == {("analysis", "eye"), ("formatting", "pen")}
    said = capsys.readouterr()
    assert said.out.splitlines() == [
        "0.png: done",
        "1.png: done",
        "2 of 3 images explained; 4 requests, 4 answers, 0 invalid answers in all",
        "out.jsonl",
    ]
    assert said.err.splitlines() == [
        "1 could not be used:",
        "  images/2.png: no mask of this name in masks",
    ]
    assert len((data / "out.jsonl").read_text().splitlines()) == 2
    assert sorted(path.name for path in (data / "kept").iterdir()) == ["0.jpg", "1.jpg"]


def test_problems_are_printed(data, capsys):
    def plan(request):
        if len(server.requests) == 1:
            return Reply(status=500, headers={"Retry-After": "0.01"})
        bad = request.stage == "formatting" and "'" not in request.body["model"]
        return Reply("no form at all") if bad else polite(request)

    with serving(plan) as server:
        words = ["--base-url", server.url, "--model", "eye", "--attempts", "2"]
        assert run(*words) == 1
        said = capsys.readouterr()
        assert "0 of 3 images explained; 7 requests, 6 answers, 4 invalid" in said.out
        assert "out.jsonl" not in said.out
        assert "retried: status 500: 1\n" in said.err
        assert "2 rejected:\n  images/0.png: formatting: 2 invalid answers; " in said.err
        raw = data / "out.raw.jsonl"
        raw.write_text(raw.read_text() + '{"key"')
        assert run(*words) == 1
        assert "warning: out.raw.jsonl: its last line is only half written" in (
            capsys.readouterr().err
        )
    assert len(server.requests) == 7
    assert len((data / "out.rejected.jsonl").read_text().splitlines()) == 2
    assert {json.loads(line)["note"] for line in raw.read_text().splitlines()} == {"0.png", "1.png"}


@pytest.mark.parametrize(
    "words",
    [
        ["--base-url", "http://x/v1"],
        ["--model", "m"],
        ["--base-url", "http://x/v1", "--model", "m", "--rate", "-1"],
        ["--base-url", "http://x/v1", "--model", "m", "--rate", "nan"],
        ["--base-url", "http://x/v1", "--model", "m", "--timeout", "0"],
        ["--base-url", "http://x/v1", "--model", "m", "--timeout", "inf"],
        ["--base-url", "http://x/v1", "--model", "m", "--workers", "0"],
        ["--base-url", "http://x/v1", "--model", "m", "--attempts", "0"],
        ["--base-url", "http://x/v1", "--model", "m", "--retries", "-1"],
    ],
)
def test_options_out_of_range_are_refused(data, words, capsys):
    with pytest.raises(SystemExit) as caught:
        run(*words)
    assert caught.value.code == 2


def test_user_errors_come_before_any_file_is_written(data):
    with pytest.raises(ArtifactNetError, match="localhost"):
        run("--base-url", "localhost", "--model", "m")
    with pytest.raises(ArtifactNetError, match="MY_KEY"):
        run("--base-url", "http://x/v1", "--model", "m", "--api-key-env", "MY_KEY")
    assert sorted(path.name for path in data.iterdir()) == ["images", "masks"]


def test_rate_reaches_the_requests(data, monkeypatch):
    rates = []

    class Limiter(RateLimiter):
        def __init__(self, per_minute):
            rates.append(per_minute)
            super().__init__(per_minute)

    monkeypatch.setattr("artifactnet.llm.client.RateLimiter", Limiter)
    with serving() as server:
        assert run("--base-url", server.url, "--model", "m", "--rate", "60000") == 0
    assert rates == [60000]
