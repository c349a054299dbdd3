"""What `predict` writes is a teacher: its folder, or the heatmaps in it."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from canned_predictor import CannedPredictor
from PIL import Image

from artifactnet.cli import main
from artifactnet.data.heatmaps import HeatmapFolder
from artifactnet.distillation.teachers import open_teacher
from artifactnet.inference.folder import predict_to_folder
from artifactnet.types import Annotation, ArtifactNetError, Record

LONG = "x" * 240  # a name that `predict` shortens


def picture(path: Path, green: int, size=(20, 30)) -> Path:
    """An image whose heatmap is ``green / 255`` everywhere."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros((*size, 3), np.uint8)
    pixels[..., 1] = green
    Image.fromarray(pixels).save(path, "PNG")  # no rounding, whatever the suffix
    return path


def record(path, generator="sd", uid="no heatmap") -> Record:
    return Record(uid, 1, generator, Annotation.NONE, str(path), path=str(path))


def check_all(folder: HeatmapFolder, images: dict[Path, int]) -> None:
    """Every image gets its own heatmap."""
    records = {path: record(path) for path in images}
    folder.check(records.values())
    for path, green in images.items():
        values = folder.read(records[path], (20, 30))
        np.testing.assert_allclose(values, green / 255, atol=1e-6, err_msg=str(path))


LAYOUTS = {
    "one folder": ["a.jpg", "b.png", "c.webp"],
    "same stem": ["a.jpg", "a.png", "a.webp", "a"],
    "folders": ["real/7.jpg", "fake/7.jpg", "fake/sd/7.jpg", "fake/sd/7.png"],
    "dots": ["a.b.jpg", "a.jpg", "a.jpg.png", "a.png"],
    "long": [f"{LONG}1.jpg", f"{LONG}2.jpg", f"{LONG}2.png", f"f/{LONG}1.jpg"],
    "odd": ["ä ö.jpg", "#1.jpg", "名前.png", "~x.jpg"],
}


