"""A folder beside the bare model: what is counted, and that the work is really done."""

import json

import numpy as np
import pytest
from perf import predict as module
from perf.cli import main
from perf.predict import BARE, Setting, benchmark_predict, make_crops
from PIL import Image
from tiny_models import tiny

from artifactnet.config import HeatmapConfig
from artifactnet.models.checkpoint import save_checkpoint
from artifactnet.types import ArtifactNetError


def student(folder, **heatmap):
    options = {"head": "decoder", "width": 8, **heatmap}
    model = tiny("test_efficientnet", kwargs={}, heatmap=HeatmapConfig(**options))
    save_checkpoint(model, folder / "student.safetensors")
    return str(folder / "student.safetensors")


@pytest.fixture
def here(monkeypatch):
    """The walk through the folder in this process: a fresh one takes seconds to start."""
    seen = []

    def in_this_process(run, *arguments):
        run(*arguments)
        seen.append(arguments)
        return 1

    monkeypatch.setattr(module, "fresh_peak", in_this_process)
    return seen


def test_crops_have_the_requested_size(tmp_path):
    files = make_crops(tmp_path / "a", 21, 64)
    assert len(set(files)) == len(list((tmp_path / "a").rglob("*.jpg"))) == 21
    for file in files:
        with Image.open(file) as image:
            assert (image.format, image.size) == ("JPEG", (64, 64))
    contents = {file.read_bytes() for file in files}
    assert len(contents) == 21
    again = make_crops(tmp_path / "b", 21, 64)
    assert {file.read_bytes() for file in again} == contents
    with Image.open(make_crops(tmp_path / "c", 1, 10_000)[0]) as whole:
        assert max(whole.size) < 10_000  # no photograph is that large


def test_report(tmp_path, here, monkeypatch):
    peaks = iter(range(100, 200))
    monkeypatch.setattr(module, "resident_peak", lambda: next(peaks) * 2**20)
    model = student(tmp_path)
    setting = Setting(
        model, images=21, size=48, timed=5, workers=(0, 1), batch_size=2, repeats=3, threads=1
    )
    report = benchmark_predict(setting)
    assert list(report["forms"]) == [BARE, "predict, 0 workers", "predict, 1 worker"]
    for found in report["forms"].values():
        for bound in ("median", "min", "max"):
            assert found["share_of_bare_model"][bound] == found["times_faster"][bound] > 0
        # five images in so many seconds
        fastest = 5 / found["seconds"]["min"]
        assert found["images_per_second"]["max"] == pytest.approx(fastest)
    assert set(report["forms"][BARE]["share_of_bare_model"].values()) == {1}
    memory = report["memory"]
    assert memory["images"] == [2, 4, 6, 8, 10, 12, 14, 16, 18, 20]
    assert memory["peak_megabytes"] == list(range(100, 110))
    assert memory["megabytes_per_1000_images"] == pytest.approx(1000 * 9 / 18)
    assert memory["images_per_second"] > 0
    assert here[0][0] == setting
    assert report["setting"]["images"] == 21
    json.dumps(report, allow_nan=False)


def test_the_bare_model_sees_every_image_in_batches_of_that_size(tmp_path):
    predictor = module.open_predictor(student(tmp_path), "cpu", 0)
    batches, maps = [], []

    def note(_, arguments, options):
        batches.append(arguments[0].clone())
        maps.append(options)

    predictor.model.register_forward_pre_hook(note, with_kwargs=True)
    module._bare(predictor, Setting(batch_size=3), 17)()
    assert [tuple(batch.shape) for batch in batches] == [(3, 3, 32, 48)] * 5 + [(2, 3, 32, 48)]
    assert not batches[0].equal(batches[1])
    assert set(map(str, maps)) == {
        "{'attention': False, 'segmentation': False, 'heatmap': True}"
    }  # of this student, as `predict` calls it
    assert np.isfinite(batches[0].numpy()).all()


def test_it_fails_where_an_image_does(tmp_path):
    folder = make_crops(tmp_path / "images", 3, 40)[0].parent
    (folder / "000.jpg").write_bytes(b"no image")
    setting = Setting(student(tmp_path), 3, workers=(2, 0), heatmaps=False, batch_size=2)
    with pytest.raises(ArtifactNetError, match=r"000\.jpg"):
        module.walk(setting, folder, tmp_path / "out", tmp_path / "m.json")
    assert not (tmp_path / "m.json").exists()


def test_what_makes_no_sense_is_refused(tmp_path):
    with pytest.raises(ArtifactNetError, match="images"):
        benchmark_predict(Setting(images=0))
    with pytest.raises(ArtifactNetError, match="workers"):
        benchmark_predict(Setting(workers=()))
    with pytest.raises(ArtifactNetError, match="nothing"):
        benchmark_predict(Setting(str(tmp_path / "nothing.safetensors"), images=1))
    mapper = student(tmp_path, head="mapper", tile=16)
    with pytest.raises(ArtifactNetError, match=r"mapper .* model\.heatmap\.adaptive=false"):
        benchmark_predict(Setting(mapper, images=1, size=40))


def test_command(tmp_path, here, capsys):
    options = ["--images", "3", "--size", "40", "--timed", "2", "--workers", "1", "--repeats", "1"]
    out = tmp_path / "report.json"
    options += ["--no-heatmaps", "--device", "cpu", "--out", str(out)]
    assert main(["predict", "--model", student(tmp_path), *options]) == 0
    report = json.loads(out.read_text())
    assert report["setting"]["timed"] == 2
    assert report["setting"]["heatmaps"] is False
    printed = capsys.readouterr().out
    assert "predict, 1 worker" in printed
    assert "MB after 3" in printed
    assert "per 1,000 images" in printed
