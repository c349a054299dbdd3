"""``artifactnet convert``: from the command line to data that trains, and what it says."""

import json
from pathlib import Path

import numpy as np
import pytest
from annotated_files import load_manifest, picture, png, richhf_example, spot, write_records

from artifactnet.cli import main
from artifactnet.config import DataConfig
from artifactnet.data.checks import summarize_data
from artifactnet.data.datamodule import build_splits

SHARED = Path(__file__).parents[2] / ".." / "shared" / "data"
OTHERS = ("--out", "o", "--images", "i")


def own_folder(root: Path, parts: tuple[str, ...] = ("",)) -> Path:
    for part in parts:
        for k in range(4):
            picture(root / part / "real" / f"{k}.png")
            picture(root / part / "fake" / "sdxl" / f"{k}.png")
        masks = root / part / "masks" / "sdxl"
        masks.mkdir(parents=True)
        (masks / "1.png").write_bytes(png(np.where(spot(), 255, 0)))
    return root


def richhf(root: Path) -> tuple[Path, Path]:
    for k in range(4):
        picture(root / "pickapic" / f"r{k}.jpg")
    records = [richhf_example(f"train/r{k}.png", spot()) for k in range(4)]
    return write_records(root / "train.tfrecord", records).parent, root / "pickapic"


def test_formats_are_converted_into_one_folder_and_mixed(tmp_path, capsys):
    out = tmp_path / "mixed"
    source, images = richhf(tmp_path)
    assert main(["convert", "richhf", str(source), "--images", str(images), "--out", str(out)]) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith("4 images, 4 fake, 4 with a heatmap, 4 with a score, 4 train\n")
    assert f"{out}/richhf.jsonl: train on it with data.name=manifest" in printed.out
    assert printed.err == ""
    folder = own_folder(tmp_path / "own")
    assert main(["convert", "folder", str(folder), "--out", str(out), "--name", "mine"]) == 0
    splits = load_manifest(out)
    counts = summarize_data(splits, "full")["splits"]
    assert sum(part["images"] for part in counts.values()) == 12
    assert sum(part["annotation"]["mask"] for part in counts.values()) == 5
    assert set(counts["train"]["generator"]) >= {"pickapic", "real"}
    loaded = {
        Path(record.location).name: source.load(index)
        for source in splits.values()
        for index, record in enumerate(source.records)
        if record.generator == "sdxl"
    }
    assert (loaded["1.png"].mask == (spot() > 0)).all()
    assert loaded["0.png"].mask is None


def test_warnings_are_printed_apart(tmp_path, capsys):
    source, images = richhf(tmp_path)
    (images / "r0.jpg").unlink()
    out = tmp_path / "out"
    assert main(["convert", "richhf", str(source), "--images", str(images), "--out", str(out)]) == 0
    printed = capsys.readouterr()
    assert printed.err.startswith("warning: 1 images are not in")
    assert "warning: " not in printed.out
    again = ["convert", "richhf", str(source), "--images", str(images), "--out", str(out)]
    assert main(again) == 2
    assert "richhf.jsonl: already there; replace it with --overwrite" in capsys.readouterr().err
    assert main([*again, "--overwrite", "--generator", "sd"]) == 0
    rows = [json.loads(line) for line in (out / "richhf.jsonl").read_text().splitlines()]
    assert {row["generator"] for row in rows} == {"sd"}


