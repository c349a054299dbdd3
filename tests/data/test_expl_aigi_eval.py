"""Expl-AIGI-Eval: the public JSON lines, their constant score, and bad lines."""

import json
from pathlib import Path

import numpy as np
import pytest
from annotated_files import load_manifest, picture, png, spot

from artifactnet.data.converters import expl_aigi_eval
from artifactnet.types import Annotation, ArtifactNetError

REAL = Path(__file__).parents[2] / "../shared/data/expl_aigi_eval/RichHF-18K_dev.jsonl"
TURNS = [{"from": "human", "value": "<image>\nWhere?"}, {"from": "gpt", "value": "Here: [MAP]"}]


def row(name: str, score: float = 0.5, **changes) -> dict:
    files = {"image": f"./{name}.jpg", "heatmap": f"./artifact_map/{name}.png"}
    return {"id": name, **files, "score": score, "conversations": TURNS, **changes}


def write(path: Path, rows: list) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(one) + "\n" for one in rows))
    return path


def data_set(root: Path) -> tuple[Path, Path, Path]:
    """Three images: marked, clean, and without heatmap."""
    for name in "abc":
        picture(root / "images" / f"{name}.jpg")
    maps = root / "images" / "artifact_map"
    maps.mkdir()
    (maps / "a.png").write_bytes(png(spot()))
    (maps / "b.png").write_bytes(png(np.zeros((16, 16))))
    rows = [row("a", 0.25), row("b", 1.0), row("c", 0.75)]
    return write(root / "texts" / "x_dev.jsonl", rows), root / "images", root / "out"


@pytest.mark.skipif(not REAL.is_file(), reason=f"needs {REAL}")
def test_the_real_file(tmp_path):
    records, warnings = expl_aigi_eval.read_expl_aigi_eval(REAL)
    assert len(records) == len({record.id for record in records}) == 995
    assert all(record.score is None for record in records)
    (warning,) = warnings
    assert "all 995 scores are 0.58333" in warning
    for record in records:
        assert [turn.speaker for turn in record.conversations] == ["human", "gpt"]
        assert Path(record.image).stem == Path(record.heatmap).stem == record.id
        assert record.text == record.conversations[1].text
    assert sum("[SCORE]" in record.text for record in records) > 900
    for record in records[:2]:
        picture(tmp_path / "images" / f"{record.id}.jpg")
    result = expl_aigi_eval.convert_expl_aigi_eval(REAL, tmp_path / "images", tmp_path / "out")
    counts = {"images": 2, "fake": 2, "not annotated": 2, "with a text": 2, "val": 2}
    assert result.counts == counts
    assert len(result.warnings) == 3  # constant score, images, heatmaps
    assert any(text.startswith("2 heatmaps are missing") for text in result.warnings)
    lines = [json.loads(text) for text in result.manifest.read_text().splitlines()]
    assert {line["uid"]: line["text"] for line in lines} == {r.id: r.text for r in records[:2]}


def test_scores_that_differ_are_labels_and_may_be_unknown(tmp_path):
    def scores(*values):
        rows = [row(str(k), value) for k, value in enumerate(values)]
        path = write(tmp_path / "a.jsonl", rows)
        records, warnings = expl_aigi_eval.read_expl_aigi_eval(path)
        assert records[0].conversations[1] == expl_aigi_eval.Turn("gpt", "Here: [MAP]")
        assert [record.where for record in records] == [f"{path}:{k + 1}" for k in range(len(rows))]
        return [record.score for record in records], warnings

    for values in ([0.25, 1.0], [0.5], [None, None], [None, 0.5], [0.25, None, 1.0]):
        assert scores(*values) == (values, [])
    values, warnings = scores(0.5, None, 0.5)
    assert values == [None] * 3
    assert "all 2 scores are 0.5: a defect" in warnings[0]


def test_the_text_is_all_turns_of_gpt(tmp_path):
    def text_of(*turns):
        conversation = [{"from": speaker, "value": value} for speaker, value in turns]
        path = write(tmp_path / "a.jsonl", [row("a", conversations=conversation)])
        return expl_aigi_eval.read_expl_aigi_eval(path)[0][0].text

    assert text_of(("human", "Where?"), ("gpt", "Sure. \n[MAP]\n")) == "Sure. \n[MAP]\n"
    turns = [("human", "Where?"), ("gpt", "Here"), ("human", "Why?"), ("gpt", "So"), ("gpt", " ")]
    assert text_of(*turns) == "Here\nSo"
    for silent in ([], turns[:1], [turns[0], ("gpt", "\n")]):
        assert text_of(*silent) is None


def test_the_manifest_reads_back(tmp_path):
    result = expl_aigi_eval.convert_expl_aigi_eval(*data_set(tmp_path))
    assert result.counts == {
        **{"images": 3, "fake": 3, "not annotated": 1, "clean": 1},
        **{"with a heatmap": 1, "with a score": 3, "with a text": 3, "val": 3},
    }
    assert len(result.warnings) == 1
    assert "1 heatmaps are missing: not annotated, e.g. ./artifact_map/c.png" in result.warnings[0]
    source = load_manifest(result.manifest)["val"]
    states = [Annotation.MASK, Annotation.CLEAN, Annotation.NONE]
    assert [record.annotation for record in source.records] == states
    samples = [source.load(index) for index in range(3)]
    assert [sample.score for sample in samples] == [0.25, 1.0, 0.75]
    assert [sample.text for sample in samples] == ["Here: [MAP]"] * 3
    np.testing.assert_allclose(samples[0].heatmap, spot() / 255, atol=1e-7)


