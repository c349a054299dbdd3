"""Whole folders: how answers are named, what is written, what survives an error."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from canned_predictor import NOTICE, RATIONALE, CannedPredictor, canned_pixels
from noise_images import put
from PIL import Image
from tiny_models import tiny

from artifactnet.inference import folder
from artifactnet.inference.folder import predict_to_folder, save_heatmap
from artifactnet.inference.predictor import Predictor
from artifactnet.types import ArtifactNetError, Rationale


def written(out) -> list[str]:
    return sorted(path.name for path in out.iterdir())


def lines(out) -> list[dict]:
    return [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]


def test_an_error_while_listing_is_told(here, predictor, monkeypatch):
    """As a folder does that may not be read."""
    put(here / "p" / "a.png")
    walk = os.walk

    def denied(top, onerror, followlinks):
        yield from walk(top)
        onerror(PermissionError(13, "Permission denied", os.path.join(top, "closed")))

    monkeypatch.setattr(os, "walk", denied)
    summary = predict_to_folder(predictor, ["p"], "out")
    assert summary.images == 1
    assert [f.path for f in summary.failures] == [os.path.join("p", "closed")]


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
    assert written(here / "out") == ["predictions.jsonl", "predictions.settings.json"]


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


@pytest.mark.parametrize("workers", [1, 3])
def test_workers_change_no_byte(here, predictor, workers):
    for number in range(7):
        put(here / "p" / f"{number}.png", seed=number)
    for out, count in (("out", 0), ("more", workers)):
        predict_to_folder(predictor, ["p"], out, batch_size=2, workers=count)
    names = [path.relative_to("out") for path in Path("out").rglob("*.*")]
    assert len(names) == 9
    for name in names:
        assert ("out" / name).read_bytes() == ("more" / name).read_bytes(), name
    assert len(list(Path("more").rglob("*.*"))) == 9


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
    assert written(here / "out/heatmaps") == ["a.png.png"]  # and nothing temporary
    assert not (here / "out" / "predictions.partial").exists()


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


# --- explanations of language models ---


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, score in (("a.png", 0.2), ("b.png", 0.8)):
        Image.fromarray(canned_pixels(score)).save(folder / name)
    (folder / "broken.png").write_bytes(b"nothing")
    return folder


def test_an_explanation_reaches_the_answers(photos, tmp_path):
    predictor = CannedPredictor(RATIONALE, None)
    seen = []
    summary = predict_to_folder(
        predictor, [photos], tmp_path / "out", batch_size=3, workers=2, report=seen.append
    )
    assert predictor.calls == [(3, 2, True)]
    assert (summary.images, summary.fakes) == (2, 1)
    assert [f.path for f in summary.failures] == [str(photos / "broken.png")]
    first, second = lines(tmp_path / "out")
    assert first["explanation"] == {
        "description": RATIONALE.description,
        "regions": RATIONALE.regions,
        "issues": RATIONALE.issues,
        "text": RATIONALE.text,
    }
    assert second["explanation"] is None
    assert first["score"] == pytest.approx(0.2)
    assert first["probability"] == pytest.approx(0.8)
    assert first["warnings"] == [NOTICE, "the text was cut off"]
    assert first["instances"] is None
    assert [answer.explanation for answer in seen] == [RATIONALE, None]
    picture = np.asarray(Image.open(tmp_path / "out" / first["heatmap"]))
    np.testing.assert_array_equal(picture, canned_pixels(0.2)[..., 1])


@pytest.mark.parametrize(
    "text", ["<script>", '"\\', "line\nand\u2028line", "\udcff", "أسد", "x" * 5000, "\x00", ""]
)
def test_any_text_is_one_line_of_json(photos, tmp_path, text):
    said = Rationale(text, text, text, text)
    predict_to_folder(CannedPredictor(said), [photos], tmp_path / "out")
    raw = (tmp_path / "out" / "predictions.jsonl").read_text(encoding="utf-8")
    assert raw.count("\n") == 2
    assert raw.isascii()
    entry = json.loads(raw.split("\n")[0])["explanation"]
    assert entry == dict.fromkeys(("description", "regions", "issues", "text"), text)


def test_other_models_explain_nothing(photos, tmp_path):
    predict_to_folder(Predictor(tiny()), [photos], tmp_path / "out")
    assert [line["explanation"] for line in lines(tmp_path / "out")] == [None, None]


@pytest.mark.parametrize("asked", ["save_masks", "tiles"])
@pytest.mark.parametrize("kind", ["told", "own"])
def test_masks_and_tiles_need_a_segmentation_head(photos, tmp_path, asked, kind):
    predictor = CannedPredictor() if kind == "told" else Predictor(tiny())
    what = asked.removeprefix("save_")
    with pytest.raises(ArtifactNetError, match=f"^{what} need a model with a segmentation head"):
        predict_to_folder(predictor, [photos], tmp_path / "out", **{asked: True})
    assert not (tmp_path / "out").exists()
