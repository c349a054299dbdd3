"""``export`` and ``predict --backend`` from the command line."""

import json
import weakref
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_exports import pictures, student
from tiny_models import tiny

from artifactnet.cli import main
from artifactnet.data.transforms import Preprocess
from artifactnet.exporters import export
from artifactnet.exporters.checks import Agreement
from artifactnet.exporters.export import Exported
from artifactnet.exporters.graph import facts_of
from artifactnet.models.checkpoint import save_checkpoint

MEASURED = Agreement(2, {"probability": 1e-7, "heatmap": 2e-6}, 0.9991, 0, 0.0)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    model = student()
    model.notices = ("these weights are random",)
    path = tmp_path_factory.mktemp("run") / "model.safetensors"
    save_checkpoint(model, path)
    return str(path)


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for k, pixels in enumerate(pictures(6)):
        Image.fromarray(pixels).save(folder / f"{k}.png")
    return folder


def frame(path):
    """A picture as a student that stretches gets it."""
    picture = np.asarray(Image.open(path))
    tensor, _ = Preprocess((64, 96), "stretch", (0, 0, 0), (1, 1, 1)).image(picture)
    return (255 * tensor.numpy().transpose(1, 2, 0)).round().clip(0, 255).astype(np.uint8)


@pytest.fixture
def asked(monkeypatch):
    """What the library is asked to export, which it then does not."""
    made = []

    def note(model, path, images, **options):
        made.append((path, images, options))
        facts = facts_of(model, options["heatmap"])
        if options["int8"]:
            facts = replace(facts, calibrated=len(options["int8"].images))
        return Exported(path, facts, MEASURED)

    monkeypatch.setattr(export, "export_checked", note)
    return made


def test_images_of_the_user(weights, photos, asked, capsys):
    (photos / "3x.png").write_bytes(b"\x89PNG\r\n\x1a\n and nothing")
    out = str(photos.parent / "m.onnx")
    options = ["--images", str(photos), "--check", "2", "--int8", "--calibrate", "4"]
    keep = ["--keep-float", "backbone.net.patch_embed, head", "--overwrite"]
    assert main(["export", "--model", weights, "--out", out, *options, *keep]) == 0
    ((path, images, given),) = asked
    assert (path, given["overwrite"], given["heatmap"]) == (out, True, True)
    assert given["int8"].keep == ["backbone.net.patch_embed", "head"]
    calibration = given["int8"].images
    originals = {frame(p).tobytes() for p in photos.glob("[0-9].png")}
    seen = [image.tobytes() for image in (*images, *calibration)]
    assert len(seen) == len(set(seen))  # none is both
    assert set(seen) <= originals
    assert (len(images), len(calibration)) == (2, 3)  # five of six usable ones were drawn
    printed, told = capsys.readouterr()
    assert "1 could not be used" in told
    assert "3x.png" in told
    assert "these weights are random" in told
    assert "probability 1e-07" in printed
    assert "mean CC of heatmaps 0.9991" in printed
    assert "calibrated on 3 of 4 images asked for" in printed
    assert "warning: int8 was calibrated on 3 images" in told


def test_images_are_spread_over_all_that_there_are(weights, photos, asked):
    args = ["--out", "m.onnx", "--images", str(photos), "--check", "3", "--no-heatmap"]
    assert main(["export", "--model", weights, *args]) == 0
    ((_, images, given),) = asked
    assert given == {"heatmap": False, "int8": None, "overwrite": False}
    expected = [frame(photos / f"{k}.png") for k in (0, 2, 4)]
    for image, wanted in zip(images, expected, strict=True):
        np.testing.assert_array_equal(image, wanted)


def test_an_image_below_one_patch_is_listed(tmp_path, photos, asked, capsys):
    save_checkpoint(tiny(), tmp_path / "vit.safetensors")
    Image.new("RGB", (60, 9)).save(photos / "0.png")
    vit = str(tmp_path / "vit.safetensors")
    args = ["--out", "m.onnx", "--images", str(photos), "--no-heatmap"]
    assert main(["export", "--model", vit, *args]) == 0
    assert "60x9 pixels is too small for one patch" in capsys.readouterr().err
    assert len(asked[0][1]) == 5


