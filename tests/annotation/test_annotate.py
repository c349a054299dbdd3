"""The three stages against a real HTTP server: good and bad models, kills and second runs."""

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

from artifactnet.annotation.annotate import annotate_folder
from artifactnet.data.converters import expl_aigi_eval
from artifactnet.data.manifest_format import read_manifest
from artifactnet.llm import answer_log
from artifactnet.llm.client import Chat, Endpoint, EndpointError, RateLimiter
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
    limiter = RateLimiter(0, passing.clock, passing.wait)
    return Chat(Endpoint(url, retries=retries, timeout=20), model, limiter, seed=0)


def run(root: Path, url: str, **options):
    analyst = options.pop("analyst", None) or chat(url)
    return annotate_folder(root / "images", root / "masks", root / "out.jsonl", analyst, **options)


def rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_records_have_the_format_of_the_published_set(data):
    with serving() as server:
        summary = run(data, server.url, formatter=chat(server.url, "pen"))
    assert (summary.records, summary.asked, summary.invalid) == (4, 8, 0)
    assert summary.rejected == summary.failures == []
    records, warnings = expl_aigi_eval.read_expl_aigi_eval(data / "out.jsonl")
    assert warnings == []
    assert [record.id for record in records] == [f"sd/{k}" for k in range(4)]
    for record in records:
        assert record.score is None
        human, gpt = record.conversations
        assert human.text.startswith("<image>\n")
        parts = chain_of_thought.parse_cot(gpt.text)
        assert gpt.text == chain_of_thought.build_cot(parts)
        assert parts.description == "A cat sits on a chair."
        assert parts.regions == "Issues around the cat's left paw."
        assert gpt.text.startswith("Sure. \n### Image Description\n")
    models = {(request.stage, request.body["model"]) for request in server.requests}
    assert models == {("analysis", "eye"), ("formatting", "pen")}
    made = expl_aigi_eval.convert_expl_aigi_eval(
        data / "out.jsonl", data / "images", data / "manifest"
    )
    assert made.warnings == ()
    lines = read_manifest(made.manifest)
    assert [line.annotation for line in lines] == [Annotation.MASK] * 4
    assert all(line.text and "seven toes" in line.text for line in lines)
    assert (np.asarray(Image.open(lines[0].heatmap)) == MASK).all()


def test_each_text_belongs_to_its_image(data):
    """The polite server names the size of the JPEG that it received."""
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


def test_second_run_asks_nothing_and_changes_nothing(data):
    with serving() as server:
        run(data, server.url)
        before = {p.name: p.read_bytes() for p in data.glob("out*")}
        summary = run(data, server.url)
    assert summary.asked == 0
    assert summary.records == 4
    assert len(server.requests) == 8
    assert {p.name: p.read_bytes() for p in data.glob("out*")} == before


def test_only_what_has_changed_is_asked_again(data):
    with serving() as server:
        run(data, server.url)
        picture(data / "images" / "sd" / "new.png", (32, 32)).replace(data / "images/sd/0.png")
        mask(data, "sd/1.png", np.roll(MASK, 9, axis=0))
        assert run(data, server.url).asked == 4
        assert run(data, server.url, formatter=chat(server.url, "other pen")).asked == 4
        assert run(data, server.url, analyst=chat(server.url, "other eye")).asked == 8


def test_same_image_twice_is_asked_about_once(data):
    for k in range(1, 4):
        (data / f"images/sd/{k}.png").write_bytes((data / "images/sd/0.png").read_bytes())
    with serving() as server:
        summary = run(data, server.url, workers=4)
    assert summary.records == 4
    assert len(server.requests) == 2


BAD = [
    ("", "empty"),
    ("A cat with a bad paw.", "'Image Description'"),
    (GOOD.replace("[MAP]", ""), r"\[MAP\].*missing"),
    (GOOD.replace("[MAP]", "[MAP] [MAP]"), r"\[MAP\].* 2 times"),
    (GOOD.replace("left paw.", "left paw, which is circled in red."), "lines drawn"),
    (GOOD.replace("- Left paw", "- The red outline"), "lines drawn"),
    (GOOD.partition("### Analysis")[0], "'Analysis of Issues'"),
]


