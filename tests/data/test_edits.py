"""Controlled edits: exact masks, visible changes, determinism, bad input."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from artifactnet.data.sources import demo
from artifactnet.data.synthetic import edits
from artifactnet.data.synthetic.edits import blend, low_level, regions
from artifactnet.taxonomy import BY_LABEL, CATEGORIES
from artifactnet.types import ArtifactNetError

CASES = [(category, k) for category in CATEGORIES for k in range(6)]


def crop(number: int, size: int = 160) -> np.ndarray:
    """A photograph's centre square; ``number`` walks through all of them."""
    photo = demo.read_photo(demo.CLASSIC[number % len(demo.CLASSIC)])
    side = min(photo.shape[:2])
    top, left = (photo.shape[0] - side) // 2, (photo.shape[1] - side) // 2
    square = photo[top : top + side, left : left + side]
    return cv2.resize(square, (size, size), interpolation=cv2.INTER_AREA)


def dilate_by_loop(mask: np.ndarray, margin: int) -> np.ndarray:
    """Reference: every pixel within ``margin`` rows and columns of a set one."""
    grown = np.zeros_like(mask)
    for y, x in zip(*np.nonzero(mask), strict=True):
        grown[max(0, y - margin) : y + margin + 1, max(0, x - margin) : x + margin + 1] = True
    return grown


