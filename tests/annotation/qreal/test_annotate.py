"""The four stages against a real HTTP server: kills, bad servers, second runs, costs."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from chat_server import Reply, serving
from qreal_stubs import StubDetector, StubScorer, chat, polite, save_images, stage_of

from artifactnet.annotation.qreal.annotate import STAGES, annotate_images
from artifactnet.data.qreal import read_qreal
from artifactnet.llm.client import EndpointError
from artifactnet.types import ArtifactNetError


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def data(tmp_path):
    save_images(tmp_path / "images")
    return tmp_path


def run(root, server, out="out.jsonl", detector=None, scorer=None, **options):
    return annotate_images(
        root / "images",
        root / out,
        options.pop("chat", None) or chat(server),
        detector or StubDetector(),
        scorer or StubScorer(),
        **options,
    )


def contents(root, out="out"):
    return [(root / f"{out}{end}").read_bytes() for end in (".jsonl", ".raw.jsonl")]


@pytest.fixture
def whole(data):
    """Output and log of an uninterrupted run of one worker."""
    with serving(polite) as server:
        run(data, server, "whole.jsonl")
    return contents(data, "whole")


def test_lines_are_those_of_the_schema(data):
    with serving(polite) as server:
        summary = run(data, server)
    assert summary.failures == summary.set_aside == []
    images = read_qreal(data / "out.jsonl")
    assert (summary.images, summary.entities) == (3, sum(len(i.entities) for i in images))
    assert summary.asked == len(server.requests) == 3 + summary.entities
    assert [image.image for image in images] == [f"images/{k}.png" for k in range(3)]
    assert [image.uid for image in images] == ["0", "1", "2"]
    assert not any(image.verified for image in images)
    assert [e.id for e in images[1].entities] == [f"1-{k}" for k in range(len(images[1].entities))]
    man = next(e for i in images for e in i.entities if e.label == "old man")
    assert man.plausibility == "Six fingers. A third arm."
    assert man.has_problem("realism")
    assert all(0 <= e.quality <= 1 for image in images for e in image.entities)
    rows = map(json.loads, (data / "out.jsonl").read_text().splitlines())
    assert all(row["verified"] is False for row in rows)


def test_each_stage_alone_and_then_all_is_the_same_as_at_once(data, whole):
    detector, scorer = StubDetector(), StubScorer()
    with serving(polite) as server:
        for number, stage in enumerate(STAGES):
            asked = len(server.requests)
            summary = run(data, server, detector=detector, scorer=scorer, until=stage)
            assert summary.failures == summary.set_aside == []
            assert (summary.out is None) == (number < 3)
            assert (data / "out.jsonl").exists() == (number == 3)
            stages = {stage_of(request) for request in server.requests[asked:]}
            assert stages == ({stage} if stage in ("entities", "answers") else set())
    assert contents(data) == whole
    assert len(detector.asked) == 9
    assert scorer.asked == read_entities(data)


def read_entities(root):
    return sum(len(image.entities) for image in read_qreal(root / "out.jsonl"))


@pytest.mark.parametrize("half", [False, True])
def test_a_killed_run_goes_on_where_it_was(data, whole, half):
    """After each line of the log, and in the middle of one: all states that a kill leaves."""
    lines = whole[1].splitlines(keepends=True)
    raw = data / "out.raw.jsonl"
    for kept in range(half, len(lines), 2 + 3 * half):
        raw.write_bytes(b"".join(lines[:kept]) + lines[kept][: 20 * half])
        (data / "out.jsonl").unlink(missing_ok=True)
        detector, scorer = StubDetector(), StubScorer()
        with serving(polite) as server:
            summary = run(data, server, detector=detector, scorer=scorer)
        assert contents(data) == whole
        assert len(server.requests) + len(detector.asked) + scorer.asked == len(lines) - kept
        assert bool(summary.warnings) == half


def test_a_second_run_asks_nothing(data, whole):
    broken = StubDetector({})
    with serving([]) as server:
        summary = run(data, server, "whole.jsonl", detector=broken)
    assert (summary.asked, summary.images) == (0, 3)
    assert contents(data, "whole") == whole


def test_workers_change_the_order_of_the_log_alone(data, whole):
    ready = threading.Event()

    def plan(request):
        reply = polite(request)
        if stage_of(request) == "entities":
            reply.wait_for = ready
            if len(server.requests) == 3:
                ready.set()
        return reply

    with serving(plan) as server:
        run(data, server, workers=4)
        assert server.most_at_once >= 3
    out, log = contents(data)
    assert out == whole[0]
    assert sorted(log.splitlines()) == sorted(whole[1].splitlines())


def test_a_bad_server_loses_nothing(data, whole):
    """429, 500, a lost connection, broken JSON around and inside of the answer."""
    bad = [
        Reply(status=429, headers={"Retry-After": "1"}),
        Reply(status=500),
        Reply(hang_up=True),
        Reply(raw=b'{"choices": ['),
        Reply("I cannot see any image."),
        Reply('["cat", '),
        Reply('{"answers": {"realism_1": "Yes"'),
    ]
    turn = -1

    def plan(request):
        nonlocal turn
        turn += 1  # good answers between them
        return bad[turn // 2 % len(bad)] if turn % 2 == 0 else polite(request)

    with serving(plan) as server:
        summary = run(data, server, attempts=5)
    assert summary.failures == summary.set_aside == []
    assert (data / "out.jsonl").read_bytes() == whole[0]
    assert summary.invalid > 0


def test_a_server_that_is_slow_is_waited_for(data, whole):
    wait = threading.Event()

    def plan(request):
        reply = polite(request)
        if len(server.requests) == 1:
            reply.wait_for = wait
            threading.Timer(0.5, wait.set).start()
        return reply

    with serving(plan) as server:
        run(data, server)
    assert contents(data) == whole


def test_a_server_that_goes_away_leaves_what_was_answered(data, whole):
    def plan(request):
        return polite(request) if len(server.requests) <= 5 else Reply(status=503)

    with serving(plan) as server:
        with pytest.raises(ArtifactNetError, match="questions in a row.*same command again"):
            run(data, server)
        assert not (data / "out.jsonl").exists()
        server.plan = polite
        before = len(server.requests)
        run(data, server)
        assert len(server.requests) - before == 3 + read_entities(data) - 5
    assert contents(data) == whole


def test_one_question_without_an_answer_leaves_out_its_image(data, whole):
    def plan(request):
        if stage_of(request) == "answers" and "old man" in request.text and not gone:
            gone.append(request)
        return Reply(status=503) if gone and request.body == gone[0].body else polite(request)

    gone = []
    with serving(plan) as server:
        summary = run(data, server)
        assert (summary.images, len(summary.failures)) == (2, 1)
        assert "answers: " in summary.failures[0].reason
        assert "status 503" in summary.failures[0].reason
        (row,) = map(json.loads, (data / "out.rejected.jsonl").read_text().splitlines())
        assert row["stage"] == "answers"
        server.plan = polite
        assert run(data, server).asked == 1
    assert (data / "out.jsonl").read_bytes() == whole[0]
    assert not (data / "out.rejected.jsonl").exists()


def test_invalid_answers_set_an_image_aside_until_more_attempts(data):
    def plan(request):
        return Reply("no list") if stage_of(request) == "entities" else polite(request)

    with serving(plan) as server:
        summary = run(data, server, attempts=2)
        assert (summary.images, summary.out, summary.asked, summary.invalid) == (0, None, 6, 6)
        reasons = {one.reason for one in summary.set_aside}
        assert reasons == {"entities: 2 invalid answers; the answer holds no JSON list of names"}
        assert "no JSON list of names" in server.requests[1].text
        assert run(data, server, attempts=2).asked == 0
        server.plan = polite
        assert run(data, server, attempts=3).images == 3


def test_refused_images_are_set_aside(data):
    def plan(request):
        number = len(server.requests)
        return Reply("too large", status=413) if number == 2 else polite(request)

    with serving(plan) as server:
        summary = run(data, server)
        assert summary.images == 2
        assert "status 413: too large" in summary.set_aside[0].reason
        server.plan = lambda request: Reply("no images", status=400)
        with pytest.raises(ArtifactNetError, match="refused every request so far"):
            run(data, server, chat=chat(server, "blind"))
        server.plan = lambda request: Reply("no key", status=401)
        with pytest.raises(EndpointError, match="OPENAI_API_KEY"):
            run(data, server, chat=chat(server, "locked"))


def test_nothing_seen_and_nothing_found(data):
    nothing = StubDetector({name: ([], []) for name in ("violin", "old man", "cat")})

    def plan(request):
        return Reply("[]") if len(server.requests) == 1 else polite(request)

    with serving(plan) as server:
        summary = run(data, server, detector=nothing)
    assert summary.images == 0
    assert [one.reason for one in summary.set_aside] == [
        "entities: the model sees nothing to annotate",
        *["detect: no box, or only small ones, for violin, old man, cat"] * 2,
    ]
    assert summary.asked == 3


def test_a_broken_model_ends_the_run_and_a_broken_image_does_not(data):
    class Picky(StubDetector):
        def detect(self, image, name):
            if image.shape[0] == 90:
                return [[0, 0, float("nan"), 9]], [0.5]
            return super().detect(image, name)

    save_images(data / "images" / "later", 1, (90, 90))
    (data / "images" / "3.png").write_bytes((data / "images/0.png").read_bytes()[:3000])
    with serving(polite) as server:
        with pytest.raises(ArtifactNetError, match="1 boxes and 0 scores"):
            run(data, server, detector=StubDetector({"violin": ([[0, 0, 9, 9]], [])}))
        summary = run(data, server, detector=Picky())
    assert summary.images == 3
    reasons = {Path(one.path).name: one.reason for one in summary.failures}
    assert "not finite" in reasons["0.png"]
    assert len(reasons) == 2


def test_without_a_scorer_there_is_no_quality(data):
    with serving(polite) as server:
        annotate_images(data / "images", data / "out.jsonl", chat(server), StubDetector(), None)
        answered = [r.text for r in server.requests if stage_of(r) == "answers"]
    assert all(e.quality is None for i in read_qreal(data / "out.jsonl") for e in i.entities)
    assert not any("quality from" in text for text in answered)


def test_more_boxes_need_no_new_detection(data):
    boxes = [[0, 0, 50, 50], [100, 0, 150, 50], [0, 100, 50, 150]]
    names = ("violin", "old man", "cat")
    detector = StubDetector({name: (boxes, [0.9, 0.8, 0.7]) for name in names})
    with serving(polite) as server:
        # three names for one box: one entity
        assert run(data, server, detector=detector).entities == 3
        assert run(data, server, detector=detector, max_boxes=3).entities == 9
    assert len(detector.asked) == 9


def test_generators_share_uids(data):
    for name in ("flux", "sd"):
        save_images(data / "images" / name, 2)
    with serving(polite) as server:
        with pytest.raises(ArtifactNetError, match=r"0\.png: lies in no folder of a generator"):
            run(data, server, generator_folders=True)
        for k in range(3):
            (data / f"images/{k}.png").unlink()
        run(data, server, generator_folders=True)
    images = read_qreal(data / "out.jsonl")
    assert [(i.generator, i.uid) for i in images] == [
        ("flux", "0"),
        ("flux", "1"),
        ("sd", "0"),
        ("sd", "1"),
    ]
    # the same picture twice is asked about once
    assert len([r for r in server.requests if stage_of(r) == "entities"]) == 2


def test_costs_are_known_before_anything_is_asked(data):
    said = []

    def report(name, what):
        said.append((name, what, len(server.requests)))

    with serving(polite) as server:
        with pytest.raises(ArtifactNetError, match=r"at most 39 calls are more than 38.*--yes"):
            run(data, server, max_calls=38, report=report)
        assert server.requests == []
        assert not (data / "out.jsonl").exists()
        assert said[0][0] == "cost"
        assert said[0][1].startswith("3 images: 3 calls for names, at most 36 for answers;")
        run(data, server, max_calls=3, until="entities", report=report)
        with pytest.raises(ArtifactNetError, match="at most 9 calls"):
            run(data, server, max_calls=8)
        run(data, server, max_calls=0, until="detect")
        run(data, server, max_calls=0, until="quality")
        said.clear()
        summary = run(data, server, max_calls=9, report=report)
        exact = f"3 images: 0 calls for names, {summary.entities} for answers;"
        assert said[0][1].startswith(exact)
        said.clear()
        run(data, server, max_calls=0, report=report)
        assert said[0][1].startswith("3 images: 0 calls for names, 0 for answers;")


def test_unusable_folders_and_files(data):
    with serving([]) as server:
        with pytest.raises(ArtifactNetError, match="no such folder"):
            annotate_images(data / "none", data / "out.jsonl", chat(server), StubDetector())
        (data / "empty").mkdir()
        (data / "empty/a.txt").write_text("x")
        with pytest.raises(ArtifactNetError, match=r"holds no images \(1 text"):
            annotate_images(data / "empty", data / "out.jsonl", chat(server), StubDetector())
        with pytest.raises(ArtifactNetError, match=r"must end in \.jsonl"):
            run(data, server, "out.json")
        (data / "mine.jsonl").write_text("{}\n")
        with pytest.raises(ArtifactNetError, match="was not made by annotate"):
            run(data, server, "mine.jsonl")
        with pytest.raises(ArtifactNetError, match="unknown stage 'boxes'"):
            run(data, server, until="boxes")


SCRIPT = """
import sys
from pathlib import Path
from qreal_stubs import StubDetector, StubScorer
from artifactnet.annotation.qreal.annotate import annotate_images
from artifactnet.llm.client import Chat, Endpoint
root = Path(sys.argv[1])
chat = Chat(Endpoint(sys.argv[2]), "eye")
annotate_images(root / "images", root / "out.jsonl", chat, StubDetector(), StubScorer())
"""


@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
def test_a_process_that_is_killed_goes_on(data, whole):
    stuck = threading.Event()

    def plan(request):
        reply = polite(request)
        if len(server.requests) == 6:
            reply.wait_for = stuck
        return reply

    with serving(plan) as server:
        paths = os.pathsep.join(map(str, Path(__file__).parents[2:4]))
        process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(data), server.url],
            env={**os.environ, "PYTHONPATH": paths},
        )
        deadline = time.monotonic() + 120
        while len(server.requests) < 6 and time.monotonic() < deadline:
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        process.wait()
        stuck.set()
        assert not (data / "out.jsonl").exists()
        server.plan = polite
        before = len(server.requests)
        run(data, server)
        assert len(server.requests) - before == 3 + read_entities(data) - 5
    assert contents(data) == whole


def test_names_in_reports_are_those_of_images(data):
    said = []
    with serving(polite) as server:
        run(data, server, report=lambda name, what: said.append(f"{name}: {what}"))
    assert "1.png: entities: done" in said
    assert any(re.fullmatch(r"1\.png: detect: cat: best score 0\.\d\d", line) for line in said)
    assert any(re.fullmatch(r"1\.png: quality: \w.*: 0\.\d\d", line) for line in said)
    assert any(line.startswith("1.png: 0 ") and line.endswith("answers: done") for line in said)
