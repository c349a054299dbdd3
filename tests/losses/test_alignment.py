"""Alignment loss against plain loops in float64."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from artifactnet.losses.alignment import alignment_loss, artifact_share
from artifactnet.types import Annotation


def share_by_loops(mask, rows, columns):
    height, width = mask.shape[1] // rows, mask.shape[2] // columns
    out = np.zeros((len(mask), rows, columns))
    for b in range(len(mask)):
        for y in range(mask.shape[1]):
            for x in range(mask.shape[2]):
                if mask[b, y, x] > 0:
                    out[b, y // height, x // width] += 1
    return out / (height * width)


def loss_by_loops(heatmap, share, annotated, benign_weight):
    total = 0.0
    for b in range(len(heatmap)):
        if not annotated[b]:
            continue
        image = 0.0
        for a, s in zip(heatmap[b].flatten().tolist(), share[b].flatten().tolist(), strict=True):
            image += (1.0 if s > 0 else benign_weight) * (a - s) ** 2
        total += image / heatmap[b].numel()
    return total / len(heatmap)


def example(batch, rows, columns, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    heatmap = torch.rand(batch, rows, columns, generator=generator, dtype=dtype)
    share = torch.rand(batch, rows, columns, generator=generator, dtype=dtype)
    share[torch.rand(share.shape, generator=generator) < 0.6] = 0
    annotated = torch.rand(batch, generator=generator) < 0.6
    return heatmap, share, annotated


@settings(deadline=None)
@given(
    batch=st.integers(1, 3),
    grid=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    patch=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    seed=st.integers(0, 1000),
)
def test_share_is_the_exact_area(batch, grid, patch, seed):
    shape = (batch, grid[0] * patch[0], grid[1] * patch[1])
    mask = np.random.default_rng(seed).choice([0, 0, 1, 2, 128, 255], shape).astype(np.uint8)
    share = artifact_share(torch.from_numpy(mask), grid)
    assert share.dtype == torch.float32
    np.testing.assert_allclose(share.numpy(), share_by_loops(mask, *grid), atol=1e-7)


@pytest.mark.parametrize("grid", [(3, 2), (2, 4), (0, 2)])
def test_a_grid_that_does_not_divide_is_refused(grid):
    with pytest.raises(ValueError, match="does not divide a 4x6 mask"):
        artifact_share(torch.zeros(1, 4, 6, dtype=torch.uint8), grid)


@settings(deadline=None)
@given(
    shape=st.tuples(st.integers(1, 5), st.integers(1, 4), st.integers(1, 4)),
    benign_weight=st.sampled_from([0.0, 0.4, 1.0, 2.5]),
    seed=st.integers(0, 1000),
)
def test_loss_equals_loops(shape, benign_weight, seed):
    heatmap, share, annotated = example(*shape, seed)
    got = alignment_loss(heatmap, share, annotated, benign_weight)
    assert got.dtype == torch.float64
    expected = loss_by_loops(heatmap, share, annotated.tolist(), benign_weight)
    assert math.isclose(got.item(), expected, rel_tol=1e-12, abs_tol=1e-15)


def test_annotation_states():
    heatmap = torch.full((3, 2, 2), 0.5)
    share = torch.zeros(3, 2, 2)
    share[2, 0, 0] = 1.0
    states = torch.tensor([Annotation.NONE, Annotation.CLEAN, Annotation.MASK])
    # CLEAN: lambda * 0.25; MASK: (0.25 + 3 * lambda * 0.25) / 4; NONE: 0.
    expected = (0.4 * 0.25 + (0.25 + 3 * 0.4 * 0.25) / 4) / 3
    assert alignment_loss(heatmap, share, states, 0.4).item() == pytest.approx(expected)
    heatmap[0] = 0.9
    assert alignment_loss(heatmap, share, states, 0.4).item() == pytest.approx(expected)


def test_nothing_annotated_is_a_zero_with_a_graph():
    heatmap, share, _ = example(3, 2, 2)
    heatmap.requires_grad_()
    loss = alignment_loss(heatmap, share, torch.zeros(3, dtype=torch.bool), 0.4)
    assert loss.item() == 0
    loss.backward()
    assert heatmap.grad is not None
    assert not heatmap.grad.any()


def test_mean_over_processes_is_the_joint_batch():
    heatmap, share, _ = example(8, 3, 4, seed=2)
    annotated = torch.tensor([1, 1, 1, 0, 0, 0, 0, 1]).bool()
    joint = alignment_loss(heatmap, share, annotated, 0.4)
    parts = [
        alignment_loss(heatmap[rank::2], share[rank::2], annotated[rank::2], 0.4) for rank in (0, 1)
    ]
    torch.testing.assert_close(sum(parts) / 2, joint, rtol=1e-12, atol=0)


def test_gradient():
    heatmap, share, _ = example(3, 2, 3)
    annotated = torch.tensor([True, False, True])
    heatmap.requires_grad_()
    assert torch.autograd.gradcheck(lambda a: alignment_loss(a, share, annotated, 0.4), heatmap)
    alignment_loss(heatmap, share, annotated, 0.4).backward()
    assert heatmap.grad is not None
    assert not heatmap.grad[1].any()


def test_half_precision_maps_are_measured_in_float32():
    heatmap, share, annotated = example(4, 8, 8, dtype=torch.float32)
    coarse = heatmap.bfloat16()
    got = alignment_loss(coarse, share, annotated, 0.4)
    assert got.dtype == torch.float32
    expected = loss_by_loops(coarse.double(), share.double(), annotated.tolist(), 0.4)
    assert got.item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("heatmap", "share", "annotated"),
    [((2, 3, 3), (2, 3, 4), (2,)), ((2, 3, 3), (2, 3, 3), (3,)), ((2, 9), (2, 9), (2,))],
)
def test_shapes_that_do_not_match_are_refused(heatmap, share, annotated):
    with pytest.raises(ValueError, match="do not match"):
        alignment_loss(torch.zeros(heatmap), torch.zeros(share), torch.ones(annotated), 0.4)
