"""Pages and tables for people: self-contained, escaped, and complete."""

import base64
import csv
import hashlib
import io
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image
from qreal_stubs import NO_PROBLEM

from artifactnet.annotation.qreal.review import export_review
from artifactnet.data.qreal import DIMENSIONS, PARTS, QUESTIONS
from artifactnet.types import ArtifactNetError

NASTY = '<script>alert("1")</script>\u202e&amp;'


@pytest.fixture
def annotations(tmp_path):
    """Two images: a violin and an old man with parts, and an image with a nasty name and texts."""
    lines = []
    for name, entities in (
        ("a.png", [("violin", [10.5, 20, 90, 100], {}), ("old man", [100, 0, 180, 120], None)]),
        ("b<i>&.png", [(NASTY, [0, 0, 30, 20], {})]),
    ):
        pixels = np.random.default_rng(0).integers(0, 256, (160, 200, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / name)
        rows = []
        for number, (label, box, other) in enumerate(entities):
            row = {"id": f"{name}-{number}", "label": label, "bbox": box, "answers": NO_PROBLEM}
            if other is None:
                row["answers"] = {**NO_PROBLEM, "plausibility_1": "Yes"}
                row["parts"] = {"hands": "Six fingers."}
            else:
                row["answers"] = {**NO_PROBLEM, "realism_1": "No"}
                row["realism"] = f"Looks like {label}."
            rows.append(row)
        lines.append({"image": name, "uid": name, "verified": False, "entities": rows})
    path = tmp_path / "q.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


class Page(HTMLParser):
    """What a page consists of."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.texts, self.raw = [], [], {"script": "", "style": ""}
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        inside = self.tags[-1][0] if self.tags else ""
        if inside in self.raw and not self.raw[inside]:
            self.raw[inside] = data
        else:
            self.texts.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def page(folder, name):
    return Page((folder / name).read_text(encoding="utf-8"))


def test_a_page_asks_everything(annotations, tmp_path):
    out = tmp_path / "out"
    assert export_review(annotations, out, ["Ann", "Bo", "Cy"]) == 2
    found = page(out, "0001.html")
    assert [o.get("value") for o in found.all("option")] == ["", None, None, None]
    assert {"Ann", "Bo", "Cy"} <= set(found.texts)
    for question in QUESTIONS.values():
        assert found.texts.count(question.text) == 2
    radios = found.all("input")
    assert {(r["data-entity"], r["data-question"], r["value"]) for r in radios} == {
        (f"a.png-{k}", key, word) for k in (0, 1) for key in QUESTIONS for word in ("Yes", "No")
    }
    assert not any("checked" in radio for radio in radios)  # people look first
    assert len({radio["name"] for radio in radios}) == 12
    areas = [(a["data-entity"], a["data-dimension"]) for a in found.all("textarea")]
    assert areas == [
        *[("a.png-0", dimension) for dimension in DIMENSIONS],
        ("a.png-1", "realism"),
        *[("a.png-1", part) for part in PARTS],
    ]
    boxes = [[float(r[k]) for k in ("x", "y", "width", "height")] for r in found.all("rect")]
    assert boxes == [[10.5, 20, 79.5, 80], [100, 0, 80, 120]]
    assert found.all("svg")[0]["viewbox"] == "0 0 200 160"
    images = []
    for image in found.all("img"):
        data = base64.b64decode(image["src"].removeprefix("data:image/jpeg;base64,"))
        images.append(Image.open(io.BytesIO(data)).size)
    assert images == [(200, 160), (80, 80), (80, 120)]


def test_a_page_needs_nothing_and_runs_nothing_else(annotations, tmp_path):
    export_review(annotations, tmp_path / "out", ["1"])
    for name in ("0001.html", "0002.html"):
        text = (tmp_path / "out" / name).read_text(encoding="utf-8")
        found = Page(text)
        (policy,) = [m["content"] for m in found.all("meta") if "http-equiv" in m]
        assert policy.startswith("default-src 'none'; img-src data:;")
        for kind in ("script", "style"):
            digest = hashlib.sha256(found.raw[kind].encode()).digest()
            assert f"'sha256-{base64.b64encode(digest).decode()}'" in policy
        assert re.findall(r'(?:src|href)="(?!data:)', text) == []
        assert "http://" not in text
        assert "https://" not in text
        assert not any("style" in attributes for _, attributes in found.tags)


def test_texts_from_data_are_escaped(annotations, tmp_path):
    export_review(annotations, tmp_path / "out", ['"><b>'])
    found = page(tmp_path / "out", "0002.html")
    assert len(found.all("script")) == 1
    assert found.all("b") == found.all("i") == []
    shown = NASTY.replace("\u202e", "\\u202e")
    assert any(shown in text for text in found.texts)
    assert f"realism: Looks like {shown}." in found.texts
    assert found.all("input")[0]["data-entity"] == "b<i>&.png-0"
    links = page(tmp_path / "out", "index.html")
    assert [link["href"] for link in links.all("a")] == ["0001.html", "0002.html"]
    assert "b<i>&.png" in links.texts


def test_tables_have_a_row_for_everything(annotations, tmp_path):
    export_review(annotations, tmp_path / "out", ["Ann", "Bo"])
    with open(tmp_path / "out" / "review.csv", newline="") as handle:
        rows = list(csv.reader(handle))
    assert rows[0] == ["entity", "annotator", "question", "answer"]
    assert len(rows) == 1 + 3 * 2 * 6
    assert rows[7] == ["a.png-0", "Bo", "realism_1", ""]
    with open(tmp_path / "out" / "texts.csv", newline="") as handle:
        rows = list(csv.reader(handle))
    assert len(rows) == 1 + 2 * (2 + 8 + 2)
    assert ["a.png-1", "Ann", "head/face", ""] in rows


def test_bad_input(annotations, tmp_path):
    for annotators in ([], ["a", "a"]):
        with pytest.raises(ArtifactNetError, match="each once"):
            export_review(annotations, tmp_path / "out", annotators)
    (tmp_path / "full").mkdir()
    (tmp_path / "full/x").touch()
    with pytest.raises(ArtifactNetError, match="not an empty folder"):
        export_review(annotations, tmp_path / "full", ["1"])
    (tmp_path / "a.png").unlink()
    with pytest.raises(ArtifactNetError, match=r"a\.png"):
        export_review(annotations, tmp_path / "out", ["1"])
    assert not (tmp_path / "out").exists()
