"""The scorer's two branches and how they are mixed."""

import pytest
import torch

from artifactnet.models.heads.scorer import CALIBRATIONS, VerisimilitudeScorer


def scorer(calibration="sum", seed=0):
    torch.manual_seed(seed)
    return VerisimilitudeScorer(6, 8, calibration).double()


def example(count=3, size=(9, 14)):
    torch.manual_seed(1)
    return torch.randn(count, 6).double(), torch.rand(count, *size).double()


@torch.no_grad()
def branches(net, token, heatmap):
    """S_token and S_map of each image."""
    seen = net.look(heatmap[:, None])
    pooled = torch.cat([seen.mean((2, 3)), seen.amax((2, 3))], 1)
    return net.of_token(token)[:, 0].sigmoid(), net.of_map(pooled)[:, 0].sigmoid(), pooled


@torch.no_grad()
@pytest.mark.parametrize("calibration", CALIBRATIONS)
def test_score_is_the_weighted_sum_of_both_branches(calibration):
    net = scorer(calibration)
    token, heatmap = example()
    one, two, pooled = branches(net, token, heatmap)
    torch.testing.assert_close(net(token, heatmap), (one + two) / 2)  # at first
    if calibration == "sum":
        net.balance.fill_(1.5)
        weight = torch.tensor(1.5).double().sigmoid().expand(3)
    else:
        torch.nn.init.normal_(net.gate.weight)
        weight = net.gate(torch.cat([token, pooled], 1))[:, 0].sigmoid()
        assert len(weight.unique()) == 3
    torch.testing.assert_close(net(token, heatmap), weight * one + (1 - weight) * two)


@pytest.mark.parametrize("calibration", CALIBRATIONS)
def test_token_and_heatmap_both_matter_and_every_weight_learns(calibration):
    net = scorer(calibration)
    token, heatmap = example()
    first = net(token, heatmap)
    assert first.shape == (3,)
    assert ((first > 0) & (first < 1)).all()
    heatmap.requires_grad_()
    net(token, heatmap).square().sum().backward()
    assert heatmap.grad.abs().max() > 0
    for name, weight in net.named_parameters():
        assert weight.grad is not None, name
        assert weight.grad.abs().max() > 0, name


def test_extreme_branches_stay_in_range_and_images_do_not_mix():
    net = scorer()
    token, heatmap = example()
    alone = torch.cat([net(token[k : k + 1], heatmap[k : k + 1]) for k in range(3)])
    torch.testing.assert_close(net(token, heatmap), alone)
    net = net.float()
    for bias in (-200.0, 200.0):
        torch.nn.init.constant_(net.of_map[2].bias, bias)
        torch.nn.init.constant_(net.of_token[1][2].bias, bias)
        score = net(token.float(), heatmap.float())
        assert ((score >= 0) & (score <= 1)).all()


def test_autocast_and_unknown_calibration():
    token, heatmap = (x.float() for x in example())
    net = scorer("dynamic").float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        score = net(token, heatmap)
    assert score.dtype == torch.float32
    torch.testing.assert_close(score, net(token, heatmap), atol=0.02, rtol=0.02)
    with pytest.raises(ValueError, match="unknown calibration 'max': one of sum, dynamic"):
        scorer("max")
