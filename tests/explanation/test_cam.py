"""Activation maps against the grad-cam package used by hand, and what it does not guard."""

import gc
import weakref
from contextlib import nullcontext

import numpy as np
import pytest
import pytorch_grad_cam
import torch
from pytorch_grad_cam.utils.image import scale_cam_image
from tiny_detectors import SIZE, SmallCnn, pictures, small_cnn, state_of, timm_net
from tiny_models import tiny
from torch import nn

from artifactnet.config import AttentionConfig, SegmentationConfig
from artifactnet.explanation.cam import CAM_METHODS, activation_maps
from artifactnet.explanation.detector import Classifier, OwnDetector
from artifactnet.types import ArtifactNetError

PACKAGE_CLASSES = (
    *("GradCAM", "GradCAM", "GradCAMPlusPlus", "HiResCAM", "XGradCAM", "LayerCAM"),
    *("EigenCAM", "EigenGradCAM", "ScoreCAM"),
)
PACKAGE = dict(zip(CAM_METHODS, PACKAGE_CLASSES, strict=True))


def autocast():
    return torch.autocast("cpu", torch.bfloat16)


def channels_first(output):
    return output.permute(0, 3, 1, 2).contiguous()


def vit_grid(output):
    """The grid of 96 x 160 pixels in patches of 16, without the class token."""
    patches = output[:, 1:].reshape(len(output), 6, 10, -1)
    return channels_first(patches)


BY_HAND = {
    "resnet": ("layer4", None),
    "convnext": ("stages", None),
    "swin": ("norm", channels_first),
    "vit": ("blocks.2.norm1", vit_grid),
}


def by_hand(net, layer, reshape, images, method):
    """The package alone, of the difference between two classes."""
    cam = getattr(pytorch_grad_cam, PACKAGE[method])(
        model=net, target_layers=[net.get_submodule(layer)], reshape_transform=reshape
    )
    targets = [lambda output: output[1] - output[0]] * len(images)
    found = cam(images.clone(), targets, aug_smooth=method == "grad_cam_smooth")
    cam.activations_and_grads.release()
    return found


@pytest.mark.parametrize("method", PACKAGE)
@pytest.mark.parametrize("kind", BY_HAND)
def test_maps_equal_the_package_used_by_hand(kind, method):
    net, images = timm_net(kind), pictures(SIZE)
    found = activation_maps(Classifier(net, SIZE), images, method)
    expected = by_hand(net, *BY_HAND[kind], images, method)
    assert found.shape == (3, *SIZE)
    assert found.dtype == np.float32
    assert expected.max(axis=(1, 2)).min() > 0.5  # zeros would equal zeros
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("method", PACKAGE)
def test_a_batch_equals_its_images_one_by_one(method):
    detector, images = small_cnn(), pictures((16, 24), 4)
    found = activation_maps(detector, images, method)
    one_by_one = [activation_maps(detector, image[None], method)[0] for image in images]
    np.testing.assert_allclose(found, one_by_one, rtol=0, atol=1e-5)
    assert (found.min(), found.max() <= 1) == (0, True)
    assert len({each.tobytes() for each in found}) == 4  # no image got the map of another
    np.testing.assert_allclose(
        found, by_hand(detector.net, "conv2", None, images, method), rtol=0, atol=1e-5
    )


