"""Pieces that come back in place, unequal grids, outside tokens, and a head that learns."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from artifactnet.config import HeatmapConfig
from artifactnet.models.heads.hierarchy import MODES, Fuser, HierarchicalHead
from artifactnet.models.heads.mapper import Tokens
from artifactnet.types import ArtifactNetError, HeatmapLevel

CONFIG = HeatmapConfig(head="mapper", width=16, tile=32, heads=2, tokens=2)
CHANNELS = (4, 6, 8)
STRIDES = (8, 16, 32)
GRIDS = [(1, 1), (2, 1), (1, 3), (3, 2)]


def head(token_width=None, **changes):
    torch.manual_seed(0)
    return HierarchicalHead(replace(CONFIG, **changes), CHANNELS, token_width).eval()


def pyramid(count, seed=0, tile=32):
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(count, channels, tile // stride, tile // stride, generator=generator)
        for channels, stride in zip(CHANNELS, STRIDES, strict=True)
    ]


@torch.no_grad()
def test_levels_are_the_resized_thumbnail_and_the_tiles_in_place():
    net = head()
    thumbnails, tiles = pyramid(2), pyramid(12, 1)
    whole, local, _ = net.map_pieces(thumbnails, tiles)
    output = net(thumbnails, tiles, (3, 2))
    for name in ("logit", "log_sigma"):
        coarse, fine = (getattr(level, name) for level in output.levels)
        thumbnail = getattr(whole, name)[:, None]
        resized = torch.nn.functional.interpolate(thumbnail, (24, 16), mode="bilinear")
        torch.testing.assert_close(coarse, resized[:, 0])
        for image in range(2):
            for r in range(3):
                for c in range(2):
                    found = fine[image, 8 * r : 8 * r + 8, 8 * c : 8 * c + 8]
                    expected = getattr(local, name)[6 * image + 2 * r + c]
                    torch.testing.assert_close(found, expected)


@torch.no_grad()
def test_assembled_images_equal_each_image_alone():
    net = head()
    thumbnails, tiles = pyramid(4), pyramid(12, 1)
    outputs = net.assemble(*net.map_pieces(thumbnails, tiles), GRIDS)
    first = 0
    for k, (grid, output) in enumerate(zip(GRIDS, outputs, strict=True)):
        count = grid[0] * grid[1]
        its = [level[first : first + count] for level in tiles]
        alone = net([level[k : k + 1] for level in thumbnails], its, grid)
        for name in ("heatmap", "sigma", "score"):
            torch.testing.assert_close(getattr(output, name), getattr(alone, name))
        first += count


@torch.no_grad()
def test_tokens_from_outside_have_their_own_width():
    net = head(token_width=10).double()
    thumbnails, tiles = ([x.double() for x in pyramid(count, count)] for count in (2, 4))
    maps = torch.randn(2, 1, 10).double(), torch.randn(4, 3, 10).double()
    tokens = Tokens(*maps, torch.randn(2, 10).double())
    first = net(thumbnails, tiles, (2, 1), tokens)
    assert first.heatmap.shape == (2, 16, 8)
    for name in ("global_map", "local_map", "score"):
        other = replace(tokens, **{name: getattr(tokens, name) + torch.randn(10)})
        second = net(thumbnails, tiles, (2, 1), other)
        pairs = zip(second.levels, first.levels, strict=True)
        moved = [not torch.equal(new.logit, old.logit) for new, old in pairs]
        assert moved == [name == "global_map", name == "local_map"]
        assert not torch.equal(second.score, first.score)
    own = tokens.local_map.clone()
    own[1] += 1  # the lower tile of the first image
    second = net(thumbnails, tiles, (2, 1), replace(tokens, local_map=own))
    changed = (second.levels[1].logit != first.levels[1].logit).any(2)
    assert changed.any(1).tolist() == [True, False]
    assert not changed[0, :8].any()
    with pytest.raises(ValueError, match="no tokens of its own"):
        net(thumbnails, tiles, (2, 1))
    few = replace(tokens, local_map=tokens.local_map[:3])
    with pytest.raises(ValueError, match="tokens for 2 thumbnails, 3 tiles and 2 scores"):
        net(thumbnails, tiles, (2, 1), few)


@pytest.mark.parametrize(
    ("strides", "tile", "cells"),
    [
        ((4, 8, 16, 32), 64, 4),  # a hierarchy: the level of stride 16
        ((16, 16, 16, 16), 64, 4),  # a plain ViT
        ((14, 14, 14, 14), 56, 4),
        ((8, 32), 64, 8),  # equally far: the finer
        ((2, 4), 64, 16),
    ],
)
def test_the_mapper_reads_the_level_nearest_to_16_pixels(strides, tile, cells):
    torch.manual_seed(0)
    net = HierarchicalHead(replace(CONFIG, tile=tile), [3] * len(strides))
    levels = [torch.randn(1, 3, tile // stride, tile // stride) for stride in strides]
    assert net(levels, levels, (1, 1)).heatmap.shape == (1, 4 * cells, 4 * cells)


@pytest.mark.parametrize("fusion", ["uncertainty", "learnable", "fixed", "global", "local"])
def test_a_loss_on_map_score_and_levels_reaches_every_weight(fusion):
    net = head(fusion=fusion, calibration="dynamic").double()
    pieces = ([x.double() for x in pyramid(*each)] for each in ((2,), (4, 1)))
    output = net(*pieces, (2, 1))
    loss = output.heatmap.square().mean() + output.score.square().mean()
    loss = loss + sum((x.logit**2 + x.log_sigma**2).mean() for x in output.levels)
    loss.backward()
    for name, weight in net.named_parameters():
        if not name.endswith("key.bias"):  # the same for all keys: the softmax ignores it
            assert weight.grad is not None, name
            assert weight.grad.abs().max() > 0, name


def test_bad_grids_counts_and_widths_are_refused():
    net = head(max_tiles=4)
    with pytest.raises(ArtifactNetError, match=r"3x2 tiles .* model.heatmap.max_tiles=4"):
        net(pyramid(1), pyramid(6), (3, 2))
    with pytest.raises(ValueError, match="4 tiles fill 2 grids of 2x1, but there are 3"):
        net(pyramid(3), pyramid(4), (2, 1))
    pieces = net.map_pieces(pyramid(2), pyramid(3))
    with pytest.raises(ValueError, match="2 grids of 4 tiles in all, but 2 thumbnails"):
        net.assemble(*pieces, [(1, 2), (2, 1)])
    with pytest.raises(ValueError, match="1 grids of 3 tiles in all"):
        net.assemble(*pieces, [(3, 1)])
    for width, heads in ((18, 2), (16, 3)):
        with pytest.raises(ArtifactNetError, match=f"model.heatmap.width={width} must be"):
            head(width=width, heads=heads)


def test_autocast_gives_float32_maps_and_scores():
    net = head()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = net(pyramid(1), pyramid(2, 1), (1, 2))
    exact = net(pyramid(1), pyramid(2, 1), (1, 2))
    for name in ("heatmap", "sigma", "score"):
        rounded = getattr(output, name)
        assert rounded.dtype == torch.float32
        torch.testing.assert_close(rounded, getattr(exact, name), atol=0.03, rtol=0.05)


def levels(seed=0, shape=(2, 3, 4), dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    values = 4 * torch.randn(4, *shape, generator=generator, dtype=dtype)
    return HeatmapLevel(values[0], values[1] / 2), HeatmapLevel(values[2], values[3] / 2)


def weight_by_formula(mode, sigma_g, sigma_l, learned):
    if mode == "uncertainty":
        return math.exp(-sigma_l) / (math.exp(-sigma_l) + math.exp(-sigma_g))
    return {"learnable": 1 / (1 + math.exp(-learned)), "fixed": 0.5, "global": 0, "local": 1}[mode]


@settings(deadline=None)
@given(mode=st.sampled_from(MODES), learned=st.floats(-3, 3), seed=st.integers(0, 999))
def test_fused_map_equals_the_formula(mode, learned, seed):
    fuser = Fuser(mode).double()
    if fuser.preference is not None:
        torch.nn.init.constant_(fuser.preference, learned)
    whole, local = levels(seed)
    heatmap, sigma = fuser(whole, local)
    for at in torch.cartesian_prod(torch.arange(2), torch.arange(3), torch.arange(4)).tolist():
        one, two = (1 / (1 + math.exp(-x.logit[tuple(at)])) for x in (whole, local))
        spread_g, spread_l = (math.exp(x.log_sigma[tuple(at)]) for x in (whole, local))
        weight = weight_by_formula(mode, spread_g, spread_l, learned)
        assert heatmap[tuple(at)].item() == pytest.approx(weight * two + (1 - weight) * one)
        expected = weight * spread_l + (1 - weight) * spread_g
        assert sigma[tuple(at)].item() == pytest.approx(expected)


@pytest.mark.parametrize("mode", MODES)
def test_values_stay_in_range_at_the_extremes(mode):
    for sign in (-1, 1):
        extreme = HeatmapLevel(torch.full((1, 2, 2), 200.0 * sign), torch.full((1, 2, 2), 5.0))
        other = HeatmapLevel(torch.full((1, 2, 2), 200.0), torch.full((1, 2, 2), -7.0))
        heatmap, sigma = Fuser(mode)(extreme, other)
        assert heatmap.isfinite().all()
        assert ((heatmap >= 0) & (heatmap <= 1)).all()
        assert (sigma > 0).all()


def test_low_precision_is_raised_and_bad_input_refused():
    whole, local = levels(dtype=torch.float32)
    half = [HeatmapLevel(x.logit.bfloat16(), x.log_sigma.bfloat16()) for x in (whole, local)]
    heatmap, sigma = Fuser("uncertainty")(*half)
    assert heatmap.dtype == sigma.dtype == torch.float32
    small = HeatmapLevel(local.logit[:, :1], local.log_sigma[:, :1])
    with pytest.raises(ValueError, match="differ in size"):
        Fuser("fixed")(whole, small)
    with pytest.raises(ValueError, match="unknown fusion mode 'mean': one of uncertainty"):
        Fuser("mean")
