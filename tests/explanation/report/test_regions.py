"""A report on a model that writes boxes with captions, and tags."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from artifactnet.explanation.report.build import report, write_report
from artifactnet.explanation.report.items import file_items
from artifactnet.vlm.fakexplainer.answering import AnswerPredictor

HOSTILE = "</script><script>alert(1)</script> <img src=x onerror=alert(2)> \u202ehand"
ANSWER = (
    "<think>\n"
    + json.dumps({"bbox_2d": [100, 200, 350, 800], "label": HOSTILE})
    + '\n{"bbox_2d": [0, 0, 1000, 100], "label": "sign, letters melted"}\n'
    "<tag>wrong texture, artistic style</tag>\n</think>\n<verdict>generated</verdict>"
)
REAL = "<think>\n<tag>none</tag>\n</think>\n<verdict>real</verdict>"


class Canned(AnswerPredictor):
    """Answers in turn."""

    default_batch_size = 1

    def __init__(self, *texts, drop="none"):
        self.texts, self.drop = list(texts), drop

    def input_size(self, image_size):
        return 1000, 1000

    def _answer_batch(self, batch, options):
        return [self._prediction(each, self.texts.pop(0), 0.9, (), options) for each in batch]


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for name in ("a.png", "b.png"):
        pixels = np.random.default_rng(0).integers(0, 256, (120, 200, 3), np.uint8)
        Image.fromarray(pixels).save(folder / name)
    return folder


def build(predictor, images, out):
    return write_report(predictor, file_items([images], out), out)


def test_regions_and_tags_are_in_the_files_and_nothing_of_them_is_markup(images, tmp_path):
    found = build(Canned(ANSWER, REAL), images, tmp_path / "report")
    assert found.failures == ()
    entries = json.loads(found.json.read_text())["entries"]
    assert entries[0]["regions"][0] == {"bbox": [20.0, 24.0, 70.0, 96.0], "caption": HOSTILE}
    assert entries[0]["tags"] == ["wrong texture", "artistic style"]
    assert (entries[1]["regions"], entries[1]["tags"]) == ([], [])
    assert entries[0]["artifact_share"] == pytest.approx((50 * 72 + 200 * 12) / (120 * 200))
    page = found.html.read_text()
    assert "<img src=x" not in page
    assert "<script>alert" not in page
    assert "sign, letters melted" in page
    assert "\u202e" not in page  # it would turn the text around


@pytest.mark.parametrize("drop", ["bbox", "label"])
def test_a_model_without_boxes_has_a_report_too(images, tmp_path, drop):
    text = '<think>\n{"label": "odd hand"}\n<tag>none</tag>\n</think>\n<verdict>generated</verdict>'
    found = build(Canned(text, REAL, drop=drop), images, tmp_path / "report")
    assert (found.failures, found.images, found.called_fake) == ((), 2, 1)
    entry = json.loads(found.json.read_text())["entries"][0]
    assert "regions" not in entry
    assert entry["artifact_share"] is None
    assert ("tags" in entry) == (drop == "bbox")


def test_a_browser_draws_the_boxes(images, tmp_path):
    api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    executable = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
    if executable is None:
        pytest.skip("needs Chromium")
    found = build(Canned(ANSWER, REAL), images, tmp_path / "report")
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    problems = []
    with api.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=executable, args=arguments)
        page = browser.new_page(viewport={"width": 1100, "height": 800})
        page.on("console", lambda message: problems.append(message.text))
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("dialog", lambda dialog: problems.append(dialog.message))
        page.goto(Path(found.html).as_uri() + "#image=0")
        boxes = page.locator("#detail-boxes .box")
        assert boxes.all_inner_texts() == ["1", "2"]
        assert boxes.first.get_attribute("title") == HOSTILE.replace("\u202e", "\\u202e")
        stack = page.locator("#detail-stack").bounding_box()
        box = boxes.first.bounding_box()
        # [20, 24, 70, 96] of 200 x 120
        assert (box["x"] - stack["x"]) / stack["width"] == pytest.approx(0.1, abs=0.01)
        assert (box["y"] - stack["y"]) / stack["height"] == pytest.approx(0.2, abs=0.01)
        assert box["width"] / stack["width"] == pytest.approx(0.25, abs=0.01)
        assert box["height"] / stack["height"] == pytest.approx(0.6, abs=0.01)
        rows = page.locator("#regions tr").all_inner_texts()
        assert "alert(1)" in rows[0]
        assert rows[1].split("\t") == ["2", "sign, letters melted", "0.0, 0.0, 200.0, 12.0"]
        assert "wrong texture, artistic style" in page.locator("#facts").inner_text()
        assert not page.locator("#instances-part").is_visible()
        page.locator("input[name=layer][value=image]").check()
        assert boxes.count() == 0
        page.goto(Path(found.html).as_uri() + "#image=1")
        assert not page.locator("#regions-part").is_visible()
        browser.close()
    assert problems == []


def test_the_test_images_of_a_run(tmp_path, monkeypatch, capsys):
    from tiny_fakexplainer import save_images

    from artifactnet.explanation.report import build as module

    manifest = save_images(tmp_path)
    run = tmp_path / "run"
    run.mkdir()
    (run / "fakexplainer.json").write_text("{}")
    keys = "name: run", "mllm: {task: fakexplainer, base: x}"
    data = f"data: {{name: manifest, root: {manifest}}}"
    (run / "config.yaml").write_text("\n".join((*keys, data)))
    monkeypatch.setattr(module, "load_model", lambda *a, **k: Canned(REAL, ANSWER, REAL, ANSWER))
    found = report(run)
    saved = json.loads(found.json.read_text())
    assert saved["data"]["split"] == "test"
    assert [entry["correct"] for entry in saved["entries"]] == [True] * 4
    assert [len(entry["regions"]) for entry in saved["entries"]] == [0, 2, 0, 2]