@pytest.mark.parametrize(("bad", "problem"), BAD)
def test_bad_form_is_shown_to_the_model_then_rejected_until_corrected(data, bad, problem):
    def plan(request):
        return Reply(bad) if request.stage == "formatting" else polite(request)

    with serving(plan) as server:
        summary = run(data, server.url, attempts=2)
        assert (summary.records, summary.out, summary.asked) == (0, None, 4 + 8)
        assert not (data / "out.jsonl").exists()
        rejected = rows(data / "out.rejected.jsonl")
        assert [row["id"] for row in rejected] == [f"sd/{k}" for k in range(4)]
        for row in rejected:
            assert row["stage"] == "formatting"
            assert [answer["text"] for answer in row["answers"]] == [bad, bad]
            assert re.search(problem, row["reason"])
        assert len(summary.rejected) == 4
        assert "2 invalid answers" in summary.rejected[0].reason
        second = [r for r in server.requests if r.stage == "formatting"][1]
        if bad:
            roles = [message["role"] for message in second.body["messages"]]
            assert roles == ["user", "assistant"] * 3 + ["user"]
            assert second.body["messages"][-2]["content"] == bad
            assert re.search(problem, second.text)
        assert run(data, server.url, attempts=2).asked == 0
        server.plan = polite
        summary = run(data, server.url, attempts=3)
        assert (summary.records, summary.invalid, summary.asked) == (4, 8, 4)
    assert not (data / "out.rejected.jsonl").exists()
    assert len(rows(data / "out.raw.jsonl")) == 4 + 8 + 4


@pytest.mark.parametrize(
    ("finish", "reason"), [("length", "cut off"), ("content_filter", "filter")]
)
def test_cut_off_analysis_is_invalid(data, finish, reason):
    def plan(request):
        reply = polite(request)
        reply.finish = finish if request.stage == "analysis" else "stop"
        return reply

    with serving(plan) as server:
        summary = run(data, server.url, attempts=2)
    assert summary.records == 0
    assert server.stages() == ["analysis"] * 8
    assert all(reason in row["reason"] for row in rows(data / "out.rejected.jsonl"))


def test_unusable_images_are_listed_and_stop_nothing(data):
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
    assert reasons["broken"] == "not an image by content"


def test_server_that_is_gone_ends_the_run_and_answers_are_kept(data):
    for k in range(4, 12):
        picture(data / "images" / "sd" / f"{k}.png", (32, 32))
        mask(data, f"sd/{k}.png")

    def plan(request):
        return polite(request) if len(server.requests) <= 5 else Reply(status=503)

    with serving(plan) as server:
        with pytest.raises(ArtifactNetError, match=r"5 images.*out\.raw\.jsonl"):
            run(data, server.url)
        assert len(rows(data / "out.raw.jsonl")) == 5
        assert len(server.requests) <= 5 + 3 * 7  # two images more may be under way
        assert [row["id"] for row in rows(data / "out.jsonl")] == ["sd/0", "sd/1"]
        server.plan = polite
        summary = run(data, server.url)
    assert summary.records == 12
    assert summary.asked == 24 - 5


@pytest.mark.parametrize(("status", "workers"), [(401, 1), (404, 1), (401, 3)])
def test_wrong_key_or_url_stops_at_once(data, status, workers):
    with serving(lambda request: Reply("no such thing", status=status)) as server:
        analyst = chat(server.url)
        with pytest.raises(EndpointError, match=f"model eye: status {status}: no such thing"):
            run(data, server.url, analyst=analyst, workers=workers)
        assert 1 <= len(server.requests) <= workers
        server.plan = polite  # the stop was for that run
        assert run(data, server.url, analyst=analyst).records == 4


def test_server_that_refuses_everything_ends_the_run(data):
    with (
        serving(lambda request: Reply("unknown model", status=400)) as server,
        pytest.raises(ArtifactNetError, match="unknown model; .*every request"),
    ):
        run(data, server.url)
    assert not (data / "out.raw.jsonl").read_bytes()


def test_refused_image_is_rejected_alone_and_asked_again_next_time(data):
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


