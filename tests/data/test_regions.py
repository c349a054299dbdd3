"""Regions and tags: their form, their bounds, what they are in a manifest, and as masks."""

import csv
import io
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from annotated_files import load_manifest, picture, png, spot
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from artifactnet.data import manifest_format
from artifactnet.data.manifest_format import ManifestLine
from artifactnet.data.regions import clip_region, draw_corners, parse_tags
from artifactnet.data.sources.manifest import merge_lines
from artifactnet.taxonomy import TAG_ALIASES, TAGS
from artifactnet.training.trainer import train_detector
from artifactnet.types import Annotation, ArtifactNetError, Region

FAKE = {"image": "a.png", "uid": "a", "label": 1, "annotation": "mask", "split": "test"}
LOSS = "train/alignment_epoch"
HAND = {"bbox": [4, 2.5, 12, 7], "caption": "hand with six fingers"}


def write(root: Path, *rows: dict) -> Path:
    path = root / "data.jsonl"
    path.write_text("".join(json.dumps({**FAKE, **row}) + "\n" for row in rows))
    return path


def load(path: Path):
    (source,) = load_manifest(path).values()
    return source.load(0)


def test_regions_and_tags_are_loaded_and_the_boxes_are_the_mask(tmp_path):
    picture(tmp_path / "a.png", (16, 20))
    other = {"bbox": [19.2, 15.4, 20, 16], "caption": "corner, torn"}
    sample = load(write(tmp_path, {"regions": [HAND, other], "tags": ["texture errors"]}))
    assert sample.record.annotation is Annotation.MASK
    assert sample.regions == (
        Region((4.0, 2.5, 12.0, 7.0), "hand with six fingers"),
        Region((19.2, 15.4, 20.0, 16.0), "corner, torn"),
    )
    assert sample.tags == ("wrong texture",)
    expected = np.zeros((16, 20), np.uint8)
    expected[3:7, 4:12] = 1
    expected[15, 19] = 1
    assert sample.mask.dtype == np.uint8
    assert (sample.mask == expected).all()
    assert sample.heatmap is None


def test_a_mask_or_heatmap_counts_more_than_boxes(tmp_path):
    picture(tmp_path / "a.png")
    (tmp_path / "m.png").write_bytes(png(spot(value=0b100)))
    (tmp_path / "h.png").write_bytes(png(spot()))
    for kind, value in (("mask", 0b100), ("heatmap", 1)):
        sample = load(write(tmp_path, {"regions": [HAND], kind: f"{kind[0]}.png"}))
        assert (sample.mask == (spot() > 0) * value).all()
        assert len(sample.regions) == 1


def test_none_found_is_not_the_same_as_not_looked_at(tmp_path):
    picture(tmp_path / "a.png")
    clean = load(write(tmp_path, {"annotation": "clean", "regions": [], "tags": []}))
    assert (clean.regions, clean.tags, clean.mask) == ((), (), None)
    assert clean.record.annotation is Annotation.CLEAN
    silent = load(write(tmp_path, {"annotation": "none", "tags": ["artistic style"]}))
    assert (silent.regions, silent.tags) == (None, ("artistic style",))
    real = load(write(tmp_path, {"annotation": "clean", "label": 0, "regions": [], "tags": []}))
    assert real.record.label == 0


def region(box=(1, 2, 3, 4), caption="hand"):
    return {"regions": [HAND, {"bbox": list(box), "caption": caption}]}


