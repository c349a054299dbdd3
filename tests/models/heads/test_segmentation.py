"""Probabilities and masks against loops; the segmentation side of ArtifactNet."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import tiny

from artifactnet.config import AttentionConfig, SegmentationConfig
from artifactnet.models.checkpoint import init_weights, load_checkpoint, save_checkpoint
from artifactnet.models.heads.classification import EvidenceHead
from artifactnet.models.heads.segmentation import (
    any_artifact,
    any_artifact_of_planes,
    artifact_log_odds,
    bit_field,
    probabilities,
)
from artifactnet.models.pyramid import LEVELS, SimplePyramid, level_indices
from artifactnet.types import ArtifactNetError

SWIN = {"embed_dim": 8, "depths": (1, 1, 1, 1), "num_heads": (1, 1, 2, 2)}
HEAD = SegmentationConfig(head="upernet", channels=8, auxiliary_channels=8)


def swin(seed=0, size=(64, 96), **config):
    config.setdefault("segmentation", HEAD)
    return tiny("swin_tiny_patch4_window7_224", size=size, seed=seed, kwargs=SWIN, **config)


def images(size=(64, 96), count=2):
    return torch.randn(count, 3, *size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("channels", [7, 8])
def test_probabilities_equal_loops_in_float64(channels):
    logits = torch.randn(2, channels, 3, 4, generator=torch.Generator().manual_seed(0)) * 4
    each, artifact = probabilities(logits)
    assert torch.equal(any_artifact(logits), artifact)
    planes = any_artifact_of_planes(each[0].numpy(), exclusive=channels == 8)
    np.testing.assert_allclose(planes, artifact[0], atol=1e-6)
    larger = torch.nn.functional.interpolate(logits, (6, 9), mode="bilinear")
    assert torch.equal(any_artifact(logits, (6, 9)), any_artifact(larger))
    values = logits.double().numpy()
    for b in range(2):
        for y in range(3):
            for x in range(4):
                z = values[b, :, y, x]
                if channels == 8:
                    shares = np.exp(z - z.max()) / np.exp(z - z.max()).sum()
                    expected, union = shares[1:], 1 - shares[0]
                else:
                    expected = 1 / (1 + np.exp(-z))
                    union = expected.max()
                assert each[b, :, y, x].numpy() == pytest.approx(expected, abs=1e-6)
                assert float(artifact[b, y, x]) == pytest.approx(union, abs=1e-6)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.booleans(), st.floats(0.05, 0.95), st.sets(st.integers(1, 7)))
def test_masks_follow_the_rule(seed, exclusive, threshold, known):
    rng = np.random.default_rng(seed)
    each = rng.random((1, 7, 4, 5))
    artifact = rng.random((1, 4, 5))
    mask = bit_field(
        torch.from_numpy(each), torch.from_numpy(artifact), threshold, exclusive, sorted(known)
    )
    for y in range(4):
        for x in range(5):
            expected = 0
            if artifact[0, y, x] > threshold:
                if exclusive and known:
                    expected = 1 << max(known, key=lambda c: each[0, c - 1, y, x])
                if not exclusive:
                    expected = sum(1 << c for c in known if each[0, c - 1, y, x] > threshold)
                expected = expected or 1
            assert int(mask[0, y, x]) == expected


@pytest.mark.parametrize("labels", ["softmax", "sigmoid"])
def test_evidence_is_the_mean_of_the_strongest_hundredth(labels):
    channels = {"softmax": 8, "sigmoid": 7}[labels]
    logits = torch.randn(2, channels, 20, 20, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        found = EvidenceHead()(artifact_log_odds(logits)) / 0.5
    values = logits.double().numpy().reshape(2, channels, -1)
    for b in range(2):
        if labels == "softmax":
            odds = np.log(np.exp(values[b, 1:]).sum(0)) - values[b, 0]
        else:
            odds = values[b].max(0)
        assert float(found[b]) == pytest.approx(np.sort(odds)[-4:].mean(), abs=1e-5)


SIZES = {
    "swin_tiny_patch4_window7_224": SWIN,
    "swinv2_tiny_window8_256": SWIN,
    "vit_tiny_patch16_224": {"depth": 4, "embed_dim": 24, "num_heads": 2},
}
CNNS = ["convnext_atto", "resnet18", "efficientnet_b0", "mobilenetv3_small_100"]


@pytest.mark.parametrize("name", [*SIZES, *CNNS])
def test_pyramids_of_many_backbones(name):
    attention = AttentionConfig(method="rollout" if name.startswith("vit") else "grad_cam")
    kwargs = SIZES.get(name, {})
    model = tiny(name, size=(64, 96), kwargs=kwargs, segmentation=HEAD, attention=attention)
    model.train()
    output = model(images(), attention=True, segmentation=True, create_graph=True)
    assert output.segmentation.shape == (2, 8, 16, 24)
    assert output.auxiliary.shape[:2] == (2, 8)
    total = output.logit.sum() + output.segmentation.sum() + output.auxiliary.sum()
    (total + output.heatmap.sum()).backward()
    untouched = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    # timm's head of these nets has a norm of patch tokens, or unused last layers, at most
    assert not [n for n in untouched if not n.startswith("backbone.net")]
    model.eval()
    with torch.no_grad():
        both = model(images(), segmentation=True)
        one = model(images()[1:], segmentation=True)
    assert both.auxiliary is None
    torch.testing.assert_close(both.segmentation[1:], one.segmentation, rtol=1e-4, atol=1e-5)


def test_any_size_gives_masks_and_the_same_verdict_with_or_without_them():
    model = swin()
    for size in [(64, 96), (50, 71), (128, 33)]:
        with torch.no_grad():
            alone = model(images(size))
            output = model(images(size), segmentation=True)
        assert output.segmentation.shape[2:] == tuple(-(-side // 4) for side in size)
        torch.testing.assert_close(alone.logit, output.logit)


def test_the_map_is_the_gradient_weighted_activation_of_the_last_stage():
    model = swin(attention=AttentionConfig(method="grad_cam", normalization="none"))
    assert model.grid == (2, 3)
    x = images()
    with torch.no_grad():
        output = model(x, attention=True)
        final, _ = model.backbone.features(x, pyramid=False)
    # average pooling and one linear layer: the gradient is the weight over the number of cells
    expected = (final.double() @ model.head.weight[0].double() / 6).relu()
    torch.testing.assert_close(output.attention.double(), expected, rtol=1e-5, atol=1e-7)
    assert not output.logit.requires_grad
    with torch.inference_mode():
        assert torch.equal(model(x, attention=True).attention, output.attention)


def test_frozen_parts_keep_weights_and_statistics():
    model = swin().train()
    model.freeze(["backbone", "segmentation"])
    before = {k: v.clone() for k, v in model.state_dict().items()}
    model(images(), segmentation=True).logit.sum().backward()
    assert model.training
    assert not model.segmentation.training
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    learned = {n for n, p in model.named_parameters() if p.grad is not None}
    assert learned == {"head.weight", "head.bias"}


def test_saved_heads_come_back_to_the_bit(tmp_path):
    heads = SegmentationConfig("upernet", 8, 8, evidence=True, categories=["low-level-color"])
    model = swin(segmentation=heads)
    save_checkpoint(model, tmp_path / "m.safetensors")
    loaded = load_checkpoint(tmp_path / "m.safetensors")
    assert loaded.known_categories == (4,)
    with torch.no_grad():
        one, other = (m(images(), segmentation=True) for m in (model, loaded))
    assert torch.equal(one.logit, other.logit)
    assert torch.equal(one.segmentation, other.segmentation)


def test_init_from_takes_the_parts_that_both_have(tmp_path):
    save_checkpoint(swin(seed=1), tmp_path / "masks.safetensors")
    none = SegmentationConfig()
    save_checkpoint(swin(seed=2, segmentation=none), tmp_path / "verdict.safetensors")
    verdict = swin(seed=3, segmentation=none)
    assert init_weights(verdict, tmp_path / "masks.safetensors") == []
    assert torch.equal(verdict.head.weight, swin(seed=1).head.weight)
    masks = swin(seed=3)
    assert init_weights(masks, tmp_path / "verdict.safetensors") == ["segmentation"]
    fresh = swin(seed=3).segmentation.main.conv_seg.weight
    assert torch.equal(masks.segmentation.main.conv_seg.weight, fresh)
    other = swin(segmentation=SegmentationConfig("upernet", 16, 8))
    with pytest.raises(ArtifactNetError, match="of another shape"):
        init_weights(other, tmp_path / "masks.safetensors")


def test_levels():
    assert level_indices([4, 8, 16, 32]) == (0, 1, 2, 3)
    assert level_indices([2, 4, 8, 16, 32]) == (1, 2, 3, 4)
    assert level_indices([16] * 12) == (2, 5, 8, 11)
    assert level_indices([14] * 40) == (9, 19, 29, 39)
    with pytest.raises(ValueError, match="3 blocks"):
        level_indices([16] * 3)
    with pytest.raises(ArtifactNetError, match="no feature pyramid"):
        tiny(segmentation=HEAD)  # three blocks


def test_simple_pyramid_has_four_scales():
    levels = [torch.randn(2, 6, 5, 7) for _ in range(LEVELS)]
    shapes = [tuple(level.shape) for level in SimplePyramid(6)(levels)]
    assert shapes == [(2, 6, 20, 28), (2, 6, 10, 14), (2, 6, 5, 7), (2, 6, 3, 4)]


def test_maps_that_a_model_does_not_have_are_refused():
    with pytest.raises(ArtifactNetError, match=r"rollout does not apply; .*grad_cam"):
        swin()(images(), attention=True)
    with pytest.raises(ArtifactNetError, match="method=rollout"):
        tiny(attention=AttentionConfig(method="grad_cam"))(images((32, 48)), attention=True)
    with pytest.raises(ArtifactNetError, match="head=none"):
        tiny()(images((32, 48)), segmentation=True)
