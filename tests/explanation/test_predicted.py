"""Answers of any predictor in the form of an explainer: what is kept, and what is refused."""

from dataclasses import replace

import numpy as np
import pytest
from canned_predictor import RATIONALE, CannedPredictor, canned_pixels

from artifactnet.explanation.explainer import CONSTANT, Explained
from artifactnet.explanation.predicted import PredictionExplainer
from artifactnet.inference.inputs import Failure
from artifactnet.types import ArtifactNetError


class Changed(CannedPredictor):
    """Says the same, but for some fields."""

    def __init__(self, **changes):
        super().__init__()
        self.changes = changes

    def _answer(self, source, heatmaps):
        return replace(super()._answer(source, heatmaps), **self.changes)


def test_an_answer_is_kept_as_it_is():
    predictor = CannedPredictor(RATIONALE, None)
    images = [("a", canned_pixels(0.2)), ("b", canned_pixels(0.8, (1, 7)))]
    first, second = PredictionExplainer(predictor, batch_size=5).explain_batch(images)
    assert predictor.calls == [(5, 0, True)]
    assert isinstance(first, Explained)
    assert (first.name, second.name) == ("a", "b")
    assert first.pixels is images[0][1]
    assert first.probability == pytest.approx(0.8)
    assert (first.is_fake, second.is_fake) == (True, False)
    assert first.score == pytest.approx(0.2)
    assert (first.rationale, second.rationale) == (RATIONALE, None)
    assert first.warnings == ("the text was cut off",)  # without that of the model itself
    assert second.warnings == ()
    (method,) = PredictionExplainer.methods
    found = first.explanations[method]
    assert (found.method, found.scale, found.warnings) == (method, "probability", ())
    np.testing.assert_array_equal(found.heatmap, images[0][1][..., 1].astype(np.float32) / 255)
    assert second.explanations[method].heatmap.shape == (1, 7)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"heatmap": None}, "predicts no heatmap"),
        ({"heatmap": np.full((24, 36), np.nan, np.float32)}, "not a number"),
        ({"score": float("nan")}, "not a number"),
        ({"probability": float("inf")}, "not a number"),
    ],
)
def test_what_cannot_be_shown_is_a_failure(changes, reason):
    explainer = PredictionExplainer(Changed(**changes))
    (answer,) = explainer.explain_batch([("a.png", canned_pixels(0.5))])
    assert isinstance(answer, Failure)
    assert answer.path == "a.png"
    assert reason in answer.reason


def test_other_heatmaps_and_methods():
    constant = Changed(heatmap=np.zeros((24, 36), np.float32))
    (answer,) = PredictionExplainer(constant).explain_batch([("a", canned_pixels(0.5))])
    assert answer.explanations["predicted_heatmap"].warnings == (CONSTANT,)
    turned = Changed(heatmap=np.zeros((36, 24), np.float32))  # a bug, not a failure
    with pytest.raises(ValueError, match=r"\(36, 24\)"):
        PredictionExplainer(turned).explain_batch([("a", canned_pixels(0.5))])
    for methods in (None, ["all"], ["predicted_heatmap"]):
        assert PredictionExplainer(CannedPredictor(), methods).methods == ("predicted_heatmap",)
    for method, words in (("magic", "magic"), ("grad_cam", "grad_cam.*predicted_heatmap")):
        with pytest.raises(ArtifactNetError, match=words):
            PredictionExplainer(CannedPredictor(), [method])
