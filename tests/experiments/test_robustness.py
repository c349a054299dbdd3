"""Robustness: figures by hand, the table, refusals before any model is opened, the command."""

import json
from pathlib import Path

import pytest
import stub_models
from stub_models import save_manifest

from artifactnet.cli import main
from artifactnet.experiments import robustness
from artifactnet.experiments.level_figures import level_figures
from artifactnet.experiments.robustness import run_robustness
from artifactnet.experiments.side_by_side import cell, failure_lines, failure_warnings
from artifactnet.types import Annotation, ArtifactNetError, Record


def record(label, number=0):
    return Record(str(number), label, "sdxl" if label else "real", Annotation.NONE, "x")


def line(is_fake, probability=None, areas=None, truth="none", problem=None):
    return {
        "path": "x",
        "is_fake": is_fake,
        "probability": probability,
        "areas": areas,
        "truth": truth if areas is None else "known",
        "problem": problem,
    }


def test_figures_by_hand():
    records = [record(1), record(1), record(1), record(0), record(0)]
    lines = [
        line(True, 0.9, [2.0, 8.0]),
        line(False, 0.4, [0.0, 4.0]),
        line(None, None, [0.0, 5.0], problem="broken"),
        line(False, 0.4),
        line(True, 0.7),
    ]
    found = level_figures(records, lines, "boxes")
    assert found["accuracy"] == 2 / 5
    assert found["balanced_accuracy"] == pytest.approx((1 / 3 + 1 / 2) / 2)
    # pairs of a fake and a real one: .9 wins twice; .4 ties and loses; the failed one loses twice
    assert found["auc"] == 2.5 / 6
    assert found["iou"] == pytest.approx((0.25 + 0 + 0) / 3)
    assert (found["images"], found["failed"], found["iou_images"]) == (5, 1, 3)
    assert (found["real_recall"], found["fake_recall"]) == (1 / 2, 1 / 3)
    assert (found["precision"], found["f1"]) == (1 / 2, 2 / 5)  # one found, one false, two missed
    assert level_figures(records, lines, "map")["iou"] == 2 / 17


def test_nothing_to_find_and_nothing_left():
    records = [record(1)] * 4
    lines = [
        line(True, areas=[0.0, 0.0]),  # no artifact, no box
        line(True, areas=[0.0, 6.0]),
        line(False, areas=[0.0, 0.0]),
        line(True, truth="lost"),
    ]
    found = level_figures(records, lines, "boxes")
    assert found["iou"] == 1 / 3
    assert (found["iou_images"], found["iou_lost"]) == (3, 1)
    assert level_figures(records, lines[3:] * 4, "boxes")["iou"] is None


def test_verdicts_alone_have_no_auc_and_one_class_no_accuracy():
    found = level_figures([record(1), record(0)], [line(True), line(False, 0.1)], None)
    assert (found["auc"], found["accuracy"], found["iou"]) == (None, 1.0, None)
    found = level_figures(
        [record(1)] * 3, [line(True, 0.9), line(False, 0.2), line(True, 0.8)], None
    )
    assert found["fake_recall"] == 2 / 3
    undefined = ("accuracy", "balanced_accuracy", "auc", "real_recall", "iou")
    assert [found[key] for key in undefined] == [None] * 5


def test_cells_and_failures():
    assert cell(None) == "-"
    assert cell(0.9384, -0.0119) == "0.938 (-0.012)"
    about = {"model": "m", "set": "s", "level": "crop"}
    few = about | {"images": 100, "failed": 1, "failures": {"a": "why"}}
    many = about | {"images": 100, "failed": 2, "failures": {f"k{n}": "why" for n in range(12)}}
    assert failure_warnings([few]) == []
    (text,) = failure_warnings([many])
    assert "m could not judge 2 of 100 images of s (crop), 2.0%" in text
    assert failure_lines([few])[2] == "- m, s crop: a: why"
    assert len(failure_lines([many])) == 2 + 10 + 1 + 1
    assert failure_lines([about | {"images": 3, "failed": 0, "failures": {}}]) == []