@pytest.mark.parametrize("evidence", [False, True])
@pytest.mark.parametrize(
    ("backbone", "kwargs"),
    [
        (
            "swin_tiny_patch4_window7_224",
            {"embed_dim": 8, "depths": (1, 1, 1, 1), "num_heads": (1, 1, 2, 2)},
        ),
        ("convnext_atto", {"depths": (1, 1, 1, 1), "dims": (8, 16, 24, 32)}),
    ],
)
def test_grad_cam_shows_the_map_that_an_artifactnet_trains_on(backbone, kwargs, evidence):
    head = SegmentationConfig("upernet", 8, 8, evidence=evidence)
    model = tiny(
        backbone,
        size=(64, 128),
        kwargs=kwargs,
        attention=AttentionConfig(method="grad_cam"),
        segmentation=head,
    )
    with torch.no_grad():  # a head that weighs channels by hundredths makes tiny maps
        model.head.weight.normal_(generator=torch.Generator().manual_seed(5))
    images = pictures((64, 128))
    raw = model(images, attention=True).attention.detach().numpy()
    assert raw.max() > 0
    # the package's own way to scale: per image, to the image's (width, height), and once more
    expected = scale_cam_image(scale_cam_image(raw, (128, 64)))
    found = activation_maps(OwnDetector(model), images, "grad_cam")
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def busy(detector):
    """A detector in the middle of training: flags, frozen weights, gradients and a hook."""
    detector.module.train()
    detector.net.conv1.eval()
    detector.net.conv1.weight.requires_grad_(False)
    detector.net.fc.weight.grad = torch.ones_like(detector.net.fc.weight)
    detector.net.conv2.register_forward_hook(lambda *_: None)
    return detector


@pytest.mark.parametrize("method", PACKAGE)
def test_the_model_is_left_as_found(method):
    detector = busy(small_cnn())
    before = state_of(detector.module)
    images = pictures((16, 24)).requires_grad_()
    activation_maps(detector, images, method)
    assert state_of(detector.module) == before
    assert (detector.net.fc.weight.grad == 1).all()
    assert images.grad is None


def test_errors_come_through_and_the_model_is_left_as_found():
    class Failing(SmallCnn):
        passes = 0

        def forward(self, images):
            self.passes += 1
            found = super().forward(images)
            if self.passes == 2:  # the first pass looks for the layer
                raise IndexError("a bug in the net")
            return found

    detector = busy(Classifier(Failing(), (16, 24)))
    before = state_of(detector.module)
    with pytest.raises(IndexError, match="a bug"):
        activation_maps(detector, pictures((16, 24)), "grad_cam")
    assert state_of(detector.module)[:4] == before[:4]


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode, nullcontext, autocast])
@pytest.mark.parametrize("method", ["grad_cam_smooth", "score_cam"])
def test_any_mode_of_the_caller_and_frozen_weights(context, method):
    detector = small_cnn()
    expected = activation_maps(detector, pictures((16, 24)), method)
    detector.module.requires_grad_(False)
    with context():
        images = pictures((16, 24))
        found = activation_maps(detector, images, method)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_model_in_half_precision_is_explained_in_full(dtype):
    half, images = timm_net("convnext").to(dtype), pictures(SIZE)
    found = activation_maps(Classifier(half, SIZE), images, "grad_cam")
    assert {weight.dtype for weight in half.parameters()} == {dtype}
    assert found.max() > 0.9
    same = activation_maps(Classifier(half.float(), SIZE), images, "grad_cam")
    np.testing.assert_allclose(found, same, rtol=0, atol=1e-5)


@pytest.mark.parametrize("method", ["grad_cam", "score_cam"])
def test_memory_stays_flat(method):
    detector, images = small_cnn(), pictures((16, 24))
    alive = []
    detector.net.conv2.register_forward_hook(lambda *call: alive.append(weakref.ref(call[2])))

    def tensors():
        gc.collect()
        return sum(type(thing) is torch.Tensor for thing in gc.get_objects())

    activation_maps(detector, images, method)
    count = tensors()
    for _ in range(50):
        activation_maps(detector, images, method)
        # gone at once, not when the garbage collector comes round
        assert not any(reference() is not None for reference in alive)
        alive.clear()
    assert tensors() <= count
    assert len(detector.net.conv2._forward_hooks) == 1


def test_score_cam_is_silent_and_passes_few_masks_at_a_time(capfd):
    net, sizes = timm_net("resnet"), []  # 32 channels
    detector = Classifier(net, SIZE)
    net.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    activation_maps(detector, pictures(SIZE, 2), "score_cam")
    assert capfd.readouterr() == ("", "")
    assert sum(sizes) == 1 + 2 + 2 * 32  # the search for the layer, the images, their masks
    assert max(sizes) <= 16