def test_a_heatmap_is_never_taken_for_its_image(tmp_path):
    source, images, out = data_set(tmp_path)
    (images / "a.jpg").unlink()
    picture(images / "b.png")  # another suffix than the record says, the same stem as its heatmap
    (images / "b.jpg").unlink()
    result = expl_aigi_eval.convert_expl_aigi_eval(source, images, out)
    rows = [json.loads(line) for line in result.manifest.read_text().splitlines()]
    assert [one["image"] for one in rows] == ["../images/b.png", "../images/c.jpg"]
    assert "1 images are not in" in result.warnings[0]


def test_a_folder_of_files_and_the_constant_column_reach_the_manifest(tmp_path):
    source, images, out = data_set(tmp_path)
    write(source.with_name("x_test.jsonl"), [row("b", 0.6), row("c", 0.6)])
    write(source, [row("a", 0.25)])
    result = expl_aigi_eval.convert_expl_aigi_eval(source.parent, images, out)
    rows = [json.loads(line) for line in result.manifest.read_text().splitlines()]
    known = [(one["uid"], one["split"], one["score"]) for one in rows]
    assert known == [("a", "val", 0.25), ("b", "test", None), ("c", "test", None)]
    assert "x_test.jsonl: all 2 scores are 0.6" in result.warnings[0]


def test_an_image_has_one_heatmap_that_fits_and_one_split(tmp_path):
    source, images, out = data_set(tmp_path)
    other = write(source.with_name("y_dev.jsonl"), [row("a", id="again")])
    result = expl_aigi_eval.convert_expl_aigi_eval(source.parent, images, out)  # the same twice
    assert result.counts["images"] == 4
    write(other, [row("a", id="again", heatmap="./artifact_map/other.png")])
    (images / "artifact_map" / "other.png").write_bytes(png(spot(value=9)))
    with pytest.raises(ArtifactNetError, match=r"a.jpg: two different maps for .*/a.png"):
        expl_aigi_eval.convert_expl_aigi_eval(source.parent, images, tmp_path / "b")
    other.unlink()
    write(source.with_name("y_test.jsonl"), [row("c", id="again"), row("b")])
    words = r"y_test.jsonl:1: image '.*/c.jpg' is in test here and .*x_dev.jsonl:3"
    with pytest.raises(ArtifactNetError, match=words):
        expl_aigi_eval.convert_expl_aigi_eval(source.parent, images, tmp_path / "c")
    assert not list((tmp_path / "c").glob("*.jsonl"))
    (images / "artifact_map" / "a.png").write_bytes(png(np.ones((16, 20))))
    result = expl_aigi_eval.convert_expl_aigi_eval(source, images, tmp_path / "d")
    assert result.counts["images"] == 2
    assert "(16x16, heatmap 20x16)" in result.warnings[0]
    (images / "artifact_map" / "b.png").write_bytes(png(spot())[:50])
    with pytest.raises(ArtifactNetError, match=r"x_dev.jsonl:2: heatmap .*b.png: "):
        expl_aigi_eval.convert_expl_aigi_eval(source, images, tmp_path / "e")


BAD = {
    "'score' is missing": {"image": "a"},
    "must be a JSON object, not list": [],
    "'id' must be text": row("a", id=3),
    "'image' must be text": row("a", image=""),
    "'score' must be a number from 0 to 1, or null, not 2": row("a", score=2),
    "'score' must be a number from 0 to 1, or null, not '1'": row("a", score="1"),
    "'score' must be a number from 0 to 1, or null, not True": row("a", score=True),
    "'conversations' must be": row("a", conversations=[{"from": "system", "value": ""}]),
    "'conversations' must be a list": row("a", conversations={"from": "gpt"}),
    "id 'first' occurs already in": row("first"),
}


@pytest.mark.parametrize("message", BAD)
def test_a_bad_line_is_named(tmp_path, message):
    bad = BAD[message]
    if message == "'score' is missing":
        bad = {key: value for key, value in row("a").items() if key != "score"}
    path = write(tmp_path / "a.jsonl", [row("first"), bad])
    with pytest.raises(ArtifactNetError) as caught:
        expl_aigi_eval.read_expl_aigi_eval(path)
    assert str(caught.value).startswith(f"{path}:2: ")
    assert message in str(caught.value)


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "a.jsonl"
    for content, message in (
        (b"{\n", "a.jsonl:1: not readable as JSON"),
        (b"", "a.jsonl: holds no record"),
        (b"\xff\xfe", "a.jsonl: cannot be read as a text file"),
    ):
        path.write_bytes(content)
        with pytest.raises(ArtifactNetError, match=message):
            expl_aigi_eval.read_expl_aigi_eval(path)
    with pytest.raises(ArtifactNetError, match="nor a folder with a .jsonl file"):
        expl_aigi_eval.convert_expl_aigi_eval(tmp_path / "none", tmp_path, tmp_path / "out")
