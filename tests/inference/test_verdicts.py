"""Three verdicts of a calibrated detector: in Python, in files, on a terminal and explained."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_models import tiny

from artifactnet.cli import main
from artifactnet.explanation.explainer import Explainer
from artifactnet.inference.folder import predict_to_folder
from artifactnet.inference.predictor import Predictor
from artifactnet.models.checkpoint import save_checkpoint
from artifactnet.types import Prediction, is_uncertain

PICTURES = [np.full((32, 48, 3), 28 * k, np.uint8) for k in range(9)]


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    """Of nine images it calls three fake, three real, and is uncertain about three."""
    model = tiny()
    with torch.no_grad():
        model.head.weight.mul_(20)
    chances = sorted(one.probability for one in Predictor(model).predict(PICTURES))
    model.config.real_below = (chances[2] + chances[3]) / 2
    model.config.threshold = chances[4]
    model.config.fake_from = (chances[5] + chances[6]) / 2
    return Predictor(model)


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for k, pixels in enumerate(PICTURES):
        Image.fromarray(pixels).save(folder / f"{k}.png")
    return folder


@pytest.mark.parametrize(
    ("probability", "expected"),
    [(0.2, "real"), (0.3, "uncertain"), (0.5, "uncertain"), (0.7, "fake"), (1.0, "fake")],
)
def test_each_limit_belongs_to_the_verdict_above(probability, expected):
    limits = (0.3, 0.7)
    found = Prediction(probability, probability >= 0.5, uncertain=is_uncertain(probability, limits))
    assert found.verdict == expected
    # without limits a verdict is is_fake in a word
    plain = Prediction(probability, probability >= 0.5, uncertain=is_uncertain(probability, None))
    assert plain.verdict == ("fake" if plain.is_fake else "real")


def by_hand(predictor: Predictor, probability: float) -> str:
    low, high = predictor.limits
    return "fake" if probability >= high else "real" if probability < low else "uncertain"


def test_predictions_and_explanations_agree(predictor):
    predictions = predictor.predict(PICTURES)
    verdicts = [one.verdict for one in predictions]
    assert sorted(verdicts) == ["fake"] * 3 + ["real"] * 3 + ["uncertain"] * 3
    assert verdicts == [by_hand(predictor, one.probability) for one in predictions]
    named = [(str(k), pixels) for k, pixels in enumerate(PICTURES)]
    explained = Explainer(predictor, ["heatmap"]).explain_batch(named)
    assert [one.verdict for one in explained] == verdicts


def test_lines_and_counts(predictor, photos, tmp_path):
    summary = predict_to_folder(predictor, [photos], tmp_path / "out")
    lines = [json.loads(line) for line in (tmp_path / "out/predictions.jsonl").open()]
    assert all(line["verdict"] == by_hand(predictor, line["probability"]) for line in lines)
    assert (summary.images, summary.fakes, summary.uncertain) == (9, 3, 3)
    again = predict_to_folder(predictor, [photos], tmp_path / "out", resume=True)
    assert (again.resumed, again.fakes, again.uncertain) == (9, 3, 3)


def test_the_terminal_counts_all_three(predictor, photos, tmp_path, capsys):
    file = tmp_path / "m.safetensors"
    save_checkpoint(predictor.model, file)
    folder = tmp_path / "out"
    command = [str(photos), "--device", "cpu", "--out", str(folder)]
    assert main(["predict", *command, "--model", str(file)]) == 0
    printed = capsys.readouterr().out
    assert "9 of 9 images predicted, 3 called fake, 3 uncertain, 3 called real" in printed
    assert sum(line.split()[1] == "uncertain" for line in printed.splitlines()[:9]) == 3
    assert main(["explain", str(file), *command, "--methods", "heatmap"]) == 0
    assert sum(" uncertain " in line for line in capsys.readouterr().out.splitlines()) == 3
    lines = [json.loads(line) for line in (folder / "explanations.jsonl").open()]
    assert sum(line["verdict"] == "uncertain" for line in lines) == 3


def test_a_verdict_that_becomes_uncertain_is_unstable(predictor):
    """Limits so close to the image's own probability that every re-encoding leaves them."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    chances = predictor.predict([pixels], stability=True)[0].stability.probabilities
    own, others = chances["as is"], [p for name, p in chances.items() if name != "as is"]
    model = tiny()
    model.load_state_dict(predictor.model.state_dict())
    gap = min(abs(own - other) for other in others) / 2
    assert gap > 0
    model.config.real_below, model.config.fake_from = own - gap, own + gap
    model.config.threshold = own
    (found,) = Predictor(model).predict([pixels], stability=True)
    assert found.verdict == "uncertain"
    assert found.stability.unstable
    (text,) = [text for text in found.warnings if text.startswith("unstable")]
    assert "uncertain" in text
