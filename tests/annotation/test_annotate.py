"""The three stages against a real HTTP server: good models, bad ones, kills and second runs."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from annotated_files import picture, png, spot
from chat_server import GOOD, Reply, Time, polite, serving
from PIL import Image

from artifactnet.annotation.annotate import annotate
from artifactnet.data.converters import expl_aigi_eval
from artifactnet.data.manifest_format import read as read_manifest
from artifactnet.llm import answer_log
from artifactnet.llm.client import Chat, Endpoint, EndpointError, Pace, user
from artifactnet.types import Annotation, ArtifactNetError
from artifactnet.vlm.text import chain_of_thought

MASK = np.where(spot((32, 32)), 255, 0)


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def data(tmp_path):
    """Four images with masks."""
    for k in range(4):
        picture(tmp_path / "images" / "sd" / f"{k}.png", (32, 32))
        mask(tmp_path, f"sd/{k}.png")
    return tmp_path


def mask(root: Path, name: str, pixels: np.ndarray = MASK) -> None:
    path = root / "masks" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png(pixels))


def chat(url: str, model: str = "eye", retries: int = 2) -> Chat:
    passing = Time()
    pace = Pace(0, passing.clock, passing.wait)
    return Chat(Endpoint(url, retries=retries, timeout=20), model, pace, seed=0)


def run(root: Path, url: str, **options):
    analyst = options.pop("analyst", None) or chat(url)
    return annotate(root / "images", root / "masks", root / "out.jsonl", analyst, **options)


def rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_records_that_the_reader_of_the_real_set_reads(data):
    with serving() as server:
        summary = run(data, server.url, formatter=chat(server.url, "pen"))
    assert (summary.records, summary.asked, summary.invalid) == (4, 8, 0)
    assert summary.set_aside == summary.failures == []
    records, warnings = expl_aigi_eval.read(data / "out.jsonl")
    assert warnings == []
    assert [record.id for record in records] == [f"sd/{k}" for k in range(4)]
    for record in records:
        assert record.score is None
        human, gpt = record.conversations
        assert human.text.startswith("<image>\n")
        parts = chain_of_thought.parse(gpt.text)
        assert gpt.text == chain_of_thought.build(parts)
        assert parts.description == "A cat sits on a chair."
        assert parts.regions == "Issues around the cat's left paw."
        assert gpt.text.startswith("Sure. \n### Image Description\n")
    by_stage = {"analysis": "eye", "formatting": "pen"}
    assert {(r.stage, r.body["model"]) for r in server.requests} == set(by_stage.items())


def test_each_text_belongs_to_its_own_image(data):
    """The polite server names the size of the picture that it was shown."""
    kept = data / "kept"
    all_here = threading.Event()

    def plan(request):
        reply = polite(request)
        if request.stage == "analysis":
            reply.wait_for = all_here
            if len(server.requests) == 4:
                all_here.set()
        return reply

    with serving(plan) as server:
        run(data, server.url, workers=4, pictures=kept)
        assert server.most_at_once == 4
    for row in rows(data / "out.jsonl"):
        shown = (kept / f"{row['id']}.jpg").read_bytes()
        assert f"seven toes ({len(shown)})" in row["conversations"][1]["value"]
        assert shown in [request.picture for request in server.requests]
        pixels = np.asarray(Image.open(io.BytesIO(shown))).astype(int)
        red = (pixels[..., 0] > 150) & (pixels[..., 1:].max(axis=2) < 110)
        assert red[2:4, 7:11].all(), "the line runs above the defect of rows 4 to 7"
        assert red[8:10, 7:11].all(), "and below it"
        assert red[20:].mean() < 0.2  # the images are noise


def test_the_output_becomes_a_manifest_to_train_on(data):
    with serving() as server:
        run(data, server.url)
    made = expl_aigi_eval.convert(data / "out.jsonl", data / "images", data / "manifest")
    assert made.warnings == ()
    lines = read_manifest(made.manifest)
    assert [line.annotation for line in lines] == [Annotation.MASK] * 4
    assert all(line.text and "seven toes" in line.text for line in lines)
    stored = np.asarray(Image.open(lines[0].heatmap))
    assert (stored == MASK).all()


def test_bit_fields_become_heatmaps(data):
    for k in range(4):
        mask(data, f"sd/{k}.png", np.where(MASK, 2 << k, 0))
    with serving() as server:
        assert run(data, server.url).records == 0
        summary = run(data, server.url, bit_fields=True)
        assert summary.records == 4
    for row in rows(data / "out.jsonl"):
        heatmap = np.asarray(Image.open(data / row["heatmap"]))
        assert (heatmap == MASK).all()


def test_a_second_run_asks_nothing_and_changes_nothing(data):
    with serving() as server:
        run(data, server.url)
        before = {p.name: p.read_bytes() for p in data.glob("out*")}
        summary = run(data, server.url)
    assert summary.asked == 0
    assert summary.records == 4
    assert len(server.requests) == 8
    assert {p.name: p.read_bytes() for p in data.glob("out*")} == before


def test_what_has_changed_is_asked_again_and_no_more(data):
    with serving() as server:
        run(data, server.url)
        picture(data / "images" / "sd" / "new.png", (32, 32)).replace(data / "images/sd/0.png")
        mask(data, "sd/1.png", np.roll(MASK, 9, axis=0))
        assert run(data, server.url).asked == 4
        assert run(data, server.url, formatter=chat(server.url, "other pen")).asked == 4
        assert run(data, server.url, analyst=chat(server.url, "other eye")).asked == 8


def test_the_same_image_twice_is_asked_about_once(data):
    for k in range(1, 4):
        (data / f"images/sd/{k}.png").write_bytes((data / "images/sd/0.png").read_bytes())
    with serving() as server:
        summary = run(data, server.url, workers=4)
    assert summary.records == 4
    assert len(server.requests) == 2


BAD = [
    ("", "empty"),
    ("A cat with a bad paw.", "'Image Description' is missing"),
    (GOOD.replace("[MAP]", ""), r"\[MAP\] is missing"),
    (GOOD.replace("[MAP]", "[MAP] [MAP]"), r"\[MAP\] is 2 times"),
    (GOOD.replace("left paw.", "left paw, which is circled in red."), "lines drawn on the image"),
    (GOOD.replace("- Left paw", "- The red outline"), "lines drawn on the image"),
    (GOOD.partition("### Analysis")[0], "'Analysis of Issues' is missing"),
]


@pytest.mark.parametrize(("bad", "problem"), BAD)
def test_a_bad_form_is_told_and_mended(data, bad, problem):
    told = []

    def plan(request):
        if request.stage == "formatting" and len(request.body["messages"]) == 5:
            return Reply(bad)
        if request.stage == "formatting":
            told.append(request)
            return Reply(f"```markdown\n{GOOD}\n```")
        return polite(request)

    def silent_on_empty(request):
        """A model that is shown no earlier answer cannot tell the attempts apart."""
        if request.stage == "formatting":
            told.append(request)
            return Reply(GOOD if len(told) % 2 == 0 else bad)
        return polite(request)

    with serving(plan if bad else silent_on_empty) as server:
        summary = run(data, server.url)
    assert (summary.records, summary.invalid, summary.asked) == (4, 4, 12)
    if bad:
        roles = [message["role"] for message in told[0].body["messages"]]
        assert roles == ["user", "assistant"] * 3 + ["user"]
        assert told[0].body["messages"][-2]["content"] == bad
        assert "cannot be used" in told[0].text


@pytest.mark.parametrize(("bad", "problem"), BAD)
def test_what_stays_bad_is_set_aside_with_all_answers(data, bad, problem):
    def plan(request):
        return Reply(bad) if request.stage == "formatting" else polite(request)

    with serving(plan) as server:
        summary = run(data, server.url, attempts=2)
        assert summary.records == 0
        assert summary.out is None
        assert not (data / "out.jsonl").exists()
        assert summary.asked == 4 + 8
        rejected = rows(data / "out.rejected.jsonl")
        assert [row["id"] for row in rejected] == [f"sd/{k}" for k in range(4)]
        assert all(row["stage"] == "formatting" for row in rejected)
        assert [[a["text"] for a in row["answers"]] for row in rejected] == [[bad, bad]] * 4
        assert all(re.search(problem, row["reason"]) for row in rejected)
        assert len(summary.set_aside) == 4
        assert "2 answers of no use" in summary.set_aside[0].reason
        assert run(data, server.url, attempts=2).asked == 0
        server.plan = polite
        assert run(data, server.url, attempts=3).records == 4
    assert not (data / "out.rejected.jsonl").exists()
    assert len(rows(data / "out.raw.jsonl")) == 4 + 8 + 4


@pytest.mark.parametrize("finish", ["length", "content_filter"])
def test_a_broken_off_analysis_is_none(data, finish):
    def plan(request):
        reply = polite(request)
        reply.finish = finish if request.stage == "analysis" else "stop"
        return reply

    with serving(plan) as server:
        summary = run(data, server.url, attempts=2)
    assert summary.records == 0
    assert server.stages() == ["analysis"] * 8
    reasons = {row["reason"] for row in rows(data / "out.rejected.jsonl")}
    assert len(reasons) == 1
    assert {"length": "cut off", "content_filter": "filter"}[finish] in reasons.pop()


def test_images_that_cannot_be_used_are_listed_and_stop_nothing(data):
    images = data / "images"
    picture(images / "alone.png")
    picture(images / "flat.png", (32, 16))
    mask(data, "flat.png")
    picture(images / "clean.png", (32, 32))
    mask(data, "clean.png", MASK * 0)
    mask(data, "broken.png")
    (images / "broken.png").write_bytes(b"\x89PNG\r\n")
    with serving() as server:
        summary = run(data, server.url)
    assert summary.records == 4
    reasons = {Path(f.path).stem: f.reason for f in summary.failures}
    assert reasons.keys() == {"alone", "flat", "clean", "broken"}
    assert "no mask" in reasons["alone"]
    assert "another aspect ratio" in reasons["flat"]
    assert "marks nothing" in reasons["clean"]
    assert "broken.png" in reasons["broken"]


def test_bad_moments_of_the_server_are_survived(data):
    seen: list[str] = []
    moments = [
        Reply(status=429, headers={"Retry-After": "1"}),
        Reply(status=500),
        Reply(hang_up=True),
        Reply(raw=b'{"cho'),
    ]

    def plan(request):
        seen.append(request.stage)
        return moments.pop() if moments and len(seen) % 3 == 1 else polite(request)

    with serving(plan) as server:
        analyst = chat(server.url)
        assert run(data, server.url, analyst=analyst).records == 4
    assert analyst.counts["answers"] == 8
    assert analyst.counts["requests"] == 12


def test_a_server_that_goes_is_left_and_what_was_answered_is_kept(data):
    for k in range(4, 12):
        picture(data / "images" / "sd" / f"{k}.png", (32, 32))
        mask(data, f"sd/{k}.png")

    def plan(request):
        return polite(request) if len(server.requests) <= 5 else Reply(status=503)

    with serving(plan) as server:
        with pytest.raises(ArtifactNetError, match=r"5 images in a row.*out\.raw\.jsonl"):
            run(data, server.url)
        assert len(rows(data / "out.raw.jsonl")) == 5
        assert len(server.requests) <= 5 + 3 * 7  # two images more may be under way
        assert [row["id"] for row in rows(data / "out.jsonl")] == ["sd/0", "sd/1"]
        server.plan = polite
        summary = run(data, server.url)
    assert summary.records == 12
    assert summary.asked == 24 - 5


@pytest.mark.parametrize(("status", "workers"), [(401, 1), (404, 1), (401, 3)])
def test_a_wrong_key_or_url_stops_at_once(data, status, workers):
    said = f"model eye: status {status}: no such thing"
    with (
        serving(lambda request: Reply("no such thing", status=status)) as server,
        pytest.raises(ArtifactNetError, match=said),
    ):
        run(data, server.url, workers=workers)
    assert 1 <= len(server.requests) <= workers


def test_a_server_that_refuses_everything_is_left(data):
    with (
        serving(lambda request: Reply("unknown model", status=400)) as server,
        pytest.raises(ArtifactNetError, match="unknown model; the server has refused every"),
    ):
        run(data, server.url)
    assert not (data / "out.raw.jsonl").read_bytes()


def test_a_refused_picture_is_set_aside_alone_and_asked_for_another_time(data):
    def plan(request):
        first = server.stages().count("analysis") == 1
        return Reply("not this one", status=400) if first else polite(request)

    with serving(plan) as server:
        summary = run(data, server.url)
        assert summary.records == 3
        (row,) = rows(data / "out.rejected.jsonl")
        assert (row["id"], row["stage"], row["answers"]) == ("sd/0", "analysis", [])
        assert "not this one" in row["reason"]
        # a second run has nothing but refusals, which say nothing about the server
        server.plan = lambda request: Reply("not this one", status=400)
        assert run(data, server.url).records == 3
        server.plan = polite
        assert run(data, server.url).records == 4


def test_an_interrupt_wakes_and_stops_all_workers(data, monkeypatch):
    """Ctrl-C while threads wait for their turn at a slow rate."""
    asked = threading.Event()

    def plan(request):
        asked.set()
        return polite(request)

    def interrupt(name, what):
        raise KeyboardInterrupt

    with serving(plan) as server:
        slow = Chat(Endpoint(server.url), "eye", Pace(0.1))
        fast = chat(server.url)
        (data / "images" / "sd" / "0.png").write_bytes(b"broken")  # fails at once, is reported
        with pytest.raises(KeyboardInterrupt):
            run(data, server.url, analyst=slow, formatter=fast, workers=3, report=interrupt)
        assert len(server.requests) <= 2
    assert (data / "out.raw.jsonl").exists()


def test_an_interrupted_run_writes_what_it_has_and_says_where(data):
    def interrupt(name, what):
        if name == "sd/2.png":
            raise KeyboardInterrupt

    with serving() as server, pytest.raises(KeyboardInterrupt, match=r"out\.jsonl: holds the 3"):
        run(data, server.url, report=interrupt)
    assert [row["id"] for row in rows(data / "out.jsonl")] == ["sd/0", "sd/1", "sd/2"]


def test_credit_that_ends_leaves_a_file_but_never_a_smaller_one(data):
    def plan(request):
        late = request.body["model"] == "other eye" and len(server.requests) > 8 + 4
        return Reply("no credit", status=402) if late else polite(request)

    with serving(plan) as server:
        run(data, server.url)
        before = (data / "out.jsonl").read_bytes()
        said = r"no credit.*out\.jsonl: as an earlier run left it, with 4 images; this one got to 2"
        with pytest.raises(EndpointError, match=said):
            run(data, server.url, analyst=chat(server.url, "other eye"))
        assert (data / "out.jsonl").read_bytes() == before
        (data / "out.jsonl").write_text("{}\n{}\n")
        with pytest.raises(EndpointError, match=r"out\.jsonl: holds the 2 images explained so far"):
            run(data, server.url, analyst=chat(server.url, "other eye"))
    assert [row["id"] for row in rows(data / "out.jsonl")] == ["sd/0", "sd/1"]


def test_an_older_file_is_not_taken_for_that_of_a_run_without_success(data):
    with serving() as server:
        assert run(data, server.url).warnings == ()
        server.plan = lambda request: Reply("no form")
        summary = run(data, server.url, formatter=chat(server.url, "other pen"))
    assert (summary.records, summary.out) == (0, None)
    assert len(rows(data / "out.jsonl")) == 4
    assert "of an earlier run" in summary.warnings[0]


def test_a_chat_can_be_used_again_after_a_stop(data):
    with serving(lambda request: Reply("no", status=401)) as server:
        analyst = chat(server.url)
        with pytest.raises(EndpointError, match="status 401"):
            run(data, server.url, analyst=analyst, workers=3)
        server.plan = polite
        assert analyst.ask([user("x")]).text
        assert run(data, server.url, analyst=analyst).records == 4


def test_a_full_disk_stops_the_asking(data, monkeypatch):
    """One thread finds no room while the other, whose image comes first, waits for an answer."""
    later = threading.Event()

    def append(number, line):
        threading.Timer(0.5, later.set).start()  # time enough to ask about the other images
        raise OSError(28, "No space left on device")

    def plan(request):
        first = len(server.requests) == 1
        return Reply(status=500, wait_for=later) if first else polite(request)

    monkeypatch.setattr(answer_log, "_append", append)
    with serving(plan) as server:
        with pytest.raises(OSError, match="No space left"):
            run(data, server.url, workers=2)
        assert len(server.requests) == 2


def test_a_folder_behind_a_link_gets_paths_that_lead_to_the_heatmaps(data):
    deep = data / "far" / "away" / "out"
    deep.mkdir(parents=True)
    (data / "link").symlink_to(deep)
    with serving() as server:
        annotate(data / "images", data / "masks", data / "link/out.jsonl", chat(server.url))
    for row in rows(data / "link" / "out.jsonl"):
        assert (data / "link" / row["heatmap"]).read_bytes() == png(MASK)


def test_thoughts_before_the_form_are_no_part_of_it(data):
    """A draft would double every heading."""

    def plan(request):
        reply = polite(request)
        if request.stage == "formatting":
            assert "hmm" not in request.text
        return Reply(f"<think>\nhmm: {reply.text}\n</think>\n\n{reply.text}")

    with serving(plan) as server:
        summary = run(data, server.url)
    assert (summary.records, summary.invalid) == (4, 0)
    assert "hmm" not in (data / "out.jsonl").read_text()


CHILD = """
import sys
from pathlib import Path
from artifactnet.annotation.annotate import annotate
from artifactnet.llm.client import Chat
from artifactnet.llm.client import Endpoint
root = Path(sys.argv[1])
annotate(root / "images", root / "masks", root / "out.jsonl", Chat(Endpoint(sys.argv[2]), "eye"))
"""


@pytest.mark.slow
def test_a_killed_run_goes_on_where_it_stopped(data):
    third = threading.Event()
    release = threading.Event()

    def plan(request):
        if len(server.requests) == 4:
            third.set()
            return Reply(wait_for=release)
        return polite(request)

    with serving(plan) as server:
        command = [sys.executable, "-c", CHILD, str(data), server.url]
        with subprocess.Popen(command, env={**os.environ, "NO_PROXY": "127.0.0.1"}) as process:
            assert third.wait(120)
            process.send_signal(signal.SIGKILL)
            process.wait(10)
        release.set()
        assert not (data / "out.jsonl").exists()
        raw = data / "out.raw.jsonl"
        assert len(rows(raw)) == 3
        with raw.open("a") as file:
            file.write('{"key": {"stage": "ana')  # killed in the middle of writing
        server.plan = polite
        summary = run(data, server.url)
    assert summary.records == 4
    assert summary.asked == 8 - 3
    assert len(summary.warnings) == 1
    assert "half written" in summary.warnings[0]


def test_nothing_of_others_is_written_over(data):
    out = data / "out.jsonl"
    out.write_text("precious")
    with serving() as server, pytest.raises(ArtifactNetError, match="not made by annotate"):
        run(data, server.url)
    assert out.read_text() == "precious"
    assert server.requests == []


@pytest.mark.parametrize(
    ("options", "out", "said"),
    [
        ({}, "out.json", "must end in .jsonl"),
        ({"pictures": "images/kept"}, "out.jsonl", "would be taken for input"),
        ({"pictures": "masks"}, "out.jsonl", "would be taken for input"),
        ({"bit_fields": True}, "images/out.jsonl", "would be taken for input"),
    ],
)
def test_unusable_places_are_refused(data, options, out, said):
    if "pictures" in options:
        options = {"pictures": data / options["pictures"]}
    with pytest.raises(ArtifactNetError, match=said):
        annotate(data / "images", data / "masks", data / out, chat("http://x/v1"), **options)
    assert not list(data.glob("**/*.raw.jsonl"))


def test_odd_text_of_a_model_is_only_text(data):
    odd = "</script><img src=x>; $(touch /tmp/x) \u2028 \u202e ../../etc \ud7ff\U0001f600"

    def plan(request):
        if request.stage == "formatting":
            assert odd in request.text
            return Reply(GOOD.replace("A cat", odd))
        return Reply(odd)

    with serving(plan) as server:
        assert run(data, server.url).records == 4
    (record, *_), _ = expl_aigi_eval.read(data / "out.jsonl")
    assert chain_of_thought.parse(record.text).description == f"{odd} sits on a chair."
