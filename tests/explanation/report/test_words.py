"""Explanations in words in a report: what is kept of them, and what a page makes of them."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, replace

import numpy as np
import pytest
import report_samples as samples
from canned_predictor import NOTICE, RATIONALE, CannedPredictor, canned_pixels
from hypothesis import given
from hypothesis import strategies as st
from report_pages import write
from tiny_models import TINY, tiny

from artifactnet.config import HeatmapConfig
from artifactnet.explanation.report.build import About, write_report
from artifactnet.explanation.report.items import Item
from artifactnet.explanation.report.page import prose, words
from artifactnet.inference.predictor import Predictor
from artifactnet.types import ArtifactNetError

HOSTILE = [
    "<script>alert(1)</script>",
    "</script><script>alert(1)</script>",
    "\"quotes' and `ticks` &amp; &lt;b&gt;",
    "one\u2028two\u2029three",
    "w" * 5000,
    "يد بستة أصابع\nفي الصورة",
    "<!--<script>",
    "{{ 7 * 7 }}",
    "\u202egnp.exe",
    "\udcff",
]


def items(*scores):
    return [Item(f"{k}.png", lambda s=score: canned_pixels(s)) for k, score in enumerate(scores)]


def said(text):
    return {"description": text, "regions": text, "issues": text, "text": f"all of {text}"}


def test_a_report_of_a_predictor(tmp_path):
    predictor = CannedPredictor(RATIONALE, None, replace(RATIONALE, issues=""))
    result = write_report(
        predictor, items(0.2, 0.8, 0.4), tmp_path, about=About(model="heie", data="photos")
    )
    assert (result.images, result.called_fake, result.failures) == (3, 2, ())
    found = json.loads(result.json.read_text())
    assert found["model"] == {
        "name": "heie",
        "backbone": "heie",
        "threshold": 0.5,
        "map_threshold": 0.5,
    }
    assert found["warnings"] == [NOTICE]
    (method,) = found["methods"]
    assert (method["name"], method["scale"]) == ("predicted_heatmap", "probability")
    first, second, third = found["entries"]
    assert [e["score"] for e in found["entries"]] == pytest.approx([0.2, 0.8, 0.4])
    assert first["explanation"] == asdict(RATIONALE)
    assert first["warnings"] == ["the text was cut off"]
    assert "explanation" not in second
    assert third["explanation"]["issues"] == ""
    heatmap = canned_pixels(0.2)[..., 1].astype(np.float32) / 255
    assert first["artifact_share"] == float((heatmap > 0.5).mean()) > 0
    html = result.html.read_text()
    assert html.count('"heat:predicted_heatmap":"data:image/png;base64,') == 3
    assert len(re.findall('<script type="application/json" id="words-', html)) == 2


def test_batches_go_through_together(tmp_path):
    predictor = CannedPredictor()
    write_report(predictor, items(*[0.5] * 5), tmp_path, batch_size=2)
    assert predictor.calls == [(2, 0, True)] * 3


def test_other_methods_are_refused_before_anything_is_written(tmp_path):
    with pytest.raises(ArtifactNetError, match="relevance cannot explain this model"):
        write_report(CannedPredictor(), items(0.5), tmp_path / "out", methods=["relevance"])
    assert not (tmp_path / "out").exists()


def test_a_student_shows_its_heatmap_and_score(tmp_path):
    model = tiny(kwargs={**TINY, "depth": 4}, heatmap=HeatmapConfig(head="decoder", width=16))
    result = write_report(model, items(0.3, 0.6), tmp_path)
    found = json.loads(result.json.read_text())
    assert [m["name"] for m in found["methods"]] == ["predicted_heatmap", "relevance"]
    for entry, item in zip(found["entries"], items(0.3, 0.6), strict=True):
        expected = Predictor(model).predict(item.load())
        assert entry["score"] == pytest.approx(expected.score, abs=1e-6)
        share = float((expected.heatmap > 0.5).mean())
        assert entry["artifact_share"] == pytest.approx(share, abs=0.01)
        assert "explanation" not in entry


def test_detectors_without_score_or_words_have_no_such_keys(tmp_path):
    result = write_report(tiny(), items(0.3), tmp_path)
    found = json.loads(result.json.read_text())
    assert [m["name"] for m in found["methods"]] == ["relevance"]
    assert not {"score", "explanation"} & set(found["entries"][0])
    assert 'id="words-' not in result.html.read_text()


# --- the page -----------------------------------------------------------------------------


@pytest.fixture
def hostile(tmp_path):
    entries = [samples.entry(k) for k in range(len(HOSTILE))]
    for entry, text in zip(entries, HOSTILE, strict=True):
        entry |= {"explanation": said(text), "score": 0.25, "warnings": [text]}
    return entries, *write(tmp_path, entries)


def test_texts_never_become_markup(hostile):
    entries, page, path = hostile
    assert not any(name.startswith("on") for _, attrs in page.elements for name in attrs)
    scripts = page.named("script")
    assert len(scripts) == 2 * len(entries) + 3
    assert [attrs for attrs in scripts if attrs.get("type") != "application/json"] == [{}]
    raw = path.read_text(encoding="utf-8")
    for text in ("<script>alert", "</script><script>", "<!--<script>", "\u2028", "\u202e"):
        assert text not in raw
    for tag, attributes, text in page.raw:
        if attributes.get("type") == "application/json":
            assert tag == "script"
            assert not set("<>&") & set(text)
            assert text.isascii()


def test_texts_read_as_they_are(hostile):
    entries, page, _ = hostile
    for entry in entries:
        found = page.json(f"words-{entry['id']}")
        assert list(found) == ["description", "regions", "issues"]
        assert set(found.values()) == {prose(entry["explanation"]["description"])}
    index = page.json("index")
    assert [e["score"] for e in index] == [0.25] * len(entries)
    assert all("explanation" not in e for e in index)  # read when its page is opened
    text = page.json("words-5")["issues"]
    assert text == HOSTILE[5]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\r\nb\rc\u2028d\x0be", "a\nb\nc\nd\ne"),
        ("\n\nfirst\n\nsecond\n", "first\n\nsecond"),
        ("a\tb", "a   b"),
        ("\u202egnp\x00", "\\u202egnp\\u0000"),
        ("", ""),
        ("\n", ""),
    ],
)
def test_line_breaks_are_kept_and_the_rest_is_spelt_out(text, shown):
    assert prose(text) == shown


@given(st.text())
def test_prose_holds_nothing_invisible_and_is_stable(text):
    shown = prose(text)
    assert prose(shown) == shown
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]", shown)


def test_the_whole_text_is_not_said_twice():
    assert words(said("x")) == {"description": "x", "regions": "x", "issues": "x"}


def test_an_explanation_costs_its_own_length(tmp_path):
    def size(text):
        (folder := tmp_path / str(len(text))).mkdir()
        _, path = write(folder, [samples.entry(1) | {"explanation": said(text)}])
        return path.stat().st_size

    assert size("w" * 5000) - size("w") == 3 * 4999
