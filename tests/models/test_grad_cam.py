"""Grad-CAM against the grad-cam package, and its gradient against finite differences."""

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from torch import nn

from artifactnet.models.grad_cam import grad_cam

SIZE = (128, 128)
SWIN = {"img_size": 128, "embed_dim": 16, "depths": (1, 1, 2, 1), "num_heads": (1, 2, 2, 4)}
NETS = {
    "swin": ("swin_tiny_patch4_window7_224", {**SWIN, "window_size": 4}),
    "convnext": ("convnext_atto", {"depths": (1, 1, 1, 1), "dims": (8, 16, 24, 32)}),
    "resnet": ("resnet10t", {}),
}


def channels_first(tensor):
    return tensor.permute(0, 3, 1, 2)


class Detector(nn.Module):
    """A timm backbone, global average pooling and one linear logit."""

    def __init__(self, kind):
        super().__init__()
        torch.manual_seed(3)
        name, options = NETS[kind]
        self.net = timm.create_model(name, pretrained=False, num_classes=0, **options)
        self.head = nn.Linear(self.net.num_features, 1)
        self.channels_last = kind == "swin"
        # the layer whose output is pooled
        self.layer = {"swin": "norm", "convnext": "stages", "resnet": "layer4"}[kind]

    def features(self, images):
        features = self.net.forward_features(images)
        return channels_first(features) if self.channels_last else features

    def classify(self, features):
        return self.head(features.mean(dim=(2, 3)))

    def forward(self, images):
        return self.classify(self.features(images))


def images(batch=3):
    return torch.randn(batch, 3, *SIZE, generator=torch.Generator().manual_seed(0))


def balance(model, batch):
    """Turn the head away from the mean feature, so that a map has both signs in every image."""
    with torch.no_grad():
        mean = model.features(batch).mean(dim=(0, 2, 3))
        weight = model.head.weight
        weight -= (weight @ mean) / (mean @ mean) * mean


def our_map(model, batch):
    features = model.features(batch)
    return grad_cam(model.classify(features)[:, 0], features, create_graph=False).numpy()


@pytest.mark.slow  # importing the package alone takes seconds
@pytest.mark.parametrize("kind", list(NETS))
def test_equals_the_grad_cam_package(kind):
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    model, batch = Detector(kind).eval(), images()
    balance(model, batch)
    ours = our_map(model, batch)
    assert ours.shape == (3, 4, 4)
    marked = (ours > 0).mean(axis=(1, 2))
    assert ((marked > 0) & (marked < 1)).all()  # an all-zero map would equal any other
    layer = getattr(model.net, model.layer)
    package = GradCAM(model, [layer], channels_first if model.channels_last else None)
    targets = [ClassifierOutputTarget(0)] * len(batch)
    package(input_tensor=batch, targets=targets)  # records activations and gradients
    taps = package.activations_and_grads
    raw = package.get_cam_image(
        batch, layer, targets, taps.activations[0].numpy(), taps.gradients[0].numpy()
    )
    np.testing.assert_allclose(ours, np.maximum(raw, 0), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("kind", list(NETS))
def test_a_map_does_not_depend_on_the_rest_of_the_batch(kind):
    model, batch = Detector(kind).eval(), images()
    balance(model, batch)
    together = our_map(model, batch)
    for index in range(3):
        alone = our_map(model, batch[index : index + 1])
        np.testing.assert_allclose(alone[0], together[index], rtol=1e-4, atol=1e-6)


def test_values_by_hand():
    """Logit 2 a - 3 b of the channels' means: weights 2/4 and -3/4 of the pixels."""
    features = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]], [[0.0, 1.0], [5.0, 0.0]]]])
    features.requires_grad_()
    means = features.mean(dim=(2, 3))
    found = grad_cam(2 * means[:, 0] - 3 * means[:, 1], features, create_graph=False)
    expected = [[[0.5, 1.0 - 0.75], [0.0, 2.0]]]  # 1.5 - 3.75 is negative
    torch.testing.assert_close(found, torch.tensor(expected))


def tiny_map(picture, kernel, hidden, head, create_graph):
    """A smooth net whose channel weights depend on the features: second order shows."""
    features = torch.tanh(F.conv2d(picture, kernel, padding=1))
    logit = torch.tanh(features.mean(dim=(2, 3)) @ hidden) @ head
    return grad_cam(logit, features, create_graph)


def tiny_inputs():
    generator = torch.Generator().manual_seed(4)
    shapes = [(2, 1, 3, 4), (4, 1, 3, 3), (4, 5), (5,)]
    return tuple(
        torch.randn(shape, dtype=torch.float64, generator=generator).requires_grad_()
        for shape in shapes
    )


def test_gradient_of_the_trained_form():
    """With respect to the picture and every weight, through the channel weights too."""
    inputs = tiny_inputs()
    shown = tiny_map(*inputs, True)
    assert 0 < (shown > 0).sum() < shown.numel()  # both sides of the relu
    assert torch.autograd.gradcheck(lambda *tensors: tiny_map(*tensors, True), inputs)


def test_without_a_graph_the_map_is_the_same_and_the_logit_can_still_be_trained():
    inputs = tiny_inputs()
    features = torch.tanh(F.conv2d(inputs[0], inputs[1], padding=1))
    logit = torch.tanh(features.mean(dim=(2, 3)) @ inputs[2]) @ inputs[3]
    shown = grad_cam(logit, features, create_graph=False)
    assert not shown.requires_grad
    torch.testing.assert_close(shown, tiny_map(*inputs, True).detach(), rtol=0, atol=0)
    assert all(tensor.grad is None for tensor in inputs)  # nothing is left in the weights
    logit.sum().backward()
    assert all(tensor.grad is not None for tensor in inputs)


def test_half_precision_features_give_a_float32_map():
    features = torch.randn(2, 6, 3, 3).bfloat16().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logit = (features.float() ** 2).mean(dim=(1, 2, 3))
        found = grad_cam(logit, features, create_graph=True)
    assert found.dtype == torch.float32
    assert found.requires_grad


@pytest.mark.parametrize(("logit", "features"), [((2, 1), (2, 3, 4, 4)), ((2,), (2, 3, 16))])
def test_shapes_that_do_not_match_are_refused(logit, features):
    with pytest.raises(ValueError, match=r"features \(B, C, h, w\)"):
        grad_cam(torch.zeros(logit), torch.zeros(features), create_graph=False)
