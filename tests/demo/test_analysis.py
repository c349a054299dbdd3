"""One image through one model: prediction, heatmap by each method, warnings."""

import numpy as np
import pytest
from canned_predictor import NOTICE, CannedPredictor, canned_pixels
from tiny_models import tiny

from artifactnet import explain
from artifactnet.config import AttentionConfig, HeatmapConfig
from artifactnet.demo.analysis import Analyst
from artifactnet.demo.upload import Upload
from artifactnet.explanation.explainer import CONSTANT
from artifactnet.inference.predictor import Predictor
from artifactnet.types import ArtifactNetError


@pytest.fixture
def image(noise):
    return Upload("photo.jpg", noise(40, 60))


def test_a_vit_shows_its_own_map_first_and_offers_attention_and_grad_cam(image):
    predictor = Predictor(tiny())
    analyst = Analyst(predictor)
    assert analyst.methods == ("heatmap", "rollout", "relevance", "grad_cam")
    first = analyst.analyse(image)
    assert first.method == "heatmap"
    expected = predictor.predict(image.pixels)
    assert first.prediction.probability == pytest.approx(expected.probability, abs=1e-6)
    np.testing.assert_allclose(first.heatmap, expected.heatmap, atol=1e-6)


@pytest.mark.parametrize("method", ["rollout", "relevance", "grad_cam"])
def test_other_methods_are_those_of_explain(image, method):
    predictor = Predictor(tiny())
    analysis = Analyst(predictor).analyse(image, method)
    expected = explain(predictor, image.pixels, method)
    np.testing.assert_allclose(analysis.heatmap, expected.heatmap, atol=1e-5)
    assert analysis.method == method
    assert set(expected.warnings) <= set(analysis.warnings)


def test_a_convolutional_network_has_no_rollout(image):
    net = tiny("resnet10t", (64, 64), kwargs={}, attention=AttentionConfig(method="grad_cam"))
    analyst = Analyst(Predictor(net))
    assert analyst.methods == ("heatmap", "grad_cam")
    with pytest.raises(ArtifactNetError, match="no heatmap by rollout"):
        analyst.analyse(image, "rollout")


def test_a_heatmap_head_comes_first(image):
    net = tiny("resnet10t", (64, 64), kwargs={}, heatmap=HeatmapConfig(head="light"))
    analysis = Analyst(Predictor(net)).analyse(image)
    assert analysis.method == "predicted_heatmap"
    assert analysis.heatmap.shape == (40, 60)


def test_a_segmentation_head_comes_first(segmenter, image):
    analyst = Analyst(Predictor(segmenter()))
    analysis = analyst.analyse(image)
    assert analysis.method == "segmentation"
    assert analysis.prediction.mask.shape == (40, 60)


def test_a_model_that_only_predicts_has_one_method():
    analyst = Analyst(CannedPredictor())
    assert analyst.methods == ("predicted_heatmap",)
    analysis = analyst.analyse(Upload("x", canned_pixels(0.1)))
    np.testing.assert_allclose(analysis.heatmap, canned_pixels(0.1)[..., 1] / 255, atol=1e-6)
    assert analysis.warnings == (NOTICE, "the text was cut off")
    assert analysis.prediction.explanation is not None


def test_a_model_without_maps_has_no_method():
    class Blind(CannedPredictor):
        has_heatmap = False

        def _answer(self, image, heatmaps):
            return super()._answer(image, False)

    analyst = Analyst(Blind())
    assert analyst.methods == ()
    analysis = analyst.analyse(Upload("x", canned_pixels(0.5)))
    assert analysis.method is None
    assert analysis.heatmap is None


def test_a_constant_map_is_announced():
    pixels = np.full((20, 30, 3), 128, np.uint8)
    assert CONSTANT in Analyst(CannedPredictor()).analyse(Upload("x", pixels)).warnings


def test_an_image_that_the_model_cannot_use_is_named():
    with pytest.raises(ArtifactNetError, match=r"^dot\.png: "):
        Analyst(Predictor(tiny(size=(32, 48)))).analyse(
            Upload("dot.png", np.zeros((1, 4000, 3), np.uint8))
        )
