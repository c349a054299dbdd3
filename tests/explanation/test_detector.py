"""How third-party classifiers and our own models become detectors."""

import copy

import numpy as np
import pytest
import timm
import torch
from canned_predictor import CannedPredictor
from tiny_detectors import SIZE, SmallCnn, pictures, small_cnn, timm_net
from tiny_models import tiny
from torch import nn

from artifactnet.explanation.detector import Classifier, OwnDetector, as_detector, reference_weight
from artifactnet.inference.backends.exported import ExportedModel
from artifactnet.inference.predictor import Predictor
from artifactnet.types import ArtifactNetError


class Answers(nn.Module):
    """Returns what it was made with."""

    def __init__(self, answer):
        super().__init__()
        self.answer = answer
        self.fc = nn.Linear(1, 1)

    def forward(self, images):
        return self.answer


def answering(answer, **options):
    return Classifier(Answers(answer), (8, 8), **options)


@pytest.mark.parametrize("fake_class", [0, 1])
def test_two_classes_give_the_logit_of_their_softmax(fake_class):
    two = torch.randn(5, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    logits = answering(two, fake_class=fake_class).logits(torch.zeros(5, 3, 8, 8))
    assert logits.shape == (5,)
    for logit, (real, fake) in zip(logits, two.tolist(), strict=True):
        chances = np.exp([real, fake]) / np.exp([real, fake]).sum()
        assert float(logit.sigmoid()) == pytest.approx(chances[fake_class], abs=1e-12)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ((torch.zeros(2, 2), torch.zeros(2, 4)), "tuple"),
        ({"logits": torch.zeros(2)}, "dict"),
        (torch.zeros(3, 2), r"\(3, 2\)"),
        (torch.tensor(2.0), r"\(\)"),
        (torch.zeros(2, 1000), r"\(1000,\)"),
        (torch.zeros(2, 1, 4, 4), r"\(1, 4, 4\)"),
    ],
)
def test_other_answers_are_errors(answer, words):
    with pytest.raises(ArtifactNetError, match=f"Answers.*{words}"):
        answering(answer).logits(torch.zeros(2, 3, 8, 8))


@pytest.mark.parametrize("shape", [(4,), (4, 1), ()])
def test_one_logit_is_taken_as_it_is(shape):
    one = torch.arange(4.0).reshape(shape) if shape else torch.tensor(0.0)  # a net that squeezes
    logits = answering(one).logits(torch.zeros(len(one.reshape(-1)), 3, 8, 8))
    assert logits.tolist() == [0, 1, 2, 3][: len(logits)]


def test_timm_says_how_a_model_wants_its_images():
    net = timm.create_model("vit_tiny_patch16_224.augreg_in21k", num_classes=2)
    detector = Classifier(net)
    assert detector.preprocess.size == (224, 224)
    white, _ = detector.preprocess.image(np.full((9, 9, 3), 255, np.uint8))
    assert white.mean() == pytest.approx(1)  # mean and std of 0.5, not ImageNet's
    other = Classifier(net, mean=np.array([0, 0, 0]), std=(0.25, 0.25, 0.25))
    assert other.preprocess.image(np.full((9, 9, 3), 255, np.uint8))[0].mean() == pytest.approx(4)
    # the size that a model was built for comes before the published one
    assert Classifier(timm_net("vit")).preprocess.size == SIZE
    assert Classifier(timm_net("resnet")).preprocess.size == (176, 176)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"image_size": None}, "image_size="),
        ({"image_size": 224}, "224"),
        ({"image_size": (0, 8)}, r"\(0, 8\)"),
        ({"image_size": (8.5, 8)}, r"\(8.5, 8\)"),
        ({"fake_class": 2}, "fake_class is 2"),
        ({"threshold": 1.5}, "threshold.*1.5"),
        ({"threshold": float("nan")}, "threshold.*nan"),
        ({"target_layer": "layer9"}, "SmallCnn.*'layer9'"),
        ({"resize": "squash"}, "'squash'"),
        ({"mean": (0.5,)}, "means"),
    ],
)
def test_settings_that_cannot_be_used_are_named(options, words):
    with pytest.raises(ArtifactNetError, match=words):
        Classifier(SmallCnn(), **{"image_size": (8, 8), **options})


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_copied_not_changed(dtype):
    net = SmallCnn().to(dtype)
    detector = Classifier(net, (16, 16))
    assert detector.net is not net
    assert {weight.dtype for weight in net.parameters()} == {dtype}
    assert detector.logits(pictures((16, 16))).dtype == torch.float32
    model = tiny().to(dtype)
    own = OwnDetector(model)
    assert own.net is own.model.backbone.net
    assert own.logits(pictures((32, 48))).dtype == torch.float32
    assert {weight.dtype for weight in model.parameters()} == {dtype}


def test_a_copy_of_a_detector_runs_its_own_copy_of_the_model():
    for detector in (small_cnn(), OwnDetector(tiny())):
        other = copy.deepcopy(detector)
        assert other.net in set(other.module.modules())
        images = pictures(detector.preprocess.size)
        before = detector.logits(images)
        with torch.no_grad():
            for weight in other.net.parameters():
                weight.add_(1)
        assert torch.equal(detector.logits(images), before)
        assert not torch.allclose(other.logits(images), before)


def test_own_models_keep_their_preprocessing_threshold_and_notices():
    model = tiny(threshold=0.3, resize="pad")
    model.notices = ("weights are random",)
    for given in (model, Predictor(model)):
        detector = as_detector(given)
        assert detector.threshold == 0.3
        assert detector.warnings == ("weights are random",)
        assert (detector.preprocess.size, detector.preprocess.resize) == ((32, 48), "pad")
        assert detector.preprocess.min_side == 16
        images = pictures((32, 48))
        assert torch.equal(detector.logits(images), model(images).logit)


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (SmallCnn(), r"wrap SmallCnn first: Classifier\(net"),
        ("runs/best", "str"),
        (None, "NoneType"),
        (ExportedModel.__new__(ExportedModel), "ExportedModel"),
        (CannedPredictor(), "CannedPredictor"),
    ],
)
def test_what_is_no_detector_is_named(model, words):
    with pytest.raises(ArtifactNetError, match=words):
        as_detector(model)


def test_weights_decide_the_precision_of_images():
    assert reference_weight(small_cnn()).dtype == torch.float32
    assert reference_weight(Classifier(SmallCnn().double(), (8, 8))).dtype == torch.float64
    with pytest.raises(ArtifactNetError, match="Identity"):
        reference_weight(Classifier(nn.Identity(), (8, 8)))
