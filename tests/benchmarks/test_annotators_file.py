"""``score-annotators``: annotators against images of known answer, from files."""

from __future__ import annotations

import json

import pytest

from artifactnet.benchmarks.fakexplainer.annotators import annotators_page, score_annotators
from artifactnet.cli import main
from artifactnet.types import ArtifactNetError


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def answer(image, *boxes, tags=()):
    regions = [{"bbox": list(box), "caption": "warped hand"} for box in boxes]
    return {"image": image, "regions": regions, "tags": list(tags)}


def work(annotator, *args, **kwargs):
    return {"annotator": annotator, **answer(*args, **kwargs)}


def write(name, *rows):
    with open(name, "w") as file:
        file.write("".join(json.dumps(row) + "\n" for row in rows))
    return name


CONTROLS = [
    answer("1", (5, 0, 15, 10), tags=["wrong texture", "artistic style"]),
    answer("2", (0, 0, 10, 10)),
    answer("3", (0, 0, 10, 20), tags=["other anomalies"]),
]
# IoU 1/3, 0, 1/2 and agreement 1/2, 1, 0
ANN = [
    work("ann", "1", (0, 0, 10, 10), tags=["texture errors"]),
    work("ann", "2"),
    work("ann", "3", (0, 0, 10, 10), tags=["perspective errors"]),
]
BOB = [work("bob", "1", (20, 20, 30, 30)), work("bob", "other"), work("bob", "another")]


def test_worked_example(place, capsys):
    paths = write("work.jsonl", *ANN, *BOB, work("eve", "other")), write("c.jsonl", *CONTROLS)
    assert main(["score-annotators", paths[0], "--controls", paths[1], "--out", "out"]) == 0
    found = json.loads((place / "out" / "annotators.json").read_text())
    assert found == score_annotators(*paths)
    ann, bob, eve = found["annotators"]
    assert (ann["images"], ann["controls"], ann["tags"], ann["kept"]) == (3, 3, 0.5, True)
    assert ann["iou"] == pytest.approx(0.277778, abs=5e-7)
    assert bob == {
        **{"annotator": "bob", "images": 3, "controls": 1},
        **{"iou": 0.0, "tags": 0.0, "kept": False},
    }
    assert (eve["controls"], eve["iou"], eve["kept"]) == (0, None, None)
    assert found["overall"] == {
        **{"controls": 3, "iou": ann["iou"], "tags": 0.5},
        **{"images kept": 3, "images left out": 3, "images not judged": 1},
    }
    page = (place / "out" / "annotators.md").read_text()
    assert page == annotators_page(found)
    for line in (
        "| ann | 3 | 3 | 27.78% | 50.00% | kept |",
        "| bob | 3 | 1 | 0.00% | 0.00% | left out |",
        "| eve | 1 | 0 | - | - | not judged |",
        "WARNING: not judged, since they annotated no control: 'eve'",
    ):
        assert f"{line}\n" in page
    assert page in capsys.readouterr().out


def test_limits_can_be_chosen(capsys):
    paths = write("work.jsonl", *ANN), write("c.jsonl", *CONTROLS)
    for options, kept in (
        ([], True),
        (["--least-iou", ".3"], False),
        (["--least-tags", "1"], False),
    ):
        assert main(["score-annotators", paths[0], "--controls", paths[1], *options]) == 0
        assert ("| kept |" in capsys.readouterr().out) is kept
    with pytest.raises(SystemExit):
        main(["score-annotators", paths[0], "--controls", paths[1], "--least-iou", "nan"])
    assert "nan is not between 0 and 1" in capsys.readouterr().err


def test_nobody_is_kept():
    found = score_annotators(write("work.jsonl", BOB[0]), write("c.jsonl", *CONTROLS))
    assert found["overall"]["iou"] is None
    assert "over 0 controls: IoU -, tag agreement -." in annotators_page(found)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({**ANN[0], "image": "9", "control": True}, "work.jsonl:2: '9' is a control, but c.jsonl"),
        ({**ANN[0], "control": 1}, "work.jsonl:2: 'control' must be true or false, not 1"),
        (ANN[1], "work.jsonl:2: 'ann' annotated '2' in work.jsonl:1 already"),
        (answer("1"), "work.jsonl:2: 'annotator' is missing"),
        (work("", "1"), "work.jsonl:2: 'annotator' must be text"),
        (work("ann", "1", (5, 5, 5, 9)), "work.jsonl:2: regions[0]: 'bbox' must have 0 <= x1 < x2"),
        (work("ann", "1", tags=["ugly"]), "work.jsonl:2: 'tags': unknown tag 'ugly'"),
        ({**ANN[0], "tags": None}, "work.jsonl:2: 'tags' is missing"),
    ],
)
def test_a_bad_line_is_named(row, message, capsys):
    paths = write("work.jsonl", ANN[1], row), write("c.jsonl", *CONTROLS)
    assert main(["score-annotators", paths[0], "--controls", paths[1]]) == 2
    err = capsys.readouterr().err
    assert f"error: {message}" in err
    assert err.count("\n") == 1


def test_controls_that_are_none():
    path = write("work.jsonl", work("ann", "7"))
    with pytest.raises(ArtifactNetError, match=r"work.jsonl: no image is one of c.jsonl"):
        score_annotators(path, write("c.jsonl", *CONTROLS))
    with pytest.raises(ArtifactNetError, match=r"c.jsonl:2: '1' has an answer in c.jsonl:1"):
        score_annotators(path, write("c.jsonl", CONTROLS[0], CONTROLS[0]))
    with pytest.raises(ArtifactNetError, match=r"c.jsonl:1: 'tags' is missing"):
        score_annotators(path, write("c.jsonl", {"image": "7", "regions": []}))
