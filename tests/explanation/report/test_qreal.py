"""The page of Q-Real's annotations: what stands on it, hostile texts, a browser."""

import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import tiny_qreal
from browser_checks import BARE, CONTRAST
from PIL import Image
from report_samples import HOSTILE, SHOWN

from artifactnet.cli import main
from artifactnet.explanation.report.qreal import write_qreal_report
from artifactnet.types import ArtifactNetError
from artifactnet.vlm.qreal.score import score_qreal


class Article(HTMLParser):
    """The text of each image's part of a page, with its attributes."""

    def __init__(self, page):
        super().__init__()
        self.found = []
        self._open = False
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        if tag == "article":
            self.found.append([dict(attrs), ""])
            self._open = True

    def handle_endtag(self, tag):
        self._open &= tag != "article"

    def handle_data(self, data):
        if self._open:
            self.found[-1][1] += " " + data


def articles(path):
    found = Article(path.read_text(encoding="utf-8")).found
    return [(attributes, " ".join(text.split())) for attributes, text in found]


def write_lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def truth(tmp_path):
    return tiny_qreal.save(tmp_path, {"verified": False, "generator": "flux", "prompt": "a duet"})


def test_what_is_annotated_stands_on_the_page(truth, tmp_path):
    found = write_qreal_report(truth, tmp_path / "x.html")
    assert (found.images, found.of, found.failures) == (4, 4, ())
    assert found.warnings == ("1 of 4 images are not verified by people.",)
    parts = articles(found.html)
    rows = tiny_qreal.lines()
    for (attributes, text), row in zip(parts, rows, strict=True):
        entities = row["entities"]
        assert row["image"] in text
        problems = sum(
            (answer == "No") == key.startswith("realism")
            for entity in entities
            for key, answer in entity["answers"].items()
        )
        assert text.count(", a problem") == problems
        for entity in entities:
            assert entity["label"] in text
            for dimension in ("realism", "plausibility"):
                assert entity[dimension] is None or entity[dimension] in text
        flags = {d for d in ("realism", "plausibility") if any(e[d] for e in entities)}
        assert set(attributes["data-flags"].split()) == flags
    assert "not verified by people" in parts[0][1]
    assert "a duet" in parts[0][1]
    assert "not verified by people" not in parts[1][1]
    assert "portrait" in parts[2][1]
    assert "hands: woman-3 is bent" in parts[2][1]
    page = found.html.read_text()
    assert "Model" not in page
    assert page.count("data:image/webp") == 4
    assert re.search(r"plausibility_2: .*?<td>Yes</td><td>4</td><td>0\.571</td>", page)


def test_quality_and_votes(tmp_path):
    entities = tiny_qreal.lines()[0]["entities"]
    entities[0] |= {"quality": 0.414, "votes": {"realism_2": ["No", "Yes", "No"]}}
    truth = tiny_qreal.save(tmp_path, {"entities": entities, "generator": "flux"})
    write_qreal_report(truth, tmp_path / "x.html")
    (_, text), *_ = articles(tmp_path / "x.html")
    assert "Box 10, 10, 50, 40; quality 0.41" in text
    assert "No, a problem No, Yes, No" in text
    assert re.search(
        r"flux</bdi></th><td>1</td><td>2</td>.*0\.414", (tmp_path / "x.html").read_text()
    )


PREDICTIONS = [
    {"entity": "violin-2", "question": "realism_1", "answer": "Yes", "score": 0.8125},
    {"entity": "violin-2", "question": "realism_2", "answer": "Yes"},
    {"entity": "cello-2", "question": "plausibility_2", "answer": "who knows"},
    {
        "image": "b.png",
        "dimension": "plausibility",
        "boxes": [
            {"bbox": [0, 0, 10, 10], "label": "fiddle", "description": "no\nstrings"},
            {"bbox": [20, 20, 30, 30], "label": "bass", "description": "bent"},
            {"bbox": [60, 60, 70, 70], "label": "stool", "description": "two legs"},
        ],
    },
    {"image": "c.png", "dimension": "realism", "answer": "none"},
    {"image": "d.png", "dimension": "realism", "answer": "It looks fine to me"},
]


@pytest.fixture
def predictions(tmp_path):
    return write_lines(tmp_path / "p.jsonl", PREDICTIONS)