@pytest.mark.parametrize("part", ["", "heatmaps"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_image_gets_its_own_heatmap(tmp_path, layout, part):
    images = {
        picture(tmp_path / "d" / name, 20 + 40 * k): 20 + 40 * k
        for k, name in enumerate(LAYOUTS[layout])
    }
    predict_to_folder(CannedPredictor(), [tmp_path / "d"], tmp_path / "ans")
    check_all(HeatmapFolder(tmp_path / "ans" / part), images)


@pytest.mark.parametrize("part", ["", "heatmaps"])
@pytest.mark.parametrize("layout", ["same stem", "folders", "long"])
def test_paths_may_be_written_in_another_way(tmp_path, monkeypatch, layout, part):
    """Predicted by relative paths, trained on by absolute ones, after the data moved, too."""
    images = {
        picture(tmp_path / "d" / name, 20 + 40 * k): 20 + 40 * k
        for k, name in enumerate(LAYOUTS[layout])
    }
    monkeypatch.chdir(tmp_path)
    predict_to_folder(CannedPredictor(), ["d"], "ans")
    monkeypatch.chdir("/")
    (tmp_path / "moved").mkdir()
    check_all(HeatmapFolder(tmp_path / "ans" / part), images)
    shutil.move(tmp_path / "d", tmp_path / "moved" / "d")
    shutil.move(tmp_path / "ans", tmp_path / "answers")
    moved = {tmp_path / "moved/d" / p.relative_to(tmp_path / "d"): v for p, v in images.items()}
    check_all(HeatmapFolder(tmp_path / "answers" / part), moved)


@pytest.mark.parametrize("name", ["7.png", "7.npy", "7.jpg.png", "sub/7.jpg.npy"])
def test_both_spellings_without_a_list(tmp_path, name):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, np.full((20, 30), 0.2, np.float32))
    else:
        Image.fromarray(np.full((20, 30), 51, np.uint8)).save(path)
    check_all(HeatmapFolder(tmp_path), {Path("d/7.jpg"): 51})


def test_of_two_spellings_folders_count_first_and_then_the_suffix(tmp_path):
    for name, value in {"real/7.jpg.png": 10, "fake/7.png": 20, "fake/7.jpg.png": 30}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(np.full((20, 30), value, np.uint8)).save(tmp_path / name)
    images = {Path("d/real/7.jpg"): 10, Path("d/fake/7.jpg"): 30, Path("d/fake/7.webp"): 20}
    check_all(HeatmapFolder(tmp_path), images)


def test_rows_of_a_shard_are_called_by_shard_and_row(tmp_path):
    (tmp_path / "ans/heatmaps").mkdir(parents=True)
    lines = []
    for row in (0, 1, 2):
        name = f"heatmaps/~{row}.png"
        Image.fromarray(np.full((20, 30), 50 * row, np.uint8)).save(tmp_path / "ans" / name)
        lines.append({"path": f"data/s.parquet#{row}", "heatmap": name})
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (tmp_path / "ans/predictions.jsonl").write_text(text)
    folder = HeatmapFolder(tmp_path / "ans")
    for row in (0, 1, 2):
        shard = Record("u", 1, "sd", Annotation.NONE, f"/else/data/s.parquet#{row}")
        assert folder.read(shard, (20, 30))[0, 0] == pytest.approx(50 * row / 255)


def test_an_interrupted_run_gives_what_it_has(tmp_path):
    images = {picture(tmp_path / "d" / f"{LONG}{k}.jpg", 50 * k): 50 * k for k in range(4)}
    predict_to_folder(CannedPredictor(), [tmp_path / "d"], tmp_path / "ans")
    finished = tmp_path / "ans/predictions.jsonl"
    text = finished.read_text()
    lines = text.splitlines(keepends=True)
    finished.unlink()
    (tmp_path / "ans/predictions.partial.jsonl").write_text("".join(lines[:3]) + lines[3][:20])
    folder = HeatmapFolder(tmp_path / "ans")
    check_all(folder, dict(list(images.items())[:3]))
    with pytest.raises(ArtifactNetError, match="no heatmap for 1 images"):
        folder.check(map(record, images))


@pytest.mark.parametrize("line", ["no JSON", "[]", "7", '{"path": "a.jpg"}', '{"path": 7}', "\0"])
def test_a_damaged_list_is_named_with_its_line(tmp_path, line):
    picture(tmp_path / "d/a.jpg", 9)
    predict_to_folder(CannedPredictor(), [tmp_path / "d"], tmp_path / "ans")
    with open(tmp_path / "ans/predictions.jsonl", "a") as file:
        file.write(line + "\n")
    with pytest.raises(ArtifactNetError, match=r"predictions\.jsonl, line 2: "):
        HeatmapFolder(tmp_path / "ans")


def test_predictions_without_heatmaps_are_refused(tmp_path):
    picture(tmp_path / "d/a.jpg", 9)
    predict_to_folder(CannedPredictor(), [tmp_path / "d"], tmp_path / "ans", heatmaps=False)
    with pytest.raises(ArtifactNetError, match="ans: .*--no-heatmaps"):
        open_teacher(tmp_path / "ans")


def test_a_list_names_no_file_outside(tmp_path):
    picture(tmp_path / "d/a.jpg", 9)
    Image.fromarray(np.full((20, 30), 99, np.uint8)).save(tmp_path / "secret.png")
    predict_to_folder(CannedPredictor(), [tmp_path / "d"], tmp_path / "ans")
    listing = tmp_path / "ans/predictions.jsonl"
    entry = json.loads(listing.read_text()) | {"heatmap": "heatmaps/../../secret.png"}
    listing.write_text(json.dumps(entry) + "\n")
    check_all(HeatmapFolder(tmp_path / "ans"), {tmp_path / "d/a.jpg": 9})


def test_the_identity_depends_on_the_list(tmp_path):
    for name in ("a.jpg", "b.jpg"):
        picture(tmp_path / "d" / name, 9)
    predict_to_folder(CannedPredictor(), [tmp_path / "d"], tmp_path / "ans")
    before = HeatmapFolder(tmp_path / "ans").hash
    assert HeatmapFolder(tmp_path / "ans").hash == HeatmapFolder(tmp_path / "ans/heatmaps").hash
    with open(tmp_path / "ans/predictions.jsonl", "a") as file:
        file.write(json.dumps({"path": "c.jpg", "heatmap": None}) + "\n")
    assert HeatmapFolder(tmp_path / "ans").hash != before


@pytest.mark.slow
def test_distill_labels_with_predictions(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for label in ("real", "fake"):
        for k in range(12):
            path = Path(f"d/{label}/{label}{k}.jpg")
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(path)
    predict_to_folder(CannedPredictor(), ["d"], "ans")
    keys = ["data.name=folder", "data.root=d", "train.monitor=teacher_cc", "train.device=cpu"]
    keys += ["model.image_size=[64,64]", "data.augment.crop_size=[64,64]", f"out={tmp_path}"]
    assert main(["distill", "student_nano", "distill.teacher=ans", *keys, "--label-only"]) == 0
