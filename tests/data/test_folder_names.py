"""What folder names mean, however they are spelled."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from artifactnet.data import folder_names

SPLITS = {
    "train": ["train", "training"],
    "val": ["val", "valid", "validation", "dev"],
    "test": ["test", "testing"],
}
CLASSES = {
    0: ["real", "0_real", "nature", "natural", "authentic", "genuine", "real images"],
    1: [
        "fake",
        "1_fake",
        "ai",
        "ai_generated",
        "AI-Generated",
        "generated",
        "synthetic",
        "AI images",
    ],
}
MASKS = [
    "mask",
    "masks",
    "gt",
    "GTs",
    "groundtruth",
    "ground_truth",
    "Ground Truth",
    "ground-truths",
]
spelling = st.sampled_from([str.lower, str.upper, str.title, str.swapcase, "{} ".format])


@given(spelling, st.sampled_from([(k, n) for k, names in SPLITS.items() for n in names]))
def test_splits_in_any_case(spell, split):
    meaning, name = split
    assert folder_names.split_of(spell(name)) == meaning
    assert folder_names.split_like(spell(name), typos=True) is None
    assert folder_names.label_of(spell(name)) is None


@given(spelling, st.sampled_from([(k, n) for k, names in CLASSES.items() for n in names]))
def test_classes_in_any_case(spell, known):
    label, name = known
    assert folder_names.label_of(spell(name)) == label
    assert folder_names.split_of(spell(name)) is None
    assert folder_names.mask_scope(spell(name)) is None
    explicit = "real" in name or "fake" in name
    assert folder_names.explicit_label_of(spell(name)) == (label if explicit else None)


@given(spelling, st.sampled_from(MASKS))
def test_masks_in_any_case(spell, name):
    assert folder_names.mask_scope(spell(name)) == ()
    assert folder_names.mask_scope(spell(f"{name}_png")) == ()
    assert folder_names.mask_scope(spell(f"fake_{name}")) == ("fake",)
    assert folder_names.mask_scope(spell(f"{name}-validation")) == ("val",)


@pytest.mark.parametrize(
    "name",
    ["sdxl", "maskgit", "aid", "realvis", "StyleGAN2", "naturalgan", "testament", "0", "masked"],
)
def test_generators_mean_nothing_else(name):
    assert folder_names.meaning_of(name) is None
    assert folder_names.mask_scope(name) is None
    assert folder_names.split_like(name) is None


@pytest.mark.parametrize(
    ("name", "split", "typo"),
    [
        ("train2017", "train", False),
        ("Test_set", "test", False),
        ("testset", "test", False),
        ("my-val-images", "val", False),
        ("holdout", "holdout", False),
        ("eval", "eval", False),
        ("tset", "test", True),
        ("validaton", "val", True),
        ("trian", "train", True),
    ],
)
def test_names_that_look_like_splits(name, split, typo):
    assert folder_names.split_of(name) is None
    assert folder_names.split_like(name, typos=True) == split
    assert folder_names.split_like(name) == (None if typo else split)


@pytest.mark.parametrize(
    ("mask", "image"),
    [
        ("7_mask", "7"),
        ("7-gt", "7"),
        ("mask_7", "7"),
        ("a.MASK", "a"),
        ("7_seg", "7"),
        ("ground_truth_7", "7"),
        ("cat-Segmentation", "cat"),
        ("7Mask", "7"),
        ("catlabel", "catlabel"),
        ("7", "7"),
        ("mask", "mask"),
    ],
)
def test_stems_of_masks(mask, image):
    assert folder_names.stem_of_mask(mask) == image