def test_a_models_answers_stand_beside_the_truth(truth, predictions, tmp_path):
    found = write_qreal_report(truth, tmp_path / "x.html", [predictions])
    assert (found.images, found.of) == (3, 3)  # the test split, which is scored
    (flags, b), (_, c), (_, d) = articles(found.html)
    assert b.count(", wrong") == 2  # one of them is unreadable
    assert "unreadable, wrong" in b
    assert "Yes score 0.812" in b
    assert flags["data-flags"] == "realism plausibility wrong"
    # as in the worked example of the benchmark: 0.5 and 2/3; the third box is on nothing
    assert "P1. fiddle Box 0, 0, 10, 10; entity 1, IoU 0.500" in b
    assert "P2. bass Box 20, 20, 30, 30; entity 2, IoU 0.667" in b
    assert "P3. stool Box 60, 60, 70, 70; overlaps no annotated entity with such a problem" in b
    assert "None, says the model." in c
    assert "The answer cannot be read." in d
    figures = score_qreal(truth, [predictions])["figures"]
    assert list(found.warnings) == figures["warnings"]
    page = found.html.read_text()
    iou = figures["image"]["plausibility"]["iou"]
    assert f"<bdi>plausibility</bdi></th><td>{iou:.4f}</td>" in page
    assert "</strong> <span" in page
    assert "no\nstrings" in page


def test_answers_to_one_task_alone_have_its_table_alone(truth, tmp_path):
    file = write_lines(tmp_path / "o.jsonl", PREDICTIONS[:1])
    page = write_qreal_report(truth, tmp_path / "x.html", [file]).html.read_text()
    assert "(ObjectQA)" in page
    assert "(ImageQA)" not in page


def test_splits_and_limits(truth, predictions, tmp_path):
    assert write_qreal_report(truth, tmp_path / "x.html", split="train").images == 1
    assert write_qreal_report(truth, tmp_path / "x.html", [predictions], split="all").images == 4
    found = write_qreal_report(truth, tmp_path / "x.html", limit=2)
    assert (found.images, found.of) == (2, 4)
    page = found.html.read_text()
    assert "2 of 4 images are shown" in page
    assert "<dt>Images</dt><dd>4</dd>" in page
    with pytest.raises(ArtifactNetError, match="limit must be 1 or more"):
        write_qreal_report(truth, tmp_path / "x.html", limit=0)
    with pytest.raises(ArtifactNetError, match="no image is in the split val"):
        write_qreal_report(truth, tmp_path / "x.html", split="val")