@pytest.mark.parametrize("method", PACKAGE)
def test_rounding_is_not_turned_into_a_picture(method):
    detector = small_cnn(seed=1)  # whose maps are not below zero all over

    def nearly_constant(module, _, output):
        noise = torch.rand(output.shape, generator=torch.Generator().manual_seed(0))
        channels = torch.arange(1, 9, dtype=output.dtype)[:, None, None]
        return output * 0 + channels * (1 + 1e-7 * noise)

    detector.net.conv2.register_forward_hook(nearly_constant)
    assert (activation_maps(detector, pictures((16, 24)), method) == 0).all()


@pytest.mark.parametrize("method", PACKAGE)
@pytest.mark.parametrize("weight", ["conv1", "conv2", "fc"])
def test_weights_that_are_not_numbers_are_an_error(method, weight):
    detector = small_cnn()
    with torch.no_grad():
        detector.net.get_submodule(weight).weight.view(-1)[0] = float("nan")
    with pytest.raises(ArtifactNetError, match="not a number"):
        activation_maps(detector, pictures((16, 24)), method)


@pytest.mark.parametrize("method", ["xgrad_cam", "eigen_cam"])
def test_an_activation_changed_in_place_is_explained_as_the_layer_made_it(method):
    plain, inplace = (
        activation_maps(small_cnn(inplace=change), pictures((16, 24)), method)
        for change in (False, True)
    )
    np.testing.assert_array_equal(inplace, plain)


@pytest.mark.parametrize(
    ("method", "shape", "words"),
    [
        ("grad_camera", (1, 3, 16, 24), "grad_camera"),
        ("grad_cam", (1, 3, 24, 16), r"\(B, 3, 16, 24\).*\(1, 3, 24, 16\)"),
        ("grad_cam", (3, 16, 24), r"\(3, 16, 24\)"),
    ],
)
def test_bad_input_is_named(method, shape, words):
    with pytest.raises(ArtifactNetError, match=words):
        activation_maps(small_cnn(), torch.zeros(shape), method)


class Odd(SmallCnn):
    """One layer runs twice, and one whose output the logit does not depend on."""

    def __init__(self):
        super().__init__()
        self.aside, self.never = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1)

    def forward(self, images):
        found = super().forward(images)
        self.aside(images)
        self.conv2(self.conv1(images))
        return found


class Root(SmallCnn):
    def forward(self, images):
        found = super().forward(images)
        return (found - found.detach()).sqrt()  # 0, of infinite slope


class Cut(SmallCnn):
    forward = torch.no_grad()(SmallCnn.forward)


@pytest.mark.parametrize(
    ("net", "layer", "words"),
    [
        (Odd, "conv1", "'conv1' of Odd.* 2 "),
        (Odd, "never", "'never' of Odd.* 0 "),
        (Odd, "fc", r"'fc' of Odd.*\(3, 2\)"),
        (Odd, "aside", "'aside' of Odd"),
        (Root, None, "'conv2' of Root"),
        (Cut, None, "Cut.*gradient"),
    ],
)
def test_a_net_that_cannot_be_explained_is_named(net, layer, words):
    detector = Classifier(net().eval(), (16, 24), target_layer=layer)
    with pytest.raises(ArtifactNetError, match=words):
        activation_maps(detector, pictures((16, 24)), "grad_cam")
    if net is Cut:
        assert activation_maps(detector, pictures((16, 24)), "score_cam").max() > 0.9


def test_a_detector_that_cannot_be_asked_is_named():
    with torch.inference_mode():
        detector = small_cnn()
    with pytest.raises(ArtifactNetError, match="SmallCnn.*inference_mode"):
        activation_maps(detector, pictures((16, 24)), "grad_cam")
    detector = small_cnn()
    detector.logits = lambda images: detector.net(images)[:1, 0]
    with pytest.raises(ArtifactNetError, match=r"\(1,\).*3"):
        activation_maps(detector, pictures((16, 24)), "grad_cam")