def changed(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    return np.abs(before.astype(int) - after.astype(int)).max(axis=2)


@pytest.mark.parametrize(("category", "number"), CASES, ids=lambda v: getattr(v, "label", v))
def test_the_mask_is_exactly_what_changed(category, number):
    before = crop(3 * number + category.index)
    kept = before.copy()
    rng = np.random.default_rng([category.index, number])
    after, mask = edits.apply_edit(before, category, rng, 0.75)
    assert (before == kept).all(), "the input was modified"
    assert after.shape == before.shape
    assert after.dtype == mask.dtype == np.uint8
    assert set(np.unique(mask)) == {0, category.bit}
    inside = mask > 0
    assert 0.015 <= inside.mean() <= 0.25
    difference = changed(before, after)
    assert difference[~dilate_by_loop(inside, blend.MARGIN)].max() == 0
    assert difference[~inside].max() <= 6
    assert (difference[inside] > 6).mean() > 0.25, "the mask is mostly unchanged pixels"


@pytest.mark.parametrize("category", CATEGORIES, ids=lambda c: c.label)
def test_edits_are_visible(category):
    strengths = []
    for number in range(12):
        before = crop(number, 128)
        severity = 0.5 + number / 24
        after, mask = edits.apply_edit(before, category, np.random.default_rng(number), severity)
        strengths.append(np.abs(before.astype(float) - after)[mask > 0].mean())
    assert min(strengths) > 8
    assert np.median(strengths) > 20


@pytest.mark.parametrize("category", CATEGORIES, ids=lambda c: c.label)
def test_every_variant_works_on_every_photograph(category):
    for variant in edits.VARIANTS[category.index]:
        seen = 0
        for number in range(len(demo.CLASSIC)):
            before = crop(number, 96)
            proposal = variant(before, np.random.default_rng(number), 1.0)
            assert proposal.edited.shape == before.shape
            assert (proposal.edited.dtype, proposal.alpha.dtype) == (np.uint8, np.float32)
            assert 0 <= proposal.alpha.min() <= proposal.alpha.max() <= 1 + 1e-6
            change = blend.compose(before, proposal)
            seen += change.strength > 10
        assert seen > len(demo.CLASSIC) / 3, f"{variant.__name__} is seldom visible"


def test_same_rng_same_edit_and_another_seed_another():
    before = crop(0)
    before.setflags(write=False)
    for category in CATEGORIES:
        first = edits.apply_edit(before, category, np.random.default_rng(5), 0.8)
        again = edits.apply_edit(before, category, np.random.default_rng(5), 0.8)
        other = edits.apply_edit(before, category, np.random.default_rng(6), 0.8)
        assert (first[0] == again[0]).all()
        assert (first[1] == again[1]).all()
        assert (first[1] != other[1]).any()


def test_severity_makes_edits_stronger():
    def strength(severity: float) -> float:
        values = []
        for number in range(12):
            before = crop(number)
            proposal = low_level.blotch(before, np.random.default_rng(number), severity)
            values.append(blend.compose(before, proposal).strength)
        return float(np.mean(values))

    assert strength(1.0) > 1.3 * strength(0.2)


@settings(max_examples=40, deadline=None)
@given(
    height=st.integers(32, 150),
    width=st.integers(32, 150),
    seed=st.integers(0, 2**32 - 1),
    severity=st.floats(0, 1),
    index=st.integers(0, 6),
)
def test_any_shape_of_noise_is_edited(height, width, seed, severity, index):
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
    before = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    after, mask = edits.apply_edit(before, CATEGORIES[index], rng, severity)
    inside = mask > 0
    assert inside.any()
    near = cv2.dilate(inside.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    assert (before[~near] == after[~near]).all()


@pytest.mark.parametrize("value", [0, 128, 255])
def test_flat_surfaces_are_edited_where_that_can_be_seen_and_refused_elsewhere(value):
    flat = np.full((96, 96, 3), value, np.uint8)
    for label in ("low-level-color", "low-level-symbol", "low-level-texture"):
        after, mask = edits.apply_edit(flat, BY_LABEL[label], np.random.default_rng(0), 0.7)
        assert (changed(flat, after)[mask > 0] > 6).any()
    with pytest.raises(ArtifactNetError, match=r"low-level-edge_shape.*too little detail"):
        edits.apply_edit(flat, BY_LABEL["low-level-edge_shape"], np.random.default_rng(0), 1.0)


@pytest.mark.parametrize(
    ("image", "severity", "message"),
    [
        (np.zeros((96, 96), np.uint8), 0.5, r"\(H, W, 3\) uint8"),
        (np.zeros((96, 96, 3), np.float32), 0.5, "float32"),
        (np.zeros((96, 20, 3), np.uint8), 0.5, "at least 32 pixels, got 20x96"),
        (np.zeros((96, 96, 3), np.uint8), 1.5, r"severity must lie in \[0, 1\]"),
        (np.zeros((96, 96, 3), np.uint8), float("nan"), "severity"),
    ],
)
def test_impossible_input(image, severity, message):
    with pytest.raises(ArtifactNetError, match=message):
        edits.apply_edit(image, CATEGORIES[0], np.random.default_rng(0), severity)


def test_edit_joins_its_masks():
    before = crop(2)
    for number in range(10):
        rng = np.random.default_rng(number)
        chosen = edits.choose_categories(rng)
        after, mask = edits.edit_photo(before, rng, chosen)
        assert int(np.bitwise_or.reduce(mask.ravel())) == sum(c.bit for c in chosen)
        outside = ~dilate_by_loop(mask > 0, blend.MARGIN)
        assert changed(before, after)[outside].max() == 0


def test_categories_are_chosen_evenly_and_parsed():
    rng = np.random.default_rng(0)
    draws = [edits.choose_categories(rng) for _ in range(600)]
    assert {len(draw) for draw in draws} == {1, 2, 3}
    assert all(len(set(draw)) == len(draw) for draw in draws)
    counts = np.array([sum(c in draw for draw in draws) for c in CATEGORIES])
    assert counts.min() > 0.7 * counts.mean()
    two = CATEGORIES[:2]
    assert {c for _ in range(50) for c in edits.choose_categories(rng, two)} == set(two)
    assert all(len(edits.choose_categories(rng, two, most=1)) == 1 for _ in range(20))
    assert edits.parse_categories([], "key") == CATEGORIES
    chosen = edits.parse_categories(["high-level-semantics", "low-level-color"], "key")
    assert [c.index for c in chosen] == [4, 5]
    with pytest.raises(ArtifactNetError, match=r"data\.demo_categories: unknown 'colour'; known:"):
        edits.parse_categories(["colour"], "data.demo_categories")


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), share=st.floats(0.04, 0.16), tall=st.booleans())
def test_a_blob_has_the_given_share_and_lies_inside(seed, share, tall):
    image = np.zeros((200, 160, 3) if tall else (160, 200, 3), np.uint8)
    region = regions.blob(image, np.random.default_rng(seed), share=share)
    assert region.mean() == pytest.approx(share, rel=0.12)
    count, _ = cv2.connectedComponents(region.astype(np.uint8))
    assert count == 2, "one connected region"
    curve = np.array([(-20.0, -10.0), (20.0, -10.0), (20.0, 10.0), (-20.0, 10.0)])
    moved = regions.place(curve, (0.0, 99.0), (100, 100))  # from the corner
    assert regions.bounds(moved) == (79, 100, 0, 41)


def test_compose_takes_weak_and_tiny_changes_back_and_closes_gaps():
    before = np.full((64, 64, 3), 100, np.uint8)
    edited = before.copy()
    edited[10:30, 10:30] = 200  # kept
    edited[40:60, 40:60] = 104  # too weak to see
    edited[5, 60] = 255  # a speck
    edited[8, 20] = 255  # a speck beside the change: not a part of it
    change = blend.compose(before, blend.Proposal(edited, np.ones((64, 64), np.float32), gap=1))
    expected = np.zeros((64, 64), bool)
    expected[10:30, 10:30] = True
    assert (change.mask == expected).all()
    assert change.strength == 100.0
    assert (change.image[~expected] == 100).all()
    before = np.zeros((192, 192, 3), np.uint8)
    edited = before.copy()
    edited[50:90:4, 50:120] = 255
    change = blend.compose(before, blend.Proposal(edited, np.ones((192, 192), np.float32)))
    assert change.mask[52:84, 54:116].all()