def test_split_folders_and_stems_that_repeat(tmp_path, capsys):
    folder = own_folder(tmp_path / "own", ("train", "val"))
    picture(folder / "val" / "real" / "only.png")
    assert main(["convert", "folder", str(folder), "--out", str(tmp_path / "out")]) == 0
    assert "warning: 4 file stems occur in more than one split folder" in capsys.readouterr().err
    splits = load_manifest(tmp_path / "out")
    assert {r.uid for r in splits["train"].records} == {f"folder/train/{k}" for k in range(4)}
    assert "folder/only" in {r.uid for r in splits["val"].records}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["richhf", "x", "--out", "o"], "convert richhf needs --images DIR"),
        (["fakexplain", "x", "--out", "o"], "convert fakexplain needs --images DIR"),
        (["coco", "x", *OTHERS], "i: no such folder of images"),
        (["coco", "x", *OTHERS, "--texts"], "convert coco does not take --texts"),
        (["labelme", "x", "--out", "o"], "x: no such folder of labelme's JSON files"),
        (["xaigd_boxes", "x", "--out", "o"], "x: no X-AIGD shards"),
        (["fakeclue", "x", "--out", "o"], "x: holds neither data_json/train.json"),
        (["synthscars", "x", "--out", "o"], "x: holds neither train/annotations/train.json"),
        (["folder", "x", "--out", "o", "--images", "i"], "takes neither --images nor --generator"),
        (["folder", "x", "--out", "o"], "x: no such folder"),
        (["folder", "x", "--out", "o", "--name", "a/b"], "must be a plain file name"),
        (["abhuman", "x", "--out", "o", "--images", "i"], "i: no such folder of images"),
        (["abhuman", "x", "--out", "i/o", "--images", "i"], "--out i/o: lies inside i"),
        (["folder", "x", "--out", "x/o"], "--out x/o: lies inside x"),
        (["abhuman", "x", "--out", "x", "--images", "i"], "--out x: lies inside x"),
        (
            ["abhuman", "x", *OTHERS, "--generator", "real"],
            "generator 'real'",
        ),
    ],
)
def test_mistakes_are_one_line(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert main(["convert", *arguments]) == 2
    printed = capsys.readouterr().err
    assert message in printed
    assert (printed.count("\n"), list(tmp_path.iterdir())) == (1, [])


def test_boxes_and_texts(tmp_path):
    picture(tmp_path / "images" / "a.jpg")
    box = {"image_id": 1, "bbox": [1, 2, 3, 4]}
    data = {"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": [box]}
    (tmp_path / "boxes.json").write_text(json.dumps(data))
    common = ["--images", str(tmp_path / "images"), "--out", str(tmp_path / "out")]
    assert main(["convert", "abhuman", str(tmp_path / "boxes.json"), *common]) == 0
    text = {"id": "a", "image": "a.jpg", "heatmap": "m/a.png", "score": 0.5, "conversations": []}
    (tmp_path / "t_test.jsonl").write_text(json.dumps(text))
    assert main(["convert", "expl_aigi_eval", str(tmp_path / "t_test.jsonl"), *common]) == 0
    names = sorted(path.stem for path in (tmp_path / "out").glob("*.jsonl"))
    assert names == ["abhuman", "expl_aigi_eval"]
    # one picture in two manifests, under two uids: its named split wins
    splits = load_manifest(tmp_path / "out")
    assert list(splits) == ["test"]
    assert "listed more than once" in splits["test"].warnings[0]


def test_captioned_boxes(tmp_path, capsys):
    picture(tmp_path / "images" / "a.jpg")
    box = {"image_id": 1, "bbox": [1, 2, 3, 4], "caption": "hand"}
    data = {"images": [{"id": 1, "file_name": "a.jpg", "tags": []}], "annotations": [box]}
    (tmp_path / "boxes.json").write_text(json.dumps(data))
    common = ["--images", str(tmp_path / "images"), "--out", str(tmp_path / "out")]
    assert main(["convert", "coco", str(tmp_path / "boxes.json"), *common]) == 0
    assert capsys.readouterr().out.startswith("1 images, 1 fake, 1 with regions, 1 without a split")
    row = {
        "image": "a.jpg",
        "label": 0,
        "cate": "x",
        "conversations": [{"from": "gpt", "value": "b"}],
    }
    (tmp_path / "clue" / "data_json").mkdir(parents=True)
    (tmp_path / "clue" / "data_json" / "test.json").write_text(json.dumps([row]))
    picture(tmp_path / "clue" / "test" / "a.jpg")
    clue = ["convert", "fakeclue", str(tmp_path / "clue"), "--out", str(tmp_path / "out")]
    assert main([*clue, "--texts"]) == 0
    assert capsys.readouterr().out.startswith(
        "1 images, 1 fake, 1 not annotated, 1 with a text, 1 test"
    )


@pytest.mark.slow
def test_real_photographs_and_their_masks(tmp_path):
    folder = SHARED / "migan_edits"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not here")
    assert main(["convert", "folder", str(folder), "--out", str(tmp_path)]) == 0
    splits = load_manifest(tmp_path)
    for name, source in build_splits(DataConfig(name="folder", root=str(folder)), 0).items():
        by_path = {Path(r.location).resolve(): k for k, r in enumerate(splits[name].records)}
        assert len(by_path) == len(source.records)
        for index in range(0, len(source.records), 50):
            sample = source.load(index)
            other = splits[name].load(by_path[Path(sample.record.location).resolve()])
            assert (other.image == sample.image).all()
            assert (other.mask is None) == (sample.mask is None)
            assert sample.mask is None or (other.mask == sample.mask).all()
            assert other.record.annotation == sample.record.annotation
