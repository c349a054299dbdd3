"""Segmentation loss against loops in float64, and against torch where both are defined."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from artifactnet.losses.dense import segmentation_loss
from artifactnet.types import Annotation

NONE, CLEAN, MASK = (int(state) for state in Annotation)
VALUES = [0, 0, 0, 1, 2, 3, 4, 6, 7, 64, 128, 129, 130, 254, 255]


def upsampled(plane, height, width):
    """Bilinear resize of rows of numbers at half-pixel centres, clamped at the border."""
    rows, columns = len(plane), len(plane[0])

    def along(i, side, was):
        at = max((i + 0.5) * was / side - 0.5, 0.0)
        low = min(math.floor(at), was - 1)
        return low, min(low + 1, was - 1), at - low

    out = [[0.0] * width for _ in range(height)]
    for y in range(height):
        top, bottom, v = along(y, height, rows)
        for x in range(width):
            left, right, u = along(x, width, columns)
            upper = plane[top][left] * (1 - u) + plane[top][right] * u
            lower = plane[bottom][left] * (1 - u) + plane[bottom][right] * u
            out[y][x] = upper * (1 - v) + lower * v
    return out


def classes_of(value):
    """What a bit-field value says of its pixel, in words of the rule."""
    named = {c for c in range(1, 8) if value >> c & 1}
    if named:
        return named
    return set(range(1, 8)) if value else {0}


def pixel_loss(scores, value):
    if len(scores) == 8:
        exponentials = [math.exp(s) for s in scores]
        inside = sum(exponentials[c] for c in classes_of(value))
        return -math.log(inside / sum(exponentials))
    chances = [1 / (1 + math.exp(-s)) for s in scores]
    if value == 1:
        return -math.log(max(chances))
    terms = [-math.log(p if value >> c & 1 else 1 - p) for c, p in enumerate(chances, 1)]
    return sum(terms) / 7


def loss_by_loops(logits, mask, annotation, weights):
    batch, height, width = mask.shape
    total = 0.0
    for b in range(batch):
        if annotation[b] == NONE:
            continue
        planes = [upsampled(plane, height, width) for plane in logits[b].tolist()]
        for y in range(height):
            for x in range(width):
                value = int(mask[b, y, x]) if annotation[b] == MASK else 0
                heaviest = max(float(weights[c]) for c in classes_of(value))
                weight = float(weights[8]) if value == 1 else heaviest
                total += weight * pixel_loss([plane[y][x] for plane in planes], value)
    return total / (batch * height * width)


def example(channels=8, batch=3, grid=(2, 3), size=(5, 7), seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(batch, channels, *grid, generator=generator, dtype=dtype)
    picks = torch.randint(len(VALUES), (batch, *size), generator=generator)
    mask = torch.tensor(VALUES, dtype=torch.uint8)[picks]
    annotation = torch.randint(3, (batch,), generator=generator)
    weights = 0.1 + 3 * torch.rand(9, generator=generator, dtype=dtype)
    return logits, mask, annotation, weights


@settings(deadline=None, max_examples=60)
@given(
    channels=st.sampled_from([7, 8]),
    batch=st.integers(1, 3),
    grid=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    seed=st.integers(0, 10**6),
)
def test_equals_loops(channels, batch, grid, size, seed):
    logits, mask, annotation, weights = example(channels, batch, grid, size, seed)
    got = segmentation_loss(logits, mask, annotation, weights)
    assert got.dtype == torch.float64
    expected = loss_by_loops(logits, mask, annotation.tolist(), weights)
    assert math.isclose(got.item(), expected, rel_tol=1e-10, abs_tol=1e-13)


@pytest.mark.parametrize("value", range(256))
def test_every_bit_field_value(value):
    """Nine weights that differ: a wrong set or a wrong weight shows in each value."""
    weights = torch.tensor([0.3, 1, 5, 2, 8, 3, 7, 4, 6], dtype=torch.float64)
    mask = torch.full((1, 1, 1), value, dtype=torch.uint8)
    for channels in (7, 8):
        logits = torch.linspace(-2, 3, channels, dtype=torch.float64).sin().view(1, -1, 1, 1)
        got = segmentation_loss(logits, mask, torch.tensor([MASK]), weights)
        expected = loss_by_loops(logits, mask, [MASK], weights)
        assert got.item() == pytest.approx(expected, rel=1e-12)


def test_is_the_weighted_cross_entropy_of_torch_where_categories_do_not_overlap():
    generator = torch.Generator().manual_seed(1)
    classes = torch.randint(8, (4, 12, 9), generator=generator)
    mask = torch.where(classes == 0, 0, 1 << classes).to(torch.uint8)
    logits = torch.randn(4, 8, 3, 3, generator=generator)
    weights = 0.2 + torch.rand(9, generator=generator)
    mine, theirs = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    got = segmentation_loss(mine, mask, torch.full((4,), MASK), weights)
    full = F.interpolate(theirs, (12, 9), mode="bilinear", align_corners=False)
    expected = F.cross_entropy(full, classes, weight=weights[:8], reduction="none").mean()
    torch.testing.assert_close(got, expected)
    got.backward(), expected.backward()
    torch.testing.assert_close(mine.grad, theirs.grad)


def test_sigmoids_are_the_binary_cross_entropy_of_torch_where_categories_are_named():
    generator = torch.Generator().manual_seed(2)
    bits = torch.randint(2, (2, 7, 6, 6), generator=generator)
    mask = sum(bits[:, c - 1] << c for c in range(1, 8)).to(torch.uint8)
    logits = torch.randn(2, 7, 6, 6, generator=generator)
    got = segmentation_loss(logits, mask, torch.full((2,), MASK), torch.ones(9))
    expected = F.binary_cross_entropy_with_logits(logits, bits.float())
    torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("channels", [7, 8])
def test_annotation_states(channels):
    logits, mask, _, weights = example(channels, batch=3)
    states = torch.tensor([NONE, CLEAN, MASK])
    got = segmentation_loss(logits, mask, states, weights)
    other = logits.clone()
    other[0] = torch.nan  # nothing of an unannotated image may count
    assert segmentation_loss(other, mask, states, weights) == got
    other_mask = mask.clone()
    other_mask[:2] = 0  # a clean image is background, whatever its mask holds
    assert segmentation_loss(logits, other_mask, states, weights) == got
    other_mask[2] = 0
    assert segmentation_loss(logits, other_mask, states, weights) != got
    assert segmentation_loss(logits, mask, torch.tensor([NONE, NONE, MASK]), weights) < got


@pytest.mark.parametrize("channels", [7, 8])
def test_nothing_annotated_is_a_zero_with_a_graph(channels):
    logits, mask, _, weights = example(channels, dtype=torch.float32)
    logits = logits.bfloat16().requires_grad_()
    loss = segmentation_loss(logits, mask, torch.zeros(3, dtype=torch.int64), weights)
    assert (loss.item(), loss.dtype, loss.shape) == (0.0, torch.float32, ())
    loss.backward()
    assert logits.grad is not None
    assert not logits.grad.any()


@pytest.mark.parametrize("channels", [7, 8])
def test_mean_over_processes_is_the_joint_batch(channels):
    logits, mask, _, weights = example(channels, batch=8)
    states = torch.tensor([MASK, NONE, CLEAN, NONE, MASK, NONE, NONE, NONE])
    joint = segmentation_loss(logits, mask, states, weights)
    parts = [
        segmentation_loss(logits[rank::2], mask[rank::2], states[rank::2], weights)
        for rank in (0, 1)
    ]
    torch.testing.assert_close(sum(parts) / 2, joint, rtol=1e-12, atol=0)


@pytest.mark.parametrize("channels", [7, 8])
def test_gradient(channels):
    logits, mask, _, weights = example(channels, batch=3, grid=(2, 2), size=(3, 4), seed=5)
    mask[2, 0, 0] = 1
    states = torch.tensor([NONE, CLEAN, MASK])
    logits.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: segmentation_loss(x, mask, states, weights), logits)
    segmentation_loss(logits, mask, states, weights).backward()
    assert not logits.grad[0].any()
    assert logits.grad[1:].any(dim=(1, 2, 3)).all()


@pytest.mark.parametrize("channels", [7, 8])
def test_extreme_logits_stay_finite(channels):
    """Every value against logits of +-500: the loss is large, not infinite."""
    mask = torch.arange(256, dtype=torch.uint8).view(1, 16, 16)
    for sign in (1, -1):
        signs = torch.tensor([sign * (-1) ** c for c in range(channels)])
        logits = (500.0 * signs).view(1, -1, 1, 1).requires_grad_()
        loss = segmentation_loss(logits, mask, torch.tensor([MASK]), torch.ones(9))
        loss.backward()
        assert loss.isfinite()
        assert logits.grad.isfinite().all()


def test_half_precision_is_measured_in_float32_also_under_autocast():
    logits, mask, _, weights = example(batch=3, dtype=torch.float32)
    states = torch.full((3,), MASK)
    coarse = logits.bfloat16()
    expected = loss_by_loops(coarse.double(), mask, states.tolist(), weights)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = segmentation_loss(coarse, mask, states, weights)
    assert got.dtype == torch.float32
    assert got.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("logits", "mask", "annotation", "weights"),
    [
        ((2, 6, 3, 3), (2, 6, 6), (2,), (9,)),
        ((2, 8, 3), (2, 6, 6), (2,), (9,)),
        ((2, 8, 3, 3), (3, 6, 6), (2,), (9,)),
        ((2, 8, 3, 3), (2, 1, 6, 6), (2,), (9,)),
        ((2, 8, 3, 3), (2, 6, 6), (3,), (9,)),
        ((2, 8, 3, 3), (2, 6, 6), (), (9,)),
        ((2, 8, 3, 3), (2, 6, 6), (2,), (8,)),
    ],
)
def test_shapes_that_do_not_match_are_refused(logits, mask, annotation, weights):
    maps = torch.zeros(logits), torch.zeros(mask, dtype=torch.uint8)
    with pytest.raises(ValueError, match="9 class weights, got"):
        segmentation_loss(*maps, torch.ones(annotation), torch.ones(weights))


def test_wrong_types_and_empty_batches_are_refused():
    weights = torch.ones(9)
    whole = torch.zeros(1, 2, 2).long()
    with pytest.raises(ValueError, match=r"uint8 bit field, not torch\.int64"):
        segmentation_loss(torch.zeros(1, 8, 2, 2), whole, torch.ones(1), weights)
    empty = torch.zeros(0, 2, 2, dtype=torch.uint8)
    with pytest.raises(ValueError, match="empty"):
        segmentation_loss(torch.zeros(0, 8, 2, 2), empty, torch.ones(0), weights)
