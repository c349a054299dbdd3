"""Calibration of saved detectors, from images on disk to the verdicts of `predict`."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from tiny_models import tiny

import artifactnet
from artifactnet.cli import main
from artifactnet.config import ConfigError
from artifactnet.evaluation.evaluate import evaluate_file
from artifactnet.inference.predictor import Predictor
from artifactnet.models.checkpoint import load_checkpoint, save_checkpoint
from artifactnet.models.metadata import read_metadata
from artifactnet.training.trainer import train_detector
from artifactnet.types import ArtifactNetError

COUNT = 60


def detector(**config):
    model = tiny(**config)
    with torch.no_grad():
        model.head.weight.mul_(25)
        model.head.bias.zero_()
    return model


def noise(number: int) -> np.ndarray:
    """Flat colours with noise, so that a random network tells them apart."""
    rng = np.random.default_rng(number)
    return np.clip(rng.integers(0, 256, 3) + rng.integers(-40, 40, (32, 48, 3)), 0, 255)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A detector's file, and validation images on most of which it is right."""
    folder = tmp_path_factory.mktemp("calibrate")
    model = detector()
    pictures = [np.uint8(noise(k)) for k in range(COUNT)]
    logits = [one.probability for one in Predictor(model).predict(pictures)]
    middle = float(np.median([math.log(p / (1 - p)) for p in logits]))
    with torch.no_grad():
        model.head.bias -= middle
    save_checkpoint(model, folder / "one.safetensors", {"epoch": 7})
    order = np.argsort(logits)
    for rank, index in enumerate(order):
        fake = (rank >= COUNT // 2) != (rank % 7 == 3)  # about one in seven is wrong
        for split in ("val", "test"):
            path = folder / f"data/{split}/{'fake' if fake else 'real'}/{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pictures[index]).save(path)
    return folder / "one.safetensors", folder / "data"


def data_of(root: Path) -> list[str]:
    return ["data.name=folder", f"data.root={root}", "data.check=counts", "train.device=cpu"]


def answers(model: Predictor, root: Path) -> dict[str, list]:
    return {
        label: model.predict(sorted((root / "val" / label).iterdir())) for label in ("real", "fake")
    }


def raw_tensors(path: Path) -> dict[str, bytes]:
    with safe_open(path, framework="pt") as handle:
        return {k: handle.get_tensor(k).numpy().tobytes() for k in handle.keys()}  # noqa: SIM118


def test_predictions_keep_the_promised_rates(place, tmp_path):
    """Everything that was reported, again from single predictions of the written file."""
    file, root = place
    out = tmp_path / "calibrated.safetensors"
    before = answers(Predictor(load_checkpoint(file)), root)
    found = artifactnet.calibrate(file, data_of(root), false_alarms=0.2, missed=0.15, out=out)
    model = artifactnet.load_model(out, device="cpu")
    after = answers(model, root)
    assert (found.real, found.fake) == (len(after["real"]), len(after["fake"]))
    assert model.model.config.temperature == found.temperature != 1
    assert model.limits == (found.real_below, found.fake_from)
    for label, predictions in after.items():
        for verdict in ("fake", "uncertain", "real"):
            share = sum(p.verdict == verdict for p in predictions) / len(predictions)
            assert found.shares[label][verdict] == share
        for one, other in zip(predictions, before[label], strict=True):
            logit = math.log(other.probability / (1 - other.probability))
            expected = 1 / (1 + math.exp(-logit / found.temperature))
            assert one.probability == pytest.approx(expected, abs=1e-4)
            assert one.is_fake == (one.probability >= found.threshold)
            assert one.to_json()["verdict"] == one.verdict
            if one.verdict != "uncertain":
                assert one.verdict == ("fake" if one.is_fake else "real")
    assert 0 < found.shares["real"]["fake"] <= 0.2
    assert 0 < found.shares["fake"]["real"] <= 0.15
    losses = [
        -np.mean([math.log(p.probability if y == "fake" else 1 - p.probability) for p in some])
        for y, some in after.items()
    ]
    assert found.nll[1] == pytest.approx(np.mean(losses), abs=1e-4)
    assert found.nll[1] < found.nll[0]


def test_everything_else_in_the_file_stays(place, tmp_path):
    file, root = place
    out = tmp_path / "calibrated.safetensors"
    original = file.read_bytes()
    found = artifactnet.calibrate(file, data_of(root), false_alarms=0.2, missed=0.15, out=out)
    assert file.read_bytes() == original
    assert raw_tensors(out) == raw_tensors(file)
    old, new = read_metadata(file), read_metadata(out)
    record = new["extra"].pop("calibration")
    assert new["extra"] == old["extra"] == {"epoch": 7}
    assert record["shares"] == found.shares
    assert str(tmp_path) not in json.dumps(record).replace(str(root), "")
    for key in ("temperature", "fake_from", "real_below", "threshold"):
        assert getattr(new["model"], key) == getattr(found, key)
        setattr(new["model"], key, getattr(old["model"], key))
    assert new == old


def test_calibrating_again_finds_the_same(place, tmp_path):
    """The temperature is that of the logits, not of logits that were divided before."""
    file, root = place
    out = tmp_path / "m.safetensors"
    rates = {"false_alarms": 0.2, "missed": 0.15}
    first = artifactnet.calibrate(file, data_of(root), **rates, out=out)
    second = artifactnet.calibrate(out, data_of(root), **rates)
    assert second.temperature == first.temperature
    assert (second.real_below, second.fake_from) == (first.real_below, first.fake_from)
    assert second.nll == pytest.approx((first.nll[1], first.nll[1]))
    assert second.path == out


def test_the_threshold_moves_between_the_limits(place, tmp_path):
    file, root = place
    model = load_checkpoint(file)
    model.config.threshold = 0.999
    save_checkpoint(model, tmp_path / "high.safetensors")
    found = artifactnet.calibrate(
        tmp_path / "high.safetensors", data_of(root), false_alarms=0.2, missed=0.15
    )
    assert found.threshold == found.fake_from < 0.999


def test_evaluation_counts_the_verdicts(place, tmp_path, capsys):
    """The test images are the validation images here."""
    file, root = place
    out = tmp_path / "m.safetensors"
    found = artifactnet.calibrate(file, data_of(root), false_alarms=0.2, missed=0.15, out=out)
    results = evaluate_file(out, [*data_of(root), f"out={tmp_path}"])
    verdicts = results["verdicts"]
    assert (verdicts["real_below"], verdicts["fake_from"]) == (found.real_below, found.fake_from)
    for label in ("real", "fake"):
        assert verdicts[label] == found.shares[label]
    page = next((tmp_path / "evaluations").glob("*/results.md")).read_text()
    assert "## Three verdicts" in page
    assert f"| real | {found.real} | {found.shares['real']['fake']:.4f} |" in page
    assert "false alarms" in capsys.readouterr().out
    plain = evaluate_file(out, [*data_of(root), f"out={tmp_path}", "model.threshold=0.5"])
    assert plain["verdicts"] is None  # one named threshold makes two verdicts
    assert evaluate_file(file, [*data_of(root), f"out={tmp_path}"])["verdicts"] is None


def test_a_run_is_calibrated_in_place_on_its_own_data(tmp_path, tiny_config, capsys):
    config = tiny_config(tmp_path, "train.epochs=1", "data.demo_val=12")
    folder = train_detector(config).run_dir
    command = ["calibrate", str(folder), "--false-alarms", "0.25", "--missed", "0.25"]
    model = load_checkpoint(folder / "model.safetensors")
    capsys.readouterr()
    if main(command):  # so little training need not tell classes apart
        assert "does not tell them apart" in capsys.readouterr().err
        with torch.no_grad():  # the other way round, it does
            model.head.weight.neg_()
            model.head.bias.neg_()
    save_checkpoint(model, folder / "model.safetensors", {"epoch": 1})
    tensors, others = raw_tensors(folder / "model.safetensors"), sorted(folder.rglob("*"))
    capsys.readouterr()
    assert main(command) == 0
    printed = capsys.readouterr()
    assert "validation images   12 photographs, 12 fakes" in printed.out
    assert f"saved in {folder / 'model.safetensors'}" in printed.out
    assert raw_tensors(folder / "model.safetensors") == tensors
    assert sorted(folder.rglob("*")) == others
    results = artifactnet.evaluate(folder)
    assert not (folder / "evaluations").exists()  # still the run's own results
    assert results["verdicts"]["real"]["images"] == 4


def test_bad_input_is_one_line(place, tmp_path, capsys):
    file, root = place
    original = file.read_bytes()
    cases = [
        ([str(file)], "does not say which images validate it"),
        ([str(file), *data_of(root), "--missed", "0"], "missed must be above 0 and below 1"),
        ([str(file), *data_of(root), "--false-alarms", "nan"], "false_alarms must be"),
        ([str(file), *data_of(root), "--false-alarms", "0.001"], "at least 1000 are needed"),
        ([str(file), *data_of(root), "--out", "x.onnx"], "must end in .safetensors"),
        ([str(tmp_path / "no.safetensors")], "no.safetensors"),
        (["student-nano", *data_of(root)], "a packaged model is not changed"),
        ([str(file), "optim.lr=1"], "optim.lr cannot be changed"),
    ]
    for arguments, words in cases:
        assert main(["calibrate", *arguments]) == 2
        error = capsys.readouterr().err
        assert words in error, arguments
        assert error.count("\n") == 1
    assert file.read_bytes() == original


def test_one_class_is_refused(place, tmp_path):
    file, root = place
    alone = tmp_path / "data/val/real"
    alone.mkdir(parents=True)
    for path in (root / "val/real").iterdir():
        (alone / path.name).write_bytes(path.read_bytes())
    with pytest.raises(ArtifactNetError, match="validation images are all photographs"):
        artifactnet.calibrate(file, data_of(tmp_path / "data"), out=tmp_path / "m.safetensors")
    assert not (tmp_path / "m.safetensors").exists()


def test_broken_weights_name_the_image(place, tmp_path):
    _, root = place
    model = detector()
    with torch.no_grad():
        model.head.bias.fill_(float("nan"))
    save_checkpoint(model, tmp_path / "nan.safetensors")
    with pytest.raises(ArtifactNetError, match=r"\.png: its logit is not finite"):
        artifactnet.calibrate(tmp_path / "nan.safetensors", data_of(root))


def test_overrides_that_do_not_belong_are_refused(place):
    file, root = place
    with pytest.raises(ConfigError, match=r"model\.threshold cannot be changed"):
        artifactnet.calibrate(file, [*data_of(root), "model.threshold=0.4"])
