"""A whole report of a tiny model: which files there are, and what they say."""

import json
import re
from dataclasses import asdict, replace

import numpy as np
import pytest
from canned_predictor import NOTICE, RATIONALE, CannedPredictor, canned_pixels
from PIL import Image
from tiny_models import TINY, tiny

from artifactnet.config import HeatmapConfig, SegmentationConfig
from artifactnet.explanation.report import build
from artifactnet.explanation.report.build import About, write_report
from artifactnet.explanation.report.encode import BUDGET
from artifactnet.explanation.report.items import Item
from artifactnet.inference.inputs import Failure
from artifactnet.inference.predictor import Predictor
from artifactnet.types import Annotation, ArtifactNetError, Record, Sample


def pixels(seed, size=(40, 60)):
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def labelled(count=6):
    """Real and fake in turn; every second fake is annotated."""
    items = []
    for k in range(count):
        fake, mask = k % 2, None
        annotation = Annotation.CLEAN if not fake else Annotation.NONE
        if k % 4 == 1:
            mask = np.zeros((40, 60), np.uint8)
            mask[5:20, 5:30], annotation = 2, Annotation.MASK
        record = Record(str(k), fake, "g" if fake else "real", annotation, f"image {k}")
        found = Sample(record, pixels(k), mask)
        items.append(Item(f"image {k}", lambda s=found: s, record.generator, fake))
    return items


@pytest.fixture(scope="module")
def model():
    model = tiny()
    model.notices = ("these weights are random",)
    return model


@pytest.fixture(scope="module")
def written(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    methods = ["relevance", "rollout"]
    about = About("A <b>title</b>", "tiny", "made up", "test", ("few images",))
    result = write_report(model, labelled(), folder, methods=methods, about=about)
    return result, json.loads(result.json.read_text())


def test_the_files_and_the_head(written):
    result, found = written
    folder = result.html.parent
    names = sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())
    pngs = [f"figures/{name}.png" for name in ("calibration", "generators", "probabilities", "roc")]
    assert names == [*pngs, "report.html", "report.json"]
    assert sorted(str(path.relative_to(folder)) for path in result.pngs) == pngs
    assert {Image.open(path).format for path in result.pngs} == {"PNG"}
    assert sorted(chart["file"] for chart in found["charts"]) == pngs
    assert (result.images, result.of, result.failures) == (6, 6, ())
    assert found["title"] == "A <b>title</b>"
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d UTC", found["created"])
    assert list(found["model"].values()) == ["tiny", "vit_tiny_patch16_224", 0.5, None, 0.5]
    assert list(found["data"].values()) == ["made up", "test", 6, 6, True]
    assert found["warnings"] == ["these weights are random", "few images"]
    assert [m["name"] for m in found["methods"]] == ["relevance", "rollout"]
    assert found["methods"][0]["scale"] == "minmax"
    assert [c["name"] for c in found["categories"]][-1] == "uncategorized"
    assert found["failures"] == []
    assert any("categories (no artifacts" in notice for notice in found["notices"])


def test_the_page_has_every_picture_and_the_json_none(written):
    result, found = written
    assert [entry["name"] for entry in found["entries"]] == [f"image {k}" for k in range(6)]
    assert all("layers" not in e and "thumb" not in e for e in found["entries"])
    assert "data:image" not in result.json.read_text()
    assert "svg" not in json.dumps(found["charts"])
    counts = found["summary"]["verdicts"]
    wrong = [entry for entry in found["entries"] if not entry["correct"]]
    assert counts["fp"] + counts["fn"] == len(wrong)
    assert [row["evaluated_images"] for row in found["summary"]["maps"]] == [2, 2]
    assert set(found["entries"][1]["scores"]) == {"relevance", "rollout"}
    html = result.html.read_text()
    assert "A &lt;b&gt;title&lt;/b&gt;" in html
    assert html.count('"heat:relevance":"data:image/png;base64,') == 6
    assert html.count('"annotation":"data:image/png;base64,') == 5  # 3 real, 2 annotated fakes
    assert "<svg " in html
    assert len(html) < 6 * BUDGET + 100_000