def test_an_image_that_cannot_be_read_is_listed(truth, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (112, 84, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(content[: len(content) // 2])  # its header is whole
    found = write_qreal_report(truth, tmp_path / "x.html")
    assert found.images == 3
    assert [failure.path for failure in found.failures] == ["a.png"]
    assert "Images that could not be read (1)" in found.html.read_text()


def test_pictures_keep_to_the_budget_of_reports(tmp_path):
    truth = tiny_qreal.save(tmp_path)
    noise = np.random.default_rng(0).integers(0, 256, (1500, 2000, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "d.png")
    page = write_qreal_report(truth, tmp_path / "x.html").html.read_text()
    pictures = re.findall(r'src="(data:[^"]+)"', page)
    assert max(map(len, pictures)) <= 120_000
    assert 'width="2000" height="1500"' in page


def hostile(folder):
    """A page whose texts are all hostile, and its annotations and predictions."""
    truth = tiny_qreal.save(folder)
    rows = [json.loads(line) for line in truth.read_text().splitlines()]
    for row, text in zip(rows, HOSTILE[:3] + HOSTILE[7:8], strict=True):
        row |= {"uid": text, "generator": text, "prompt": text, "split": None}
        for entity in row["entities"]:
            entity["label"] = text
            entity["id"] = f"{text} {entity['id']}"
            for dimension in ("realism", "plausibility"):
                if entity[dimension] is not None:
                    entity[dimension] = text
            if "parts" in entity:
                entity["parts"] = {"hands": text}
    write_lines(truth, rows)
    boxes = [{"bbox": [1, 2, 30, 40], "label": text, "description": text} for text in HOSTILE]
    lists = [{"image": row["image"], "dimension": "realism", "boxes": boxes} for row in rows]
    predictions = write_lines(folder / f"{HOSTILE[6]}.jsonl", lists)
    return write_qreal_report(truth, folder / "x.html", [predictions], title=HOSTILE[1]).html


def test_texts_never_become_markup(tmp_path):
    page = hostile(tmp_path).read_text(encoding="utf-8")
    for text in ("<img src=x", "<script>alert", "<!--<script>", "\u2028", "\u202e"):
        assert text not in page
    assert page.count("<script") == 1


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_in_a_browser(tmp_path, visit, scheme):
    page = visit(hostile(tmp_path), color_scheme=scheme)
    assert SHOWN[1] in page.locator("h1").inner_text()
    assert page.evaluate(BARE) == []
    on_image = set(page.locator(".whole text").all_text_contents())  # white with a black rim
    assert min(found for found in page.evaluate(CONTRAST) if found[1] not in on_image)[0] >= 4.5


def test_boxes_lie_where_they_are(truth, tmp_path, visit):
    page = visit(write_qreal_report(truth, tmp_path / "x.html").html)
    image = page.locator(".whole img").first.bounding_box()
    rect = page.locator(".whole rect").first.bounding_box()  # of 84 x 112 pixels: [10, 10, 50, 40]
    scale = image["width"] / 84
    assert image["height"] / 112 == pytest.approx(scale, rel=0.01)
    rim = 2.5  # pixels of a line; the rest is rounding
    assert rect["x"] - image["x"] == pytest.approx(10 * scale, abs=rim)
    assert rect["y"] - image["y"] == pytest.approx(10 * scale, abs=rim)
    assert rect["width"] == pytest.approx(40 * scale, abs=2 * rim)
    assert rect["height"] == pytest.approx(30 * scale, abs=2 * rim)


def test_filters_and_boxes_that_can_be_hidden(truth, predictions, tmp_path, visit):
    page = visit(write_qreal_report(truth, tmp_path / "x.html", [predictions], split="all").html)

    def shown():
        return page.locator(".entry:visible h3").all_text_contents()

    assert shown() == ["a.png", "b.png", "c.png", "d.png"]
    for value, names in (
        ("realism", ["a.png", "b.png"]),
        ("plausibility", ["a.png", "b.png", "c.png"]),
        ("none", ["d.png"]),
        ("wrong", ["b.png"]),
        ("", ["a.png", "b.png", "c.png", "d.png"]),
    ):
        page.locator("#problem").select_option(value)
        assert shown() == names
        assert page.locator("#count").inner_text() == f"{len(names)} of 4 images shown"
    page.locator("#search").fill("WOMAN")
    assert shown() == ["c.png"]
    page.locator("#search").fill("")
    assert page.locator(".whole .predicted:visible").count() == 3
    page.locator("#show-model").focus()
    page.keyboard.press("Space")
    assert page.locator(".whole .predicted:visible").count() == 0
    assert page.locator(".whole .true:visible").count() == 7
    page.locator("#show-truth").uncheck()
    assert page.locator(".whole .true:visible").count() == 0


def test_fits_a_phone(tmp_path, visit):
    page = visit(hostile(tmp_path), width=360, height=700)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_without_scripts_everything_is_shown(truth, tmp_path, visit):
    page = visit(write_qreal_report(truth, tmp_path / "x.html").html, java_script_enabled=False)
    assert page.locator(".entry:visible").count() == 4
    assert page.locator("#filters:visible").count() == 0


def test_command(truth, predictions, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["qreal", "report", "qreal.jsonl", "p.jsonl", "--out", "x.html"]) == 0
    found = capsys.readouterr()
    assert found.out.splitlines() == ["3 of 3 images on the page", "x.html"]
    assert "have no answer" in found.err
    assert "<title>Q-Real: qreal.jsonl, p.jsonl</title>" in (tmp_path / "x.html").read_text()
    write_lines(tmp_path / "bad.jsonl", [{"entity": "nobody", "question": "realism_1"}])
    assert main(["qreal", "report", "qreal.jsonl", "bad.jsonl", "--out", "y.html"]) == 2
    assert "bad.jsonl:1: the truth has no entity 'nobody'" in capsys.readouterr().err
    assert not (tmp_path / "y.html").exists()