BAD = {
    "'regions' must be a list": {"regions": {"bbox": [1, 2, 3, 4]}},
    "regions[0] must be an object with the keys 'bbox' and 'caption' alone": {"regions": ["hand"]},
    "regions[0] must be an object with": {"regions": [{"bbox": [1, 2, 3, 4]}]},
    "alone, not {'bbox'": {"regions": [{**HAND, "label": "hand"}]},
    "regions[1]: 'bbox' must be [x1, y1, x2, y2], four finite": region([1, 2, 3]),
    "pixels, not [1, 2, 3, nan]": region([1, 2, 3, math.nan]),
    "pixels, not [1, 2, inf, 4]": region([1, 2, math.inf, 4]),
    "pixels, not [True, 2, 3, 4]": region([True, 2, 3, 4]),
    "pixels, not ['1', 2, 3, 4]": region(["1", 2, 3, 4]),
    "x2 and 0 <= y1 < y2, it is [3, 2, 3, 4]": region([3, 2, 3, 4]),
    "it is [1, 4, 3, 2]": region([1, 4, 3, 2]),
    "it is [-0.5, 2, 3, 4]": region([-0.5, 2, 3, 4]),
    "regions[1]: 'caption' must be text that is not blank, not ' '": region(caption=" "),
    "regions[1]: 'caption' must be text that is not blank, not 3": region(caption=3),
    "'caption' must not hold <think>": region(caption="a <think> b"),
    "must not hold </tag>": region(caption="</TAG>"),
    "must not hold <verdict>": region(caption="<verdict>real"),
    "'caption' is no Unicode text": region(caption="a\ud800"),
    "'tags' must be a list of tags, not 'wrong texture'": {**region(), "tags": "wrong texture"},
    "'tags': unknown tag 'bad hands'; known: structure/": {**region(), "tags": ["bad hands"]},
    "'tags': unknown tag 3": {**region(), "tags": [3]},
    "'tags': unknown tag ['a']": {**region(), "tags": [["a"]]},
    "the tag 'wrong texture' is named twice": {
        **region(),
        "tags": ["wrong texture", "texture errors"],
    },
    "'annotation' is 'clean', but a heatmap, mask or region": {**region(), "annotation": "clean"},
    "'annotation' is 'mask', but neither": {"regions": []},
    "'regions' is empty, which means that none were found": {"regions": [], "annotation": "none"},
    "'regions' of a real image": {**region(), "label": 0},
    "'tags' of a real image": {"tags": ["artistic style"], "label": 0, "annotation": "clean"},
}


