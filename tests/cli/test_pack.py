"""``artifactnet pack``, and models of the package on the command line."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_models import TINY, tiny

import artifactnet
from artifactnet.cli import main
from artifactnet.config import HeatmapConfig
from artifactnet.exporters import pack
from artifactnet.models import packaged
from artifactnet.models.checkpoint import load_checkpoint, save_checkpoint
from artifactnet.models.metadata import read_metadata
from artifactnet.types import ArtifactNetError, Prediction


def decoding(seed=0, **config):
    """A model with a heatmap head."""
    head = HeatmapConfig(head="decoder", width=8)
    return tiny(seed=seed, kwargs={**TINY, "depth": 4}, heatmap=head, **config)


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(here):
    """Folder of a run, with a model whose verdict and heatmap depend on the image."""
    model = decoding(threshold=0.4)
    model.notices = ("started somewhere",)
    save_checkpoint(model, here / "run/model.safetensors", {"run": "run", "epoch": 3})
    return Path("run")


def photos(count: int = 3) -> list[Path]:
    paths = [Path(f"photos/{k}.png") for k in range(count)]
    Path("photos").mkdir(exist_ok=True)
    for k, path in enumerate(paths):
        pixels = np.random.default_rng(k).integers(0, 256, (40, 50, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
    return paths


def told(capsys) -> str:
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    return err


def files(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def test_a_run_becomes_half_a_file_that_keeps_what_it_knew(run, capsys):
    Path("words.md").write_text("# Nano\n")
    arguments = ["--out", "box/nano.safetensors", "--card", "words.md", "--trained-on", "edits"]
    assert main(["pack", str(run), *arguments]) == 0
    original, out = run / "model.safetensors", Path("box/nano.safetensors")
    assert files(Path("box")) == ["nano.md", "nano.safetensors"]
    assert Path("box/nano.md").read_text() == "# Nano\n"
    weights = [sum(p.numel() * n for p in tiny_state(original)) for n in (4, 2)]
    saved = original.stat().st_size - out.stat().st_size
    assert abs(saved - (weights[0] - weights[1])) < 400  # the rest of the files differs by a few
    before, after = read_metadata(original), read_metadata(out)
    packed = after["extra"].pop("packed")
    assert after == before
    assert packed == {
        "artifactnet": artifactnet.__version__,
        "original_sha256": hashlib.sha256(original.read_bytes()).hexdigest(),
        "trained_on": "edits",
    }
    assert "largest difference on 8 images of noise: probability " in capsys.readouterr().out


def tiny_state(path: Path) -> list[torch.Tensor]:
    return list(load_checkpoint(path).state_dict().values())


def test_printed_differences_are_the_real_ones(run, capsys):
    paths = photos()
    words = ["pack", str(run), "--out", "nano.safetensors", "--images", "photos"]
    assert main(words) == 0
    one, other = (artifactnet.load_model(m, device="cpu") for m in (run, "nano.safetensors"))
    pairs = [(one.predict(p), other.predict(p)) for p in paths]
    probability = max(abs(a.probability - b.probability) for a, b in pairs)
    heatmap = max(float(np.abs(a.heatmap - b.heatmap).max()) for a, b in pairs)
    assert probability > 0
    assert heatmap > 0
    out, err = capsys.readouterr()
    score = max(abs(a.score - b.score) for a, b in pairs)
    sigma = max(float((np.abs(a.sigma - b.sigma) / a.sigma).max()) for a, b in pairs)
    assert f"on 3 images: probability {probability:.2g}, heatmap {heatmap:.2g}, sigma" in out
    assert f", sigma {sigma:.2g}, score {score:.2g}\n" in out
    assert "no model card" in err


def test_of_many_images_a_few_evenly_spread(run, monkeypatch):
    seen = []

    def note(original, packed, images):
        seen.extend(image.name for image in images)
        return {"probability": 0.0}

    monkeypatch.setattr(pack, "_differences", note)
    photos(9)
    words = ["pack", str(run), "--out", "n.safetensors", "--images", "photos", "--check", "3"]
    assert main(words) == 0
    assert seen == ["photos/0.png", "photos/3.png", "photos/6.png"]


def test_a_model_without_heatmap_and_one_that_attends(here, capsys):
    kwargs = {"channels": (8, 8, 16, 16), "layers": (1, 1, 1, 1), "stem_width": 8}
    save_checkpoint(tiny("resnet18", kwargs=kwargs), "plain.safetensors")
    assert main(["pack", "plain.safetensors", "--out", "p.safetensors"]) == 0
    assert "heatmap" not in capsys.readouterr().out
    save_checkpoint(tiny(), "vit.safetensors")
    assert main(["pack", "vit.safetensors", "--out", "v.safetensors"]) == 0
    told = capsys.readouterr().out
    assert "heatmap" in told
    assert "score" not in told


# --- refusals -----------------------------------------------------------------------------


def packed_otherwise(monkeypatch, change) -> None:
    """The copy is spoiled between saving and checking, as a bad conversion would."""
    real = pack.save_checkpoint

    def spoil_copy(model, path, extra, **options):
        real(model, path, extra, **options)
        other = load_checkpoint(path)
        change(other)
        real(other, path, extra, **options)

    monkeypatch.setattr(pack, "save_checkpoint", spoil_copy)


def shift_verdict(model):
    model.head.bias.data += 0.08


def shift_heatmap(model):
    model.heatmap.maps.bias.data[0] += 0.7
    model.evidence.weight.data.zero_()


def shift_score(model):
    model.heatmap.score[-1].bias.data += 0.3


def shift_sigma(model):
    model.heatmap.maps.bias.data[1] += 0.3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (shift_verdict, r"probability by 0\.0\d+ \(limit 0\.01"),
        (shift_heatmap, r"heatmap by 0\.\d+ \(limit 0\.02"),
        (shift_score, r"differ: score by 0\.\d+ \(limit 0\.01\); keep"),
        (shift_sigma, r"differ: sigma by 0\.\d+ \(limit 0\.1\); keep"),
    ],
)
def test_a_copy_that_answers_otherwise_is_not_written(run, monkeypatch, capsys, change, message):
    packed_otherwise(monkeypatch, change)
    with pytest.raises(ArtifactNetError, match=rf"nano\.safetensors: not written.*{message}"):
        pack.pack_model(run, "nano.safetensors")
    assert files(Path()) == ["run/model.safetensors"]
    assert main(["pack", str(run), "--out", "nano.safetensors"]) == 2
    assert "not written" in told(capsys)


def test_a_small_difference_is_within_the_limits(run, monkeypatch):
    packed_otherwise(monkeypatch, lambda model: model.head.bias.data.add_(0.02))
    found = pack.pack_model(run, "nano.safetensors").differences["probability"]
    assert 0.002 < found < 0.004


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("field", ["heatmap", "sigma", "score"])
def test_an_answer_that_is_no_number_is_refused(field, value):
    values = {"heatmap": np.full((2, 2), 0.5), "sigma": np.full((2, 2), 0.1), "score": 0.5}
    good = Prediction(0.5, True, **values)
    bad = Prediction(0.5, True, **(values | {field: values[field] * value}))
    assert set(pack._distances(good, good).values()) == {0.0}
    for pair in ((good, bad), (bad, good), (bad, bad)):
        with np.errstate(invalid="ignore"), pytest.raises(ArtifactNetError, match=field):
            pack._refuse(Path("n.safetensors"), pack._distances(*pair))


def test_sigma_is_compared_with_its_own_size():
    one, other = (Prediction(0.5, True, sigma=np.float32([[0.01, s]])) for s in (2.0, 2.1))
    assert pack._distances(one, other)["sigma"] == pytest.approx(0.05, rel=1e-5)
    other.sigma = np.float32([[0.012, 2.0]])
    assert pack._distances(one, other)["sigma"] == pytest.approx(0.2, rel=1e-5)


def test_a_weight_that_does_not_fit_is_named(here, capsys):
    model = tiny()
    model.head.bias.data.fill_(1e5)
    save_checkpoint(model, "m.safetensors")
    assert main(["pack", "m.safetensors", "--out", "n.safetensors"]) == 2
    assert "head.bias: a weight of magnitude 100000 cannot be stored" in told(capsys)
    assert files(here) == ["m.safetensors"]


def test_an_image_that_cannot_be_used_is_named(run, capsys):
    photos()
    Path("photos/1.png").write_bytes(b"nothing")
    words = ["pack", str(run), "--out", "n.safetensors", "--images"]
    assert main([*words, "photos"]) == 2
    assert "photos/1.png" in told(capsys)
    assert main([*words, "nowhere"]) == 2
    assert "nowhere: no such file or folder" in told(capsys)
    assert not Path("n.safetensors").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run", "--out", "nano.pth"], "nano.pth: a packed model's name must end in .safetensors"),
        (["run", "--out", "run/model.safetensors", "--overwrite"], "is the original"),
        (["run", "--out", "old.safetensors"], "old.safetensors: exists already"),
        (["run", "--out", "n.safetensors", "--card", "none.md"], "none.md: the model card cannot"),
        (["run", "--out", "n.safetensors", "--card", "empty.md"], "empty.md: the model card is em"),
        (["run", "--out", "n.safetensors", "--card", "card.md"], "n.md: exists already"),
        (["nobody", "--out", "n.safetensors"], "nobody: no such model file"),
        (["m.onnx", "--out", "n.safetensors"], "m.onnx: an exported file"),
        (["empty", "--out", "n.safetensors"], "empty: no model.safetensors in this folder"),
        (["run", "--out", "old.safetensors/n.safetensors"], "cannot be written"),
    ],
)
def test_mistakes_are_one_line_and_touch_nothing(run, capsys, words, message):
    Path("empty").mkdir()
    for name, content in (
        ("old.safetensors", "old"),
        ("n.md", "old"),
        ("card.md", "# Card"),
        ("m.onnx", "x"),
    ):
        Path(name).write_text(content)
    Path("empty.md").write_text(" \n")
    before = {name: Path(name).read_bytes() for name in files(Path())}
    assert main(["pack", *words]) == 2
    assert message in told(capsys)
    assert {name: Path(name).read_bytes() for name in files(Path())} == before


def test_overwrite_replaces_and_a_card_in_its_place_is_kept(run):
    Path("n.safetensors").write_text("old")
    Path("n.md").write_text("# Card\n")
    words = ["pack", str(run), "--out", "n.safetensors", "--card", "n.md"]
    assert main([*words, "--overwrite"]) == 0
    assert load_checkpoint("n.safetensors").config.threshold == 0.4
    assert Path("n.md").read_text() == "# Card\n"


def test_a_packed_model_packed_again_is_the_same(run):
    pack.pack_model(run, "one.safetensors")
    again = pack.pack_model("one.safetensors", "two.safetensors")
    assert again.differences == dict.fromkeys(pack.LIMITS, 0.0)


# --- models of the package, by name -------------------------------------------------------


@pytest.fixture
def nano(run, here, monkeypatch):
    monkeypatch.setattr(packaged, "FOLDER", here / "box")
    pack.pack_model(run, here / "box/nano.safetensors")
    return artifactnet.load_model(here / "box/nano.safetensors", device="cpu")


def test_load_model_by_name_and_by_path(nano, here):
    image = photos(1)[0]
    expected = nano.predict(image).probability
    assert artifactnet.load_model("nano", device="cpu").predict(image).probability == expected
    save_checkpoint(
        decoding(seed=9), here / "nano/model.safetensors"
    )  # a run's folder of the same name wins
    assert artifactnet.load_model("nano", device="cpu").predict(image).probability != expected
    with pytest.raises(ArtifactNetError, match="^nanu: no such model file; .*package: nano$"):
        artifactnet.load_model("nanu")


def test_predict_and_explain_by_name(nano, capsys):
    image = str(photos(1)[0])
    where = ["--device", "cpu", "--out"]
    assert main(["predict", image, "--model", "nano", *where, "predict"]) == 0
    assert main(["explain", "nano", image, *where, "explain"]) == 0
    assert any(name.endswith(".png") for name in files(Path("explain")))
    entry = json.loads(Path("predict/predictions.jsonl").read_text())
    assert entry["probability"] == pytest.approx(nano.predict(image).probability, abs=1e-6)
    assert entry["warnings"] == ["started somewhere"]
    capsys.readouterr()
    assert main(["predict", image, "--model", "nanu", "--out", "x"]) == 2
    assert "models in the package: nano" in told(capsys)


def test_report_by_name(nano):
    image = str(photos(1)[0])
    assert main(["report", "nano", "--images", image, "--out", "page", "--device", "cpu"]) == 0
    assert list(Path("page").glob("*.html"))