@pytest.fixture
def toy(tmp_path):
    return {"toy": str(save_manifest(tmp_path / "data"))}


def theirs(tmp_path, levels):
    """Predictions with boxes: exactly the truth of the original, but on all levels."""
    rows = []
    for level in levels:
        for number in range(3):
            row = {"level": level, "generator": "sdxl", "uid": str(number), "probability": 0.9}
            rows.append(row | {"boxes": [[10, 20, 50, 44]]})
            rows.append({"level": level, "image": f"{number}_0.png", "probability": 0.2})
    path = tmp_path / "theirs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_the_table(toy, tmp_path, monkeypatch):
    monkeypatch.setattr(stub_models, "SHAPES", [])
    models = ["mean=stub_models:brightness", theirs(tmp_path, ["original", "half"])]
    levels = ["jpeg80", "original", "half"]
    found = run_robustness(models, toy, tmp_path / "out", levels, paper=True)
    assert len(stub_models.SHAPES) == 6 * 3
    rows = {(row["model"], row["level"]): row for row in found["rows"]}
    assert list(rows) == [
        *(("mean", "jpeg80"), ("mean", "original"), ("theirs", "original")),
        *(("mean", "half"), ("theirs", "half")),
    ]
    assert rows["mean", "original"]["balanced_accuracy"] == 1
    assert rows["mean", "jpeg80"]["difference"]["auc"] == 0
    assert rows["mean", "original"]["difference"] is None
    assert rows["mean", "original"]["iou"] is None
    own = rows["theirs", "half"]
    assert rows["theirs", "original"]["iou"] == 1
    # halved truth [5, 10, 25, 22] against [10, 20, 50, 44], clipped to 40 px and half the height
    ious = []
    for height in (30, 32, 34):
        both = (25 - 10) * (22 - 20)
        either = (25 - 5) * (22 - 10) + (40 - 10) * (height - 20) - both
        ious.append(both / either)
    assert own["iou"] == pytest.approx(sum(ious) / 3)
    assert own["difference"]["iou"] == pytest.approx(own["iou"] - 1)
    assert found["models"]["theirs"]["localization"] == "boxes"
    written = json.loads((tmp_path / "out" / "robustness.json").read_text())
    assert written == json.loads(json.dumps(found))
    page = (tmp_path / "out" / "robustness.md").read_text()
    assert "| mean | balanced accuracy | 1.000 (+0.000) | 1.000 | 1.000 (+0.000) |" in page
    assert "| theirs | balanced accuracy | - | 1.000 | 1.000 (+0.000) |" in page
    assert f"| theirs | IoU | - | 1.000 | {own['iou']:.3f} ({own['iou'] - 1:+.3f}) |" in page
    assert "- toy (manifest): 6 images, 3 real and 3 fake" in page
    assert "| mean | stub_models:brightness |" in page
    assert "our reading: half is bicubic" in page
    assert "our reading: IoU is over annotated fakes" in page
    assert "rop" not in page.partition("## toy")[0]  # of what no figure depends on
    ours, _, papers = page.partition("## The paper's numbers")
    assert "FakeShield" not in ours
    assert "| FakeXplainer | 0.982 (0.360) | 0.979 (0.353) |" in papers
    answers = tmp_path / "out" / "robustness" / "answers" / "mean" / "toy"
    assert len((answers / "half.jsonl").read_text().splitlines()) == 6


def test_failures_are_listed(toy, tmp_path):
    (tmp_path / "data" / "1_1.png").write_bytes(b"no image")
    found = run_robustness(["a=stub_models:brightness"], toy, tmp_path / "out", ["original"])
    (row,) = found["rows"]
    assert (row["failed"], row["fake_recall"]) == (1, 2 / 3)
    assert list(row["failures"]) == ["sdxl/1"]
    page = (tmp_path / "out" / "robustness.md").read_text()
    assert "WARNING: a could not judge 1 of 6 images of toy (original), 16.7%" in page
    assert "- a, toy original: sdxl/1: " in page
    assert "| a | without judgment | 1 |" in page