def test_an_older_report_is_replaced_with_its_charts(model, tmp_path):
    write_report(model, labelled(), tmp_path)
    assert (tmp_path / "figures" / "roc.png").exists()
    (tmp_path / "figures" / "mine.png").write_bytes(b"mine")
    unlabelled = [Item("a.png", lambda: pixels(0)), Failure("none.png", "no such file")]
    result = write_report(model, unlabelled, tmp_path)
    assert sorted(p.name for p in (tmp_path / "figures").iterdir()) == [
        "mine.png",
        "probabilities.png",
    ]
    found = json.loads(result.json.read_text())
    assert found["failures"] == [{"name": "none.png", "reason": "no such file"}]
    assert "no such file" in result.html.read_text()
    assert any("no labels" in notice for notice in found["notices"])
    assert found["title"] == "vit_tiny_patch16_224 on images"
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_limit_is_reported_and_nothing_usable_is_a_report_too(model, tmp_path):
    def load():
        raise ArtifactNetError("a.png: truncated")

    result = write_report(model, labelled(40), tmp_path, limit=4)
    found = json.loads(result.json.read_text())
    assert (result.images, result.of) == (4, 40)
    assert (found["data"]["images"], found["data"]["of"]) == (4, 40)
    assert found["notices"][0].startswith("4 of 40 images")
    assert sorted(entry["label"] for entry in found["entries"]) == [0, 0, 1, 1]
    result = write_report(model, [Item("a.png", load)], tmp_path)
    assert (result.images, result.of, result.pngs) == (0, 1, ())
    assert [(f.path, f.reason) for f in result.failures] == [("a.png", "truncated")]
    assert "truncated" in result.html.read_text()


def test_mistakes(model, tmp_path):
    (tmp_path / "file").write_text("here")
    with pytest.raises(ArtifactNetError, match="file"):
        write_report(model, [], tmp_path / "file")
    with pytest.raises(ArtifactNetError, match="limit"):
        write_report(model, [], tmp_path / "out", limit=0)
    for detector, method in ((model, "magic"), (CannedPredictor(), "relevance")):
        with pytest.raises(ArtifactNetError, match=method):
            write_report(detector, pictures(0.5), tmp_path / "out", methods=[method])
    assert not (tmp_path / "out").exists()


def test_a_page_that_cannot_be_written_leaves_the_old_one(model, tmp_path, monkeypatch):
    write_report(model, labelled(2), tmp_path)
    before = (tmp_path / "report.html").read_bytes()

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(build, "write_page", full)
    with pytest.raises(ArtifactNetError, match="No space"):
        write_report(model, labelled(3), tmp_path)
    assert (tmp_path / "report.html").read_bytes() == before


def pictures(*scores):
    return [Item(f"{k}.png", lambda s=score: canned_pixels(s)) for k, score in enumerate(scores)]


def test_a_report_of_a_predictor(tmp_path):
    predictor = CannedPredictor(RATIONALE, None, replace(RATIONALE, issues=""))
    result = write_report(
        predictor, pictures(0.2, 0.8, 0.4), tmp_path, about=About(model="heie", data="photos")
    )
    assert (result.images, result.called_fake, result.failures) == (3, 2, ())
    found = json.loads(result.json.read_text())
    assert (found["model"]["name"], found["model"]["threshold"]) == ("heie", 0.5)
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


def test_a_student_shows_its_heatmap_and_score(tmp_path):
    model = tiny(kwargs={**TINY, "depth": 4}, heatmap=HeatmapConfig(head="decoder", width=16))
    result = write_report(model, pictures(0.3, 0.6), tmp_path)
    found = json.loads(result.json.read_text())
    assert [m["name"] for m in found["methods"]] == ["predicted_heatmap", "relevance"]
    for entry, item in zip(found["entries"], pictures(0.3, 0.6), strict=True):
        expected = Predictor(model).predict(item.load())
        assert entry["score"] == pytest.approx(expected.score, abs=1e-6)
        share = float((expected.heatmap > 0.5).mean())
        assert entry["artifact_share"] == pytest.approx(share, abs=0.01)
        assert "explanation" not in entry
    result = write_report(tiny(), pictures(0.3), tmp_path)  # neither score nor words
    found = json.loads(result.json.read_text())
    assert [m["name"] for m in found["methods"]] == ["relevance"]
    assert not {"score", "explanation"} & set(found["entries"][0])
    assert 'id="words-' not in result.html.read_text()


@pytest.mark.slow
def test_masks_of_a_model_with_a_segmentation_head(tmp_path):
    head = SegmentationConfig(head="upernet", channels=8, auxiliary_channels=8)
    shape = {"embed_dim": 24, "depth": 4, "num_heads": 2}
    model = tiny(segmentation=head, kwargs=shape)
    result = write_report(model, labelled(4), tmp_path, methods=["segmentation"])
    found = json.loads(result.json.read_text())
    assert (result.images, result.failures) == (4, ())
    assert result.html.read_text().count('"mask":"data:image/png') == 4
    assert [row["name"] for row in found["summary"]["maps"]] == ["segmentation", "mask"]
    predictor = Predictor(model)
    for entry, item in zip(found["entries"], labelled(4), strict=True):
        expected = predictor.predict(item.load().image)
        assert entry["artifact_share"] == float((expected.mask != 0).mean())
        assert len(entry["instances"]) == min(20, len(expected.instances))