def test_interrupt_wakes_and_stops_all_workers(data):
    """Ctrl-C while threads wait for their turn at a slow rate."""

    def interrupt(name, what):
        raise KeyboardInterrupt

    with serving() as server:
        slow = Chat(Endpoint(server.url), "eye", RateLimiter(0.1))
        slow.limiter.pause(600)  # nobody's turn comes
        fast = chat(server.url)
        first = data / "images" / "sd" / "0.png"
        first.write_bytes(first.read_bytes()[:50])  # fails without a turn, and is reported first
        with pytest.raises(KeyboardInterrupt):
            run(data, server.url, analyst=slow, formatter=fast, workers=3, report=interrupt)
        assert server.requests == []
    assert (data / "out.raw.jsonl").exists()


def test_interrupted_run_writes_finished_images(data):
    def interrupt(name, what):
        if name == "sd/2.png":
            raise KeyboardInterrupt

    with serving() as server, pytest.raises(KeyboardInterrupt, match=r"out\.jsonl.* 3 images"):
        run(data, server.url, report=interrupt)
    assert [row["id"] for row in rows(data / "out.jsonl")] == ["sd/0", "sd/1", "sd/2"]


def test_aborted_run_never_replaces_a_larger_output(data):
    def plan(request):
        late = request.body["model"] == "other eye" and len(server.requests) > 8 + 4
        return Reply("no credit", status=402) if late else polite(request)

    with serving(plan) as server:
        run(data, server.url)
        before = (data / "out.jsonl").read_bytes()
        with pytest.raises(EndpointError, match=r"no credit.*out\.jsonl.* 4 images.* 2"):
            run(data, server.url, analyst=chat(server.url, "other eye"))
        assert (data / "out.jsonl").read_bytes() == before
        (data / "out.jsonl").write_text("{}\n{}\n")
        with pytest.raises(EndpointError, match=r"out\.jsonl.* 2 images"):
            run(data, server.url, analyst=chat(server.url, "other eye"))
    assert [row["id"] for row in rows(data / "out.jsonl")] == ["sd/0", "sd/1"]


def test_output_of_an_earlier_run_is_kept_with_a_warning(data):
    with serving() as server:
        assert run(data, server.url).warnings == ()
        server.plan = lambda request: Reply("no form")
        summary = run(data, server.url, formatter=chat(server.url, "other pen"))
    assert (summary.records, summary.out) == (0, None)
    assert len(rows(data / "out.jsonl")) == 4
    assert "out.jsonl" in summary.warnings[0]


def test_full_disk_stops_all_workers(data, monkeypatch):
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


def test_heatmap_paths_behind_a_symlink(data):
    deep = data / "far" / "away" / "out"
    deep.mkdir(parents=True)
    (data / "link").symlink_to(deep)
    with serving() as server:
        annotate_folder(data / "images", data / "masks", data / "link/out.jsonl", chat(server.url))
    for row in rows(data / "link" / "out.jsonl"):
        assert (data / "link" / row["heatmap"]).read_bytes() == png(MASK)


def test_thinking_is_ignored(data):
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
from artifactnet.annotation.annotate import annotate_folder
from artifactnet.llm.client import Chat, Endpoint
root = Path(sys.argv[1])
chat = Chat(Endpoint(sys.argv[2]), "eye")
annotate_folder(root / "images", root / "masks", root / "out.jsonl", chat)
"""


@pytest.mark.slow
def test_killed_run_resumes(data):
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
            assert third.wait(60)
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


def test_foreign_file_is_not_overwritten(data):
    out = data / "out.jsonl"
    out.write_text("precious")
    with serving() as server, pytest.raises(ArtifactNetError, match=r"out\.jsonl"):
        run(data, server.url)
    assert out.read_text() == "precious"
    assert server.requests == []


@pytest.mark.parametrize(
    ("options", "out", "said"),
    [
        ({}, "out.json", "jsonl"),
        ({"pictures": "images/kept"}, "out.jsonl", "images|masks"),
        ({"pictures": "masks"}, "out.jsonl", "images|masks"),
        ({"bit_fields": True}, "images/out.jsonl", "images|masks"),
    ],
)
def test_unusable_places_are_refused(data, options, out, said):
    if "pictures" in options:
        options = {"pictures": data / options["pictures"]}
    with pytest.raises(ArtifactNetError, match=said):
        annotate_folder(data / "images", data / "masks", data / out, chat("http://x/v1"), **options)
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
    (record, *_), _ = expl_aigi_eval.read_expl_aigi_eval(data / "out.jsonl")
    assert chain_of_thought.parse_cot(record.text).description == f"{odd} sits on a chair."