def test_embedded_photographs_by_default(weights, asked, capsys):
    options = ["--check", "3", "--int8", "--calibrate", "16"]
    assert main(["export", "--model", weights, "--out", "m.xml", *options]) == 0
    printed, told = capsys.readouterr()
    assert "calibrated on 16 of 16 images asked for" in printed
    assert "calibrated on" not in told
    ((_, images, given),) = asked
    assert len(images) == 3
    assert len(given["int8"].images) == 16
    assert {image.shape for image in images} == {(96, 96, 3)}
    checked = {image.tobytes() for image in images}
    assert not checked & {image.tobytes() for image in given["int8"].images}


def test_embedded_photographs_are_not_enlarged():
    large = SimpleNamespace(image_size=(4096, 4096))
    images, none, failures = export._choose_images(large, [], 1, 0)
    assert images[0].shape == (512, 512, 3)
    assert none == failures == []


def test_no_picture_is_kept_at_its_own_size(weights, photos, asked, monkeypatch):
    """Whatever their number, one decoded original is in memory at a time."""
    alive = []

    class Original(np.ndarray):
        pass

    honest = export.to_pixels

    def watched(image, name):
        assert [reference() for reference in alive] == [None] * len(alive)
        pixels = honest(image, name).view(Original)
        alive.append(weakref.ref(pixels))
        return pixels

    monkeypatch.setattr(export, "to_pixels", watched)
    args = ["--out", "m.onnx", "--images", str(photos), "--check", "4", "--int8"]
    assert main(["export", "--model", weights, *args, "--calibrate", "2"]) == 0
    ((_, images, given),) = asked
    assert len(alive) == 6
    assert {image.shape for image in (*images, *given["int8"].images)} == {(64, 96, 3)}


def test_an_export_is_no_model_to_export(tmp_path, capsys):
    (tmp_path / "old.onnx").write_bytes(b"x")
    args = ["export", "--model", str(tmp_path / "old.onnx"), "--out", str(tmp_path / "m.onnx")]
    assert main(args) == 2
    told = capsys.readouterr().err
    assert "old.onnx: an exported file" in told
    assert told.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [(["--keep-float", "head"], "int8"), (["--images", "nowhere"], "nowhere: no such file")],
)
def test_mistakes(weights, tmp_path, capsys, options, message):
    args = ["export", "--model", weights, "--out", str(tmp_path / "m.onnx"), *options]
    assert main(args) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


# --- predict ---------------------------------------------------------------------------------


@pytest.mark.slow
def test_export_then_predict(weights, photos, tmp_path, capsys):
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    pytest.importorskip("openvino")
    onnx = str(tmp_path / "m.onnx")
    assert main(["export", "--model", weights, "--out", onnx, "--check", "4"]) == 0
    answers = {}
    for name, model, options in (
        ("torch", weights, ["--backend", "torch"]),
        ("onnx", onnx, ["--backend", "onnx", "--threads", "1"]),
        ("openvino", onnx, ["--backend", "openvino"]),
    ):
        out = tmp_path / name
        assert main(["predict", str(photos), "--model", model, "--out", str(out), *options]) == 0
        lines = (out / "predictions.jsonl").read_text().splitlines()
        answers[name] = [json.loads(line) for line in lines]
        assert "these weights are random" in capsys.readouterr().err
    for name in ("onnx", "openvino"):
        for ours, theirs in zip(answers["torch"], answers[name], strict=True):
            assert theirs["probability"] == pytest.approx(ours["probability"], abs=1e-4)
            assert theirs["path"] == ours["path"]
            pair = [Image.open(tmp_path / side / ours["heatmap"]) for side in ("torch", name)]
            first, second = (np.asarray(picture).astype(int) for picture in pair)
            assert abs(first - second).max() <= 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--device", "cuda"], "m.onnx: exported files run on the CPU"),
        (["--backend", "torch"], "m.onnx: the torch backend"),
        (["--text", "template"], "m.onnx: text=template"),
    ],
)
def test_options_that_an_exported_file_does_not_have(photos, tmp_path, capsys, options, message):
    (tmp_path / "m.onnx").write_bytes(b"x")
    out = tmp_path / "out"
    model = ["--model", str(tmp_path / "m.onnx"), "--out", str(out)]
    assert main(["predict", str(photos), *model, *options]) == 2
    assert message in capsys.readouterr().err
    assert not out.exists()


def test_threads_of_torch(weights, photos, tmp_path, monkeypatch):
    set_to = []
    monkeypatch.setattr(torch, "set_num_threads", set_to.append)
    args = ["predict", str(photos), "--model", weights, "--out", str(tmp_path / "out")]
    assert main([*args, "--threads", "3"]) == 0
    assert set_to == [3]