@pytest.mark.parametrize("message", BAD)
def test_a_bad_line_is_named(tmp_path, message):
    path = write(tmp_path, {"annotation": "none"}, BAD[message])
    with pytest.raises(ArtifactNetError) as caught:
        manifest_format.read_manifest(path)
    assert str(caught.value).startswith(f"{path}:2: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("box", [[1, 2, 20.1, 4], [1, 2, 3, 16.00001], [21, 2, 24, 4]])
def test_a_box_that_leaves_its_image_is_named_when_it_is_loaded(tmp_path, box):
    picture(tmp_path / "a.png", (16, 20))
    path = write(tmp_path, region(box))
    expected = r"data.jsonl:1: .*a.png: regions\[1\]: bbox .* reaches out of the 20x16 image"
    with pytest.raises(ArtifactNetError, match=expected):
        load(path)


def test_bounds():
    size = 16, 20
    nearly = Region((-1e-13, -1e-7, 20 + 1e-13, 16 + 1e-7), "all")
    assert clip_region(nearly, size, "x").bbox == (0, 0, 20, 16)
    inside = Region((0.5, 1, 19.25, 16), "all")
    assert clip_region(inside, size, "x") == inside
    with pytest.raises(ArtifactNetError, match="x: bbox .* is empty within the 20x16 image"):
        clip_region(Region((20, 1, 20 + 1e-7, 2), "edge"), size, "x")


def test_tags_have_one_name_each():
    assert parse_tags(list(TAGS), "x") == TAGS
    for alias, name in TAG_ALIASES.items():
        assert parse_tags([alias], "x") == (name,)


def sixteenths(low, high):
    return st.integers(16 * low, 16 * high).map(lambda value: value / 16)


CORNERS = st.tuples(*(sixteenths(*limits) for limits in ((0, 19), (0, 15), (1, 20), (1, 16))))


@given(st.lists(CORNERS, max_size=4))
def test_the_mask_is_the_pixels_whose_centre_is_in_a_box(drawn):
    boxes = [(x, y, min(20.0, x + w), min(16.0, y + h)) for x, y, w, h in drawn]
    expected = np.zeros((16, 20), np.uint8)
    for x1, y1, x2, y2 in boxes:
        for row in range(16):
            for column in range(20):
                wide = min(x2, column + 1) - max(x1, column)
                high = min(y2, row + 1) - max(y1, row)
                centre = x1 < column + 0.5 <= x2 and y1 < row + 0.5 <= y2
                assert centre or min(wide, high) <= 0.5
                expected[row, column] |= centre
    assert (draw_corners(boxes, (16, 20)) == expected).all()


TEXT = st.text(st.characters(codec="utf-8", exclude_characters="<"), min_size=1).filter(str.strip)
REGIONS = st.builds(
    lambda x, y, w, h, caption: Region((x, y, x + w + 1, y + h + 1), caption),
    *[st.floats(0, 1e6)] * 4,
    TEXT,
)


@given(
    st.none() | st.lists(REGIONS, max_size=3).map(tuple),
    st.none() | st.lists(st.sampled_from(TAGS), unique=True).map(tuple),
)
def test_what_is_written_is_read_back(tmp_path_factory, regions, tags):
    path = tmp_path_factory.getbasetemp() / "regions.jsonl"
    state = Annotation.MASK if regions else Annotation.CLEAN
    line = ManifestLine("a.png", "a", 1, state, regions=regions, tags=tags)
    line = replace(line, image=str(path.parent / "a.png"))
    manifest_format.write_manifest(path, [line])
    assert manifest_format.read_manifest(path) == [line]


def test_what_could_not_be_read_is_not_written(tmp_path):
    bad = ManifestLine(
        "i/a.png", "a", 1, Annotation.MASK, regions=(Region((0.0, 0.0, math.nan, 1.0), "hand"),)
    )
    with pytest.raises(ArtifactNetError, match=r"^i/a\.png: regions\[0\]: 'bbox'"):
        manifest_format.write_manifest(tmp_path / "data.jsonl", [bad])
    assert list(tmp_path.iterdir()) == []


def test_lines_about_one_image_are_merged():
    hand, foot = Region((0.0, 0.0, 1.0, 1.0), "hand"), Region((2.0, 0.0, 3.0, 1.0), "foot")
    line = ManifestLine("a.png", "a", 1, Annotation.NONE, where="w")
    none_found = replace(line, annotation=Annotation.CLEAN, regions=(), tags=())
    boxes = replace(line, annotation=Annotation.MASK, regions=(hand, foot))
    turned = replace(boxes, regions=(foot, hand))
    tags = replace(line, tags=("wrong texture", "artistic style"))
    ((found,), warnings) = merge_lines([line, boxes, turned, tags], {"fake"})
    assert (found.annotation, found.regions, found.tags) == (
        Annotation.MASK, (hand, foot), ("wrong texture", "artistic style"),
    )  # fmt: skip
    assert warnings == []
    # artifacts before none, so that an image with artifacts is never without their places
    ((found,), (warning,)) = merge_lines([none_found, boxes, tags], {"fake"})
    assert (found.annotation, found.regions, len(found.tags)) == (Annotation.MASK, (hand, foot), 2)
    assert "(annotation, regions, tags)" in warning
    ((found,), _) = merge_lines([line, none_found], {"fake"})
    assert (found.annotation, found.regions, found.tags) == (Annotation.CLEAN, (), ())
    ((found,), (warning,)) = merge_lines([boxes, replace(boxes, regions=(foot,))], {"fake"})
    assert found.regions == (hand, foot)
    assert "(regions)" in warning


def boxed_manifest(root: Path, masks: bool) -> Path:
    """Real images and fakes with a box, or with the mask of that box; same pictures, same uids."""
    rows = []
    for k in range(12):
        split = ("train", "train", "val", "test")[k % 4]
        for label, kind in enumerate(("real", "fake")):
            name = f"{kind}{k}.png"
            pixels = np.random.default_rng([k, label]).integers(0, 256, (40, 48, 3))
            (root / name).write_bytes(png(pixels))
            row = {"image": name, "uid": f"{k}", "label": label, "split": split}
            rows.append({**row, "annotation": "mask" if label else "clean"})
        left, top = 2 * k, k + 0.75
        if masks:
            mask = np.zeros((40, 48))
            mask[k + 1 : k + 11, left : left + 20] = 1
            (root / f"mask{k}.png").write_bytes(png(mask))
            rows[-1]["mask"] = f"mask{k}.png"
        else:
            rows[-1]["regions"] = [{"bbox": [left, top, left + 20, top + 10], "caption": "hand"}]
    path = root / f"{'masks' if masks else 'boxes'}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_detector_is_aligned_with_boxes_as_with_their_masks(tmp_path, tiny):
    def trained(masks: bool) -> tuple[dict, float]:
        root = boxed_manifest(tmp_path, masks)
        name = f"name={root.stem}"
        data = ("data.name=manifest", f"data.root={root}", "data.batch_size=4")
        result = train_detector(tiny(name, *data, "train.epochs=1", "loss.alignment.weight=1.0"))
        rows = list(csv.DictReader(io.StringIO(
            (result.run_dir / "logs" / "version_0" / "metrics.csv").read_text()
        )))  # fmt: skip
        losses = [float(v) for row in rows for k, v in row.items() if v and k == LOSS]
        return load_file(result.run_dir / "last.safetensors"), losses[-1]

    (boxes, loss), (masks, other) = trained(False), trained(True)
    assert 0 < loss == other
    assert all(torch.equal(boxes[key], masks[key]) for key in masks)
