"""What folders need of a predictor, and what becomes of an explanation in words."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image
from tiny_models import tiny
from told_answers import NOTICE, WORDS, ToldPredictor, told_pixels

from artifactnet.inference.folder import predict_to_folder
from artifactnet.inference.predictor import HEIE_FILE, Predictor, PredictorLike, load_model
from artifactnet.types import ArtifactNetError, Rationale
from artifactnet.vlm.heie.saving import FACTS


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, score in (("a.png", 0.2), ("b.png", 0.8)):
        Image.fromarray(told_pixels(score)).save(folder / name)
    (folder / "broken.png").write_bytes(b"nothing")
    return folder


def lines(folder):
    return [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]


def test_who_answers():
    predictor = Predictor(tiny(threshold=0.25))
    assert isinstance(predictor, PredictorLike)
    assert predictor.threshold == 0.25
    assert isinstance(ToldPredictor(), PredictorLike)
    assert not isinstance(tiny(), PredictorLike)


def test_an_explanation_reaches_the_answers(photos, tmp_path):
    predictor = ToldPredictor(WORDS, None)
    seen = []
    summary = predict_to_folder(
        predictor, [photos], tmp_path / "out", batch_size=3, workers=2, report=seen.append
    )
    assert predictor.calls == [(3, 2, True)]
    assert (summary.images, summary.fakes) == (2, 1)
    assert [f.path for f in summary.failures] == [str(photos / "broken.png")]
    first, second = lines(tmp_path / "out")
    assert first["explanation"] == {
        "description": WORDS.description,
        "regions": WORDS.regions,
        "issues": WORDS.issues,
        "text": WORDS.text,
    }
    assert second["explanation"] is None
    assert first["score"] == pytest.approx(0.2)
    assert first["probability"] == pytest.approx(0.8)
    assert first["warnings"] == [NOTICE, "the text was cut off"]
    assert first["instances"] is None
    assert [answer.explanation for answer in seen] == [WORDS, None]
    picture = np.asarray(Image.open(tmp_path / "out" / first["heatmap"]))
    np.testing.assert_array_equal(picture, told_pixels(0.2)[..., 1])


@pytest.mark.parametrize(
    "text",
    ["<script>", '"\\', "line\nand\u2028line", "\udcff", "أسد", "x" * 5000, "\x00", ""],
)
def test_any_text_is_one_line_of_json(photos, tmp_path, text):
    said = Rationale(text, text, text, text)
    predict_to_folder(ToldPredictor(said), [photos], tmp_path / "out")
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
    predictor = ToldPredictor() if kind == "told" else Predictor(tiny())
    what = asked.removeprefix("save_")
    with pytest.raises(ArtifactNetError, match=f"^{what} need a model with a segmentation head"):
        predict_to_folder(predictor, [photos], tmp_path / "out", **{asked: True})
    assert not (tmp_path / "out").exists()


def test_a_heie_is_sent_to_those_who_open_it(tmp_path):
    assert HEIE_FILE == FACTS
    folder = tmp_path / "heie"
    folder.mkdir()
    (folder / HEIE_FILE).write_text("{}")
    with pytest.raises(ArtifactNetError) as caught:
        load_model(folder)
    told = str(caught.value)
    assert told.startswith(f"{folder}: a HEIE on a language model")
    assert "artifactnet.vlm.heie.predictor.load_predictor" in told
    assert f"artifactnet predict IMAGES --model {folder}" in told
    assert "\n" not in told
