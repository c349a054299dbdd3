"""Whole folders: what is found, how answers are named, what is written, what survives."""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from artifactnet.config import ModelConfig
from artifactnet.inference import collect, folder
from artifactnet.inference.folder import predict_to_folder, save_heatmap
from artifactnet.inference.predictor import Predictor
from artifactnet.inference.stream import BackgroundWorker, prefetch
from artifactnet.models.artifact_net import ArtifactNet
from artifactnet.types import ArtifactNetError


@pytest.fixture(scope="module")
def predictor():
    torch.manual_seed(0)
    return Predictor(
        ArtifactNet(
            ModelConfig(
                backbone="vit_tiny_patch16_224",
                backbone_kwargs={"embed_dim": 32, "depth": 2, "num_heads": 2},
                image_size=[32, 32],
                pretrained="false",
            )
        )
    )


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def put(path, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def lines(out) -> list[dict]:
    return [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]


def found(*inputs, skip="out") -> list[str]:
    return [source.name for source in collect.iterate_images(collect.resolve_inputs(inputs, skip))]


# --- finding ------------------------------------------------------------------------------


def test_files_folders_and_patterns(here):
    for name in ("a.png", "b/c.JPG", "b/d/e.webp", "f/g.png"):
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        (here / name).touch()
    (here / "b" / "notes.txt").touch()
    assert found("a.png") == ["a.png"]
    assert found("b") == [os.path.join("b", "c.JPG"), os.path.join("b", "d", "e.webp")]
    assert found("*/*.png") == ["f/g.png"]
    assert found("**/*.png") == ["a.png", "f/g.png"]
    assert found("b/notes.txt") == ["b/notes.txt"]  # named outright: tried


def test_each_image_once(here):
    put(here / "b" / "c.png")
    assert found("b", "b/c.png", str(here / "b" / "c.png"), "b/*.png") == ["b/c.png"]


def test_a_name_with_brackets_is_a_name(here):
    for name in ("a[1].png", "a1.png"):
        put(here / name)
    assert found("a[1].png") == ["a[1].png"]


def test_answers_among_the_images_are_not_images(here):
    put(here / "photos" / "a.png")
    put(here / "photos" / "out" / "heatmaps" / "a.png.png")
    assert found("photos", skip="photos/out") == ["photos/a.png"]


def test_what_is_not_there_is_told(here):
    (here / "empty").mkdir()
    put(here / "a.png")
    result = collect.resolve_inputs(["a.png", "gone.png", "empty", "*.jpg"], "out")
    assert [f.path for f in result.failures] == ["gone.png", "empty", "*.jpg"]
    assert "no images" in result.failures[1].reason
    assert [source.name for source in collect.iterate_images(result)] == ["a.png"]


def test_an_error_while_listing_is_told(here, predictor, monkeypatch):
    """As a folder does that may not be read."""
    put(here / "p" / "a.png")
    walk = os.walk

    def denied(top, onerror):
        yield from walk(top)
        onerror(PermissionError(13, "Permission denied", os.path.join(top, "closed")))

    monkeypatch.setattr(collect.os, "walk", denied)
    summary = predict_to_folder(predictor, ["p"], "out")
    assert summary.images == 1
    assert [f.path for f in summary.failures] == [os.path.join("p", "closed")]


part = st.text("ab.é", min_size=1, max_size=3).filter(lambda t: t not in (".", ".."))


@given(st.lists(st.tuples(part, part), min_size=1, max_size=8, unique=True))
def test_names_of_answers_are_unique(names):
    """For any files in any folders, given one by one."""
    paths = [f"/x/{folder_name}/{name}.png" for folder_name, name in names]
    base = os.path.commonpath([os.path.dirname(p) for p in paths])
    result = collect.ResolvedInputs(tuple(paths), base, "/out", ())
    answers = [collect.answer_name(p, result) for p in paths]
    assert len(set(answers)) == len(paths)
    assert not any(name.startswith(("../", "/")) for name in answers)


# --- working ahead ------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 1, 4])
def test_ahead_keeps_order_and_raises_where_it_happens(workers):
    assert list(prefetch(lambda x: x * x, range(50), workers, 3)) == [x * x for x in range(50)]
    results = prefetch(lambda x: 6 // x, [3, 2, 0, 1], workers, 1)
    assert [next(results), next(results)] == [2, 3]
    with pytest.raises(ZeroDivisionError):
        next(results)


# --- working behind -----------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 1, 4])
def test_behind_has_done_everything_when_it_is_left(workers):
    done = []
    with BackgroundWorker(workers, 3) as behind:
        for number in range(50):
            behind.do(lambda number=number: (time.sleep(0.001), done.append(number))[1])
            assert number + 1 - len(done) <= 3 + workers
    assert sorted(done) == list(range(50))


@pytest.mark.parametrize("workers", [0, 1, 4])
@pytest.mark.parametrize("following", [0, 20])
def test_behind_raises_what_its_work_raised(workers, following):
    def produce():
        with BackgroundWorker(workers, 3) as behind:
            behind.do(lambda: 1 // 0)
            for _ in range(following):
                behind.do(lambda: None)

    with pytest.raises(ZeroDivisionError):
        produce()


def test_behind_drops_what_waits_after_an_error():
    started, go, done = threading.Event(), threading.Event(), []

    def first():
        started.set()
        assert go.wait(10)
        done.append("first")

    def produce():
        with BackgroundWorker(1, 5) as behind:
            behind.do(first)
            assert started.wait(10)
            behind.do(lambda: done.append("second"))
            threading.Timer(0.2, go.set).start()
            raise KeyError("the producer's own")

    with pytest.raises(KeyError):
        produce()
    assert done == ["first"]


# --- writing ------------------------------------------------------------------------------


def test_answers_are_written_in_order(here, predictor):
    for i, name in enumerate(("a.png", "sub/a.png", "sub/b.png")):
        put(here / "photos" / name, seed=i)
    told = []
    summary = predict_to_folder(predictor, ["photos"], "out", report=told.append)
    entries = lines(here / "out")
    assert [e["path"] for e in entries] == [
        "photos/a.png", "photos/sub/a.png", "photos/sub/b.png",
    ]  # fmt: skip
    assert [e["heatmap"] for e in entries] == [
        "heatmaps/a.png.png", "heatmaps/sub/a.png.png", "heatmaps/sub/b.png.png",
    ]  # fmt: skip
    assert summary.images == len(told) == 3
    assert summary.fakes == sum(e["is_fake"] for e in entries)
    assert summary.failures == []


def test_pictures_hold_the_raw_heatmap(here, predictor):
    put(here / "a.png")
    predict_to_folder(predictor, ["a.png"], "out")
    picture = Image.open(here / "out" / "heatmaps" / "a.png.png")
    assert (picture.mode, picture.size) == ("L", (30, 20))
    expected = predictor.predict(here / "a.png").heatmap
    assert np.abs(np.asarray(picture) / 255 - expected).max() <= 0.5 / 255 + 1e-6


def test_heatmaps_are_not_stretched(tmp_path):
    values = np.array([[0.2, 0.4], [0.5, 0.998]], np.float32)
    save_heatmap(values, tmp_path / "h.png")
    assert np.asarray(Image.open(tmp_path / "h.png")).tolist() == [[51, 102], [128, 254]]


def test_equal_stems_do_not_collide(here, predictor):
    for name in ("p/a.png", "p/a.bmp", "q/a.png", "q/r/a.png"):
        put(here / name)
    predict_to_folder(predictor, ["p", "q"], "out")
    maps = [e["heatmap"] for e in lines(here / "out")]
    assert len(set(maps)) == 4
    assert all((here / "out" / m).is_file() for m in maps)


def test_no_heatmaps(here, predictor):
    put(here / "a.png")
    predict_to_folder(predictor, ["a.png"], "out", heatmaps=False)
    assert [e["heatmap"] for e in lines(here / "out")] == [None]
    assert [p.name for p in (here / "out").iterdir()] == ["predictions.jsonl"]


@pytest.mark.parametrize("workers", [0, 2])
def test_bad_files_stop_nothing(here, predictor, workers):
    for i in range(5):
        put(here / "p" / f"{i}.png", seed=i)
    (here / "p" / "1.png").write_bytes(b"no image")
    (here / "p" / "3.png").write_bytes((here / "p" / "0.png").read_bytes()[:300])
    summary = predict_to_folder(predictor, ["p", "gone"], "out", batch_size=2, workers=workers)
    assert [e["path"] for e in lines(here / "out")] == ["p/0.png", "p/2.png", "p/4.png"]
    assert [f.path for f in summary.failures] == ["gone", "p/1.png", "p/3.png"]
    assert all(f.reason and "\n" not in f.reason for f in summary.failures)


def test_nothing_to_judge(here, predictor):
    summary = predict_to_folder(predictor, ["gone"], "out")
    assert (summary.images, len(summary.failures)) == (0, 1)
    assert lines(here / "out") == []


@pytest.mark.parametrize("workers", [1, 3])
def test_workers_change_no_byte(here, predictor, workers):
    for number in range(7):
        put(here / "p" / f"{number}.png", seed=number)
    for out, count in (("out", 0), ("more", workers)):
        predict_to_folder(predictor, ["p"], out, batch_size=2, workers=count)
    names = [path.relative_to("out") for path in Path("out").rglob("*.*")]
    assert len(names) == 8
    for name in names:
        assert ("out" / name).read_bytes() == ("more" / name).read_bytes(), name
    assert len(list(Path("more").rglob("*.*"))) == 8


@pytest.mark.parametrize("workers", [0, 2])
def test_full_disk_leaves_earlier_answers(here, predictor, monkeypatch, workers):
    put(here / "a.png")
    predict_to_folder(predictor, ["a.png"], "out")
    before = (here / "out" / "predictions.jsonl").read_bytes()
    put(here / "b.png")

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(folder, "_save_levels", full)
    with pytest.raises(ArtifactNetError, match=r"out: .*No space left"):
        predict_to_folder(predictor, ["a.png", "b.png"], "out", workers=workers)
    assert (here / "out" / "predictions.jsonl").read_bytes() == before
    assert sorted(p.name for p in (here / "out").iterdir()) == ["heatmaps", "predictions.jsonl"]


def test_out_is_a_file(here, predictor):
    put(here / "a.png")
    (here / "out").touch()
    with pytest.raises(ArtifactNetError, match="out: the answers cannot be written"):
        predict_to_folder(predictor, ["a.png"], "out")


def test_interrupted_work_leaves_earlier_answers(here, predictor):
    put(here / "a.png")
    predict_to_folder(predictor, ["a.png"], "out")
    before = (here / "out" / "predictions.jsonl").read_bytes()

    def stop(answer):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predict_to_folder(predictor, ["a.png", "a.png"], "out", report=stop)
    assert (here / "out" / "predictions.jsonl").read_bytes() == before
