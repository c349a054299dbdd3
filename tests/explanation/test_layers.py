"""Which layer is chosen, and that tokens come back to where their patches were."""

import pytest
import timm
import torch
from tiny_detectors import SIZE, pictures, small_cnn, state_of, timm_net
from tiny_models import tiny
from torch import nn

from artifactnet.explanation.detector import Classifier, OwnDetector
from artifactnet.explanation.layers import target_layer
from artifactnet.types import ArtifactNetError


def chosen(detector):
    """Name of the layer, its reshape, and what they make of a batch of two."""
    layer, reshape = target_layer(detector)
    names = [name for name, module in detector.net.named_modules() if module is layer]
    outputs = []
    handle = layer.register_forward_hook(lambda *call: outputs.append(call[2].detach()))
    with torch.no_grad():
        detector.logits(pictures(detector.preprocess.size, 2))
    handle.remove()
    assert len(outputs) == 1
    return names[0], outputs[0], reshape


def timm_detector(name, size, **options):
    return Classifier(timm.create_model(name, num_classes=1, **options).eval(), size)


POST_NORM = {"embed_dim": 24, "num_heads": 2, "depth": 2, "img_size": 32}
POST_NORM["block_fn"] = timm.models.vision_transformer.ResPostBlock


@pytest.mark.parametrize(
    ("make", "layer", "grid"),
    [
        (lambda: Classifier(timm_net("resnet"), SIZE), "layer4", (3, 5)),
        (lambda: Classifier(timm_net("convnext"), SIZE), "stages", (3, 5)),
        # what comes after the average is left out
        (lambda: timm_detector("efficientnet_b0", (64, 96)), "bn2", (2, 3)),
        (lambda: timm_detector("mobilenetv3_small_050", (64, 96)), "blocks", (2, 3)),
        # normalised after attention: at the input of the block
        (lambda: timm_detector("vit_tiny_patch16_224", (32, 32), **POST_NORM), "blocks.0", None),
        # inside the backbone
        (lambda: OwnDetector(tiny()), "blocks.2.norm1", None),
        (lambda: OwnDetector(tiny("resnet10t", size=(64, 96), kwargs={})), "layer4", (2, 3)),
        (lambda: OwnDetector(tiny(stem="conv")), "blocks.2.norm1", None),
    ],
)
def test_nets_are_explained_at_their_last_map(make, layer, grid):
    found, output, reshape = chosen(make())
    assert found == layer
    if grid:
        assert (reshape, output.shape[2:]) == (None, grid)


def test_pooling_is_left_out_and_what_returns_its_output():
    """As VGG: the container's output is its last pooling's."""
    features = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout())
    rest = nn.AdaptiveMaxPool2d((2, 2)), nn.Flatten(), nn.Linear(16, 2), nn.ReLU(), nn.Linear(2, 1)
    net = nn.Sequential(features, *rest).eval()
    name, output, _ = chosen(Classifier(net, (16, 32)))
    assert (name, output.shape[2:]) == ("0.1", (14, 30))


@pytest.mark.parametrize("wrapped", [False, True])
def test_swin_is_explained_at_its_final_norm_with_channels_first(wrapped):
    net = timm_net("swin")
    detector = Classifier(nn.Sequential(nn.Identity(), net) if wrapped else net, SIZE)
    name, output, reshape = chosen(detector)
    assert name == ("1.norm" if wrapped else "norm")
    moved = reshape(output)
    assert moved.shape == (2, 16, 12, 20)
    for y, x in ((0, 0), (5, 1), (2, 19)):
        assert torch.equal(moved[:, :, y, x], output[:, y, x])


@pytest.mark.parametrize(
    ("model", "options", "size", "patch", "prefix"),
    [
        ("vit_tiny_patch16_224", {}, (48, 80), 16, 1),
        ("vit_small_patch14_reg4_dinov2", {}, (28, 56), 14, 5),
        ("vit_tiny_patch16_224", {"class_token": False, "global_pool": "avg"}, (32, 96), 16, 0),
        ("beit_base_patch16_224", {}, (32, 48), 16, 1),
        ("eva02_tiny_patch14_224", {}, (14, 42), 14, 1),
    ],
)
def test_tokens_go_where_their_patches_are(model, options, size, patch, prefix):
    net = timm.create_model(
        model, num_classes=2, img_size=size, embed_dim=24, num_heads=2, depth=2, **options
    ).eval()
    name, output, reshape = chosen(Classifier(net, size))
    height, width = size[0] // patch, size[1] // patch
    assert name == "blocks.1.norm1"
    assert output.shape[1] == prefix + height * width
    moved = reshape(output)
    assert moved.shape == (2, 24, height, width)
    for y in range(height):
        for x in range(width):
            assert torch.equal(moved[:, :, y, x], output[:, prefix + y * width + x])


class Tokens(nn.Module):
    """A transformer that timm knows nothing of."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Conv2d(3, 8, 8, 8)
        self.layers = nn.Sequential(*[nn.TransformerEncoderLayer(8, 1, 16) for _ in range(2)])
        self.fc = nn.Linear(8, 1)

    def forward(self, images):
        return self.fc(self.layers(self.embed(images).flatten(2).transpose(1, 2)).mean(1))


class NoMap(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3 * 16 * 16, 1)

    def forward(self, images):
        return self.fc(images.flatten(1))


@pytest.mark.parametrize("net", [Tokens(), NoMap()], ids=["tokens", "no map"])
def test_a_net_without_a_map_asks_for_the_layer(net):
    with pytest.raises(ArtifactNetError, match=type(net).__name__):
        target_layer(Classifier(net.eval(), (16, 16)))


def test_what_the_caller_names_comes_first():
    def reshape(output):
        return output

    assert target_layer(small_cnn(target_layer="conv1"))[1] is None
    layer, used = target_layer(small_cnn(target_layer="conv1", reshape=reshape))
    assert (layer.out_channels, used) == (6, reshape)
    assert target_layer(small_cnn(reshape=reshape))[1] is reshape
    vit = Classifier(timm_net("vit"), SIZE, target_layer="blocks.0")
    layer, derived = target_layer(vit)
    assert layer is vit.net.blocks[0]
    assert derived(torch.zeros(2, 61, 5)).shape == (2, 5, 6, 10)
    with pytest.raises(ArtifactNetError, match="6x10"):
        derived(torch.zeros(1, 62, 4))
    gone = small_cnn()
    gone.target_layer = "conv9"
    with pytest.raises(ArtifactNetError, match="'conv9'"):
        target_layer(gone)


def test_nothing_is_left_behind():
    for detector in (small_cnn(), Classifier(timm_net("swin").train(), SIZE)):
        before = state_of(detector.module)
        target_layer(detector)
        assert state_of(detector.module) == before
