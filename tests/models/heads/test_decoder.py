"""The decoder head of students, and models with a heatmap head."""

import pytest
import torch
import torch.nn.functional as F

from artifactnet.config import HeatmapConfig, ModelConfig
from artifactnet.models.artifact_net import ArtifactNet
from artifactnet.models.checkpoint import load_checkpoint, save_checkpoint
from artifactnet.models.heads.decoder import LOG_SIGMA, Decoder, Neck
from artifactnet.types import ArtifactNetError

BACKBONE = "test_convnext"


def model(head="decoder", size=(64, 96), seed=0, **heatmap):
    torch.manual_seed(seed)
    options = {"width": 16, "tile": 32, "heads": 2, "tokens": 2, **heatmap}
    heads = HeatmapConfig(head=head, **options)
    return ArtifactNet(ModelConfig(BACKBONE, image_size=list(size), heatmap=heads)).eval()


def test_neck_sums_what_each_level_gives():
    torch.manual_seed(0)
    neck = Neck([3, 5], 8)
    levels = [torch.randn(2, 3, 8, 12), torch.randn(2, 5, 4, 6)]
    each = [part(level) for part, level in zip(neck.projections, levels, strict=True)]
    expected = each[0] + F.interpolate(each[1], (8, 12), mode="bilinear")
    assert torch.equal(neck(levels, (8, 12)), expected)
    assert neck(levels, (3, 3)).shape == (2, 8, 3, 3)


@pytest.mark.parametrize("stride", [4, 8, 16])
def test_ranges_and_shapes(stride):
    torch.manual_seed(1)
    head = Decoder(HeatmapConfig(head="decoder", width=16, stride=stride), [4, 8])
    levels = [50 * torch.randn(3, 4, 16, 24), 50 * torch.randn(3, 8, 8, 12)]
    found = head(levels, (64, 90))
    assert found.heatmap.shape == found.sigma.shape == (3, 64 // stride, -(-90 // stride))
    assert found.score.shape == (3,)
    assert found.heatmap.min() >= 0
    assert found.heatmap.max() <= 1
    assert found.sigma.log().min() >= LOG_SIGMA[0]
    assert found.sigma.log().max() <= LOG_SIGMA[1]
    (level,) = found.levels
    assert torch.equal(level.logit.sigmoid(), found.heatmap)
    assert torch.equal(level.log_sigma.exp(), found.sigma)


def test_every_weight_of_the_head_learns():
    net = model().train()
    output = net(torch.randn(2, 3, 64, 96), heatmap=True)
    sum(x.mean() for x in (output.heatmap, output.sigma, output.score, output.logit)).backward()
    parts = {**dict(net.heatmap.named_parameters()), **dict(net.evidence.named_parameters())}
    assert [name for name, p in parts.items() if p.grad is None or not p.grad.any()] == []


@pytest.mark.parametrize("head", ["decoder", "mapper"])
def test_the_verdict_is_the_same_with_and_without_maps(head):
    net, images = model(head), torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        alone, shown = net(images), net(images, heatmap=True)
    assert torch.equal(alone.logit, shown.logit)
    assert alone.heatmap is alone.sigma is alone.score is None
    assert alone.levels == ()
    assert shown.heatmap.shape == shown.sigma.shape
    assert len(shown.levels) == (2 if head == "mapper" else 1)
    assert shown.attention is None


@pytest.mark.parametrize("head", ["decoder", "mapper"])
def test_images_of_a_batch_are_independent(head):
    net, images = model(head), torch.randn(3, 3, 64, 96)
    with torch.no_grad():
        together = net(images, heatmap=True)
        for k in range(3):
            alone = net(images[k : k + 1], heatmap=True)
            for name in ("logit", "heatmap", "score"):
                one, other = getattr(alone, name)[0], getattr(together, name)[k]
                torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_heatmap_evidence_enters_the_verdict():
    net, images = model(), torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        before = net(images).logit
        net.heatmap.maps.bias[0] += 2  # everything looks worse
        after = net(images).logit
    assert after - before == pytest.approx(2 * net.evidence.weight.item(), abs=1e-2)


@pytest.mark.parametrize("head", ["decoder", "mapper"])
def test_a_saved_model_predicts_the_same_maps(head, tmp_path):
    net, images = model(head), torch.randn(1, 3, 64, 96)
    save_checkpoint(net, tmp_path / "m.safetensors")
    again = load_checkpoint(tmp_path / "m.safetensors")
    with torch.no_grad():
        assert torch.equal(net(images, heatmap=True).heatmap, again(images, heatmap=True).heatmap)
    assert again.config.heatmap == net.config.heatmap


def test_attributes_of_a_model_with_a_heatmap_head():
    net = model()
    assert not net.has_attention
    assert "model.heatmap.head" in net.no_attention
    assert net.grid is None
    assert set(net.parts()) == {"backbone", "head", "heatmap"}
    with pytest.raises(ArtifactNetError, match=r"no attention map.*model.heatmap.head"):
        net(torch.randn(1, 3, 64, 96), attention=True)
    bare = ArtifactNet(ModelConfig(backbone=BACKBONE, image_size=[32, 32], pretrained="false"))
    with pytest.raises(ArtifactNetError, match=r"no heatmap head"):
        bare(torch.randn(1, 3, 32, 32), heatmap=True)
