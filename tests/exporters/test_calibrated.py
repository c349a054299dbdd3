"""An exported file of a calibrated detector gives its probabilities and verdicts."""

import numpy as np
import pytest
from tiny_exports import pictures, student

from artifactnet.exporters.export import export_model
from artifactnet.inference.load import load_model
from artifactnet.inference.predictor import Predictor
from artifactnet.models.checkpoint import save_checkpoint


@pytest.mark.slow
@pytest.mark.parametrize("name", ["m.onnx", "m.pt2"])
def test_temperature_and_limits_are_exported(name, tmp_path):
    model = student()
    images = [np.asarray(image[:64, :64]) for image in pictures(12, least=64)]
    chances = sorted(one.probability for one in Predictor(model).predict(images))
    model.config.temperature = 2.5
    calm = sorted(one.probability for one in Predictor(model).predict(images))
    logits = np.log(np.array([chances, calm]) / (1 - np.array([chances, calm])))
    np.testing.assert_allclose(logits[1], logits[0] / 2.5, atol=1e-4)
    model.config.real_below = (calm[3] + calm[4]) / 2
    model.config.threshold = (calm[5] + calm[6]) / 2
    model.config.fake_from = (calm[7] + calm[8]) / 2
    save_checkpoint(model, tmp_path / "m.safetensors")
    export_model(tmp_path / "m.safetensors", tmp_path / name)
    exported = load_model(tmp_path / name)
    assert exported.limits == (model.config.real_below, model.config.fake_from)
    expected, found = Predictor(model).predict(images), exported.predict(images)
    gap = min(
        abs(p - limit)
        for p in calm
        for limit in (model.config.real_below, model.config.threshold, model.config.fake_from)
    )
    for ours, theirs in zip(expected, found, strict=True):
        assert theirs.probability == pytest.approx(ours.probability, abs=min(gap, 1e-3) / 2)
        assert (theirs.verdict, theirs.is_fake) == (ours.verdict, ours.is_fake)
    assert {one.verdict for one in found} == {"fake", "uncertain", "real"}
