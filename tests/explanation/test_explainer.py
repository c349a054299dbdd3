"""One call for every method: the same verdict, maps at the image's own size, honest failures."""

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_models import TINY, tiny

import artifactnet
from artifactnet.config import AttentionConfig, HeatmapConfig, SegmentationConfig
from artifactnet.explanation.attention import ATTENTION_METHODS
from artifactnet.explanation.detector import Classifier
from artifactnet.explanation.explainer import CONSTANT, Explained, Explainer, explain
from artifactnet.explanation.methods import METHODS, available, scale_of
from artifactnet.inference.inputs import Failure
from artifactnet.inference.predictor import Predictor
from artifactnet.types import ArtifactNetError

SIZE = (32, 48)
DEEP = {**TINY, "depth": 4}  # enough for a pyramid
SWIN = {"embed_dim": 8, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 2, 2], "window_size": 2}


def picture(height, width, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def vit():
    segmentation = SegmentationConfig(head="upernet", channels=8, auxiliary_channels=8)
    return tiny(size=SIZE, kwargs=DEEP, segmentation=segmentation)


@pytest.fixture(scope="module")
def swin():
    attention = AttentionConfig(method="grad_cam")
    return tiny("swin_tiny_patch4_window7_224", (64, 64), kwargs=SWIN, attention=attention)


def test_every_method_of_a_vit_gives_a_map_at_the_image_size(vit):
    every = [method for method in METHODS if method != "predicted_heatmap"]  # has another head
    explainer = Explainer(vit, every, window=20, stride=10)
    assert explainer.methods == tuple(every)
    (answer,) = explainer.explain_batch([("a", picture(37, 61))])
    assert isinstance(answer, Explained)
    assert (answer.score, answer.rationale, answer.warnings) == (None, None, ())
    for method in every:
        found = answer.explanations[method]
        assert found.heatmap.shape == (37, 61), method
        assert found.heatmap.dtype == np.float32
        assert 0 <= found.heatmap.min() <= found.heatmap.max() <= 1
        assert found.scale == scale_of(method)
        assert found.raw.ndim == 2
        assert np.isfinite(found.raw).all()
        if found.scale == "minmax" and not found.warnings:
            assert found.heatmap.max() > 0.3, method
    assert answer.explanations["relevance"].raw.shape == (2, 3)


def test_a_batch_equals_its_images_one_by_one(vit, swin):
    images = [(str(k), picture(30 + 7 * k, 50, k)) for k in range(3)]
    own = ["grad_cam", *ATTENTION_METHODS, "segmentation", "heatmap", "sliding_patch"]
    for model, methods in ((vit, own), (swin, ["grad_cam"])):
        explainer = Explainer(model, methods, batch_size=3, window=25, stride=25)
        together = explainer.explain_batch(images)
        for image, answer in zip(images, together, strict=True):
            (alone,) = explainer.explain_batch([image])
            assert answer.probability == pytest.approx(alone.probability, abs=1e-6)
            for method in methods:
                one, other = answer.explanations[method], alone.explanations[method]
                np.testing.assert_allclose(one.heatmap, other.heatmap, atol=2e-5, err_msg=method)


def test_verdict_and_own_maps_are_those_of_the_predictor(vit, swin):
    image = picture(40, 40)
    for model, method in ((vit, "segmentation"), (swin, "heatmap")):
        prediction = Predictor(model).predict(image)
        (answer,) = Explainer(model, [method]).explain_batch([("a", image)])
        assert answer.probability == pytest.approx(prediction.probability, abs=1e-7)
        assert answer.is_fake == prediction.is_fake
        heatmap = answer.explanations[method].heatmap
        np.testing.assert_allclose(heatmap, prediction.heatmap, atol=1e-6)


MAPPER = {"head": "mapper", "width": 16, "heads": 2, "tile": 32, "max_tiles": 4}
DECODER = HeatmapConfig(head="decoder", width=16)


@pytest.mark.parametrize(
    ("heatmap", "size"), [(DECODER, SIZE), (HeatmapConfig(**MAPPER, adaptive=True), (64, 64))]
)
def test_a_heatmap_head_says_what_it_says_to_the_predictor(heatmap, size):
    model = tiny(size=size, kwargs=DEEP, heatmap=heatmap)
    assert "heatmap" not in available(Explainer(model).detector)  # no attention map beside it
    shapes = ((30, 120), (120, 30), (64, 64), (31, 120))  # three grids in one batch
    images = [(str(k), picture(*shape, k)) for k, shape in enumerate(shapes)]
    methods = ["predicted_heatmap", "sliding_patch"]
    answers = Explainer(model, methods, batch_size=4, window=200, stride=200).explain_batch(images)
    for (name, pixels), answer in zip(images, answers, strict=True):
        expected = Predictor(model).predict(pixels)
        assert (answer.name, answer.rationale) == (name, None)
        assert answer.probability == pytest.approx(expected.probability, abs=1e-6)
        assert answer.score == pytest.approx(expected.score, abs=1e-6)
        found = answer.explanations["predicted_heatmap"]
        assert found.scale == "probability"
        np.testing.assert_allclose(found.heatmap, expected.heatmap, atol=1e-5)
        window = answer.explanations["sliding_patch"].heatmap  # the whole image is its window
        np.testing.assert_allclose(window, expected.probability, atol=1e-6)
    (alone,) = Explainer(model, ["sliding_patch"], window=200, stride=200).explain_batch(images[:1])
    assert alone.score == pytest.approx(answers[0].score, abs=1e-6)  # whatever is drawn


def test_a_network_that_sees_tiles_has_no_layer_to_map():
    model = tiny(size=(64, 64), kwargs=DEEP, heatmap=HeatmapConfig(**MAPPER, adaptive=False))
    explainer = Explainer(model)
    assert explainer.methods == ("predicted_heatmap",)
    assert available(explainer.detector) == ["sliding_patch", "predicted_heatmap"]
    for method in ("relevance", "grad_cam"):
        with pytest.raises(ArtifactNetError, match=method):
            Explainer(model, [method])
    assert explain(model, picture(40, 50)).method == "predicted_heatmap"


def test_explain_takes_what_predict_takes(vit, tmp_path):
    image = picture(33, 44)
    Image.fromarray(image).save(tmp_path / "a.png")
    one = explain(Predictor(vit), tmp_path / "a.png", "rollout")
    several = explain(vit, [image, Image.fromarray(image), str(tmp_path / "a.png")], "rollout")
    assert len(several) == 3
    for found in several:
        np.testing.assert_array_equal(found.heatmap, one.heatmap)
    assert explain(vit, [], "rollout") == []
    assert artifactnet.explain(vit, image).method == "relevance"
    assert artifactnet.Classifier is Classifier
    assert artifactnet.explain(vit, image).method == "relevance"  # also after the other name


@pytest.mark.parametrize(
    ("methods", "options", "message"),
    [
        (["gradcam"], {}, "'gradcam'"),
        (["relevance"], {}, "relevance.*global attention"),
        (["segmentation"], {}, "segmentation head"),
        (None, {"window": 0}, "window"),
        (None, {"batch_size": 0}, "batch_size"),
        (None, {"window": 10, "stride": 11}, "stride of 11"),
    ],
)
def test_what_cannot_be_is_said_before_any_image(swin, methods, options, message):
    with pytest.raises(ArtifactNetError, match=message):
        Explainer(swin, methods, **options)


def test_images_that_are_too_small_fail_alone_and_large_ones_work(vit):
    images = [("tiny", picture(1, 1)), ("wide", picture(40, 900)), ("good", picture(20, 20))]
    tiny_one, wide, good = Explainer(vit, ["rollout"]).explain_batch(images)
    assert isinstance(tiny_one, Failure)
    assert tiny_one.path == "tiny"
    assert "1x1 pixels is too small" in tiny_one.reason
    assert wide.explanations["rollout"].heatmap.shape == (40, 900)
    assert isinstance(good, Explained)
    with pytest.raises(ArtifactNetError, match="image 0.*1x1"):
        explain(vit, picture(1, 1))


def test_constant_maps_are_announced(vit):
    model = tiny(size=SIZE)
    with torch.no_grad():
        model.head.weight.zero_()  # nothing depends on the image
    for method in ("relevance", "grad_cam"):
        found = explain(model, picture(32, 48), method)
        assert found.warnings == (CONSTANT,)
        assert not found.heatmap.any()
    assert explain(model, picture(32, 48), "rollout").warnings == ()


def test_one_bad_image_spoils_no_other(vit, monkeypatch):
    from artifactnet.explanation import explainer as module

    def flat(images):
        return images.flatten(1).std(dim=1) == 0

    def broken_maps(detector, images, method, layer):
        if flat(images).any():
            raise ArtifactNetError(f"{method}: out of paper")
        return maps(detector, images, method, layer)

    def broken_score(self, images, **options):
        output = forward(self, images, **options)
        if output.score is not None:
            output.score[flat(images)] = float("nan")
        return output

    maps, forward = module.activation_maps, type(vit).forward
    monkeypatch.setattr(module, "activation_maps", broken_maps)
    monkeypatch.setattr(type(vit), "forward", broken_score)
    images = [
        ("a", picture(32, 48)),
        ("b", np.zeros((32, 48, 3), np.uint8)),
        ("c", picture(40, 50)),
    ]
    first, second, _ = Explainer(vit, ["rollout", "grad_cam"]).explain_batch(images)
    assert set(first.explanations) == {"rollout", "grad_cam"}
    assert second == Failure("b", "grad_cam: out of paper")
    model = tiny(size=SIZE, kwargs=DEEP, heatmap=DECODER)
    first, second, third = Explainer(model, ["predicted_heatmap"]).explain_batch(images)
    assert (first.name, third.name) == ("a", "c")
    assert second == Failure("b", "the model's answer is not a number (NaN)")


def test_half_precision_gives_the_maps_of_its_float32_copy():
    model = tiny(size=SIZE).half()
    expected = explain(tiny(size=SIZE).half().float(), picture(32, 48), "relevance")
    found = explain(model, picture(32, 48), "relevance")
    np.testing.assert_array_equal(found.heatmap, expected.heatmap)
    assert next(model.parameters()).dtype == torch.float16