def test_one_class_has_its_recall_alone(toy, tmp_path):
    manifest = Path(toy["toy"])
    fakes = [text for text in manifest.read_text().splitlines() if '"label": 1' in text]
    alone = manifest.with_name("fakes.jsonl")
    alone.write_text("\n".join(fakes) + "\n")
    run_robustness(["a=stub_models:brightness"], {"f": str(alone)}, tmp_path / "out", ["half"])
    page = (tmp_path / "out" / "robustness.md").read_text()
    assert "| a | recall of fake | 1.000 |" in page
    assert "Acc" not in page
    assert "accuracy" not in page


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"levels": ["original", "zoom"]}, "unknown level 'zoom'"),
        ({"levels": ["half", "half"]}, "--levels: one is named twice: half half"),
        ({"models": ["gone"]}, "gone: nothing that can be opened"),
        ({"models": ["a=stub_models:net", "a=student-nano"]}, "two models are called 'a'"),
        ({"sets": {"toy": "gone"}}, "toy=gone: no such file or folder"),
        ({"sets": {"..": "."}}, "the name cannot name a folder"),
        ({"reals": ["other=x"]}, "--reals other=x: no set is called 'other'"),
        ({"reals": ["gone"]}, "'gone' is neither a set of --on nor a folder"),
        ({"reals": ["toy"]}, "--reals toy: all sets have real images already"),
        ({"reals": ["toy=toy"]}, "--reals toy=toy: toy has real images already"),
    ],
)
def test_refused_before_any_model_is_opened(toy, tmp_path, monkeypatch, change, message):
    monkeypatch.setattr(robustness, "open_model", lambda *_: pytest.fail("opened"))
    given = {"models": ["a=stub_models:net"], "sets": toy, "out": tmp_path / "out"} | change
    with pytest.raises(ArtifactNetError, match=message) as info:
        run_robustness(**given)
    assert "\n" not in str(info.value)
    assert not (tmp_path / "out").exists()


def test_the_command(toy, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["experiment", "robustness", "--model", "a=stub_models:brightness", "--on"]
    words += [f"toy={toy['toy']}", "--levels", "original", "crop", "--seed", "1", "--limit", "2"]
    words += ["--recode", "--out", "out", "--workers", "1"]
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "Crops of seed 1. All images were saved as JPEG 95 first." in out
    assert "table in out/robustness.md and .json" in out
    assert "our reading: crop keeps 0.8 of each side" in out
    assert "a sample: 2 uids, 4 of 6 images" in out
    assert main([*words, "--generator", "x"]) == 2
    assert "--generator is for gptimage, and no set is one" in capsys.readouterr().err


def test_the_page_of_several_models(toy, tmp_path):
    """Its figures are those of the table, failures included."""
    (tmp_path / "data" / "1_1.png").write_bytes(b"no image")
    models = ["a=stub_models:brightness", "b=stub_models:no_number"]
    found = run_robustness(models, toy, tmp_path / "out", ["original", "half"])
    assert (tmp_path / "out" / "robustness" / "leaderboard.html").is_file()
    board = json.loads((tmp_path / "out" / "robustness" / "leaderboard.json").read_text())
    assert board["warnings"] == found["sets"]["toy"]["warnings"] + found["warnings"]
    assert any("could not judge" in text for text in board["warnings"])
    assert [one["name"] for one in board["conditions"]] == ["toy original", "toy half"]
    for row in found["rows"]:
        (condition,) = (
            one for one in board["conditions"] if one["name"] == f"{row['set']} {row['level']}"
        )
        scores = condition["models"][row["model"]]
        assert scores["balanced_accuracy"] == row["balanced_accuracy"]
        assert scores["auc"] == row["auc"]


def test_one_model_has_no_page(toy, tmp_path):
    run_robustness(["a=stub_models:brightness"], toy, tmp_path / "out", ["original"])
    assert not (tmp_path / "out" / "robustness" / "leaderboard.html").exists()
