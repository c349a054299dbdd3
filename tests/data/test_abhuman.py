"""Masks and boxes of defects to soft heatmaps and a manifest."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from annotated_files import load_manifest, picture, png, spot
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from artifactnet.data.converters import abhuman
from artifactnet.data.converters.coco_boxes import draw_boxes
from artifactnet.types import Annotation, ArtifactNetError

SIZE = (20, 30)


def samples(path: Path) -> dict:
    """Sample by file stem; splits are drawn, so all are looked at."""
    return {
        Path(record.location).stem: source.load(index)
        for source in load_manifest(path).values()
        for index, record in enumerate(source.records)
    }


def images(root: Path) -> Path:
    for name in "abcd":
        picture(root / "images" / f"{name}.jpg", SIZE)
    return root / "images"


def boxes(root: Path, **changes) -> Path:
    data = {
        "images": [
            {"id": 1, "file_name": "a.jpg", "width": 30, "height": 20},
            {"id": 2, "file_name": "b.jpg"},
            {"id": 3, "file_name": "missing.jpg"},
        ],
        "annotations": [
            {"image_id": 1, "bbox": [4, 6, 10, 5], "category_id": 7},
            {"image_id": 1, "bbox": [25.0, -3, 9, 8.0]},
        ],
    }
    path = root / "boxes.json"
    path.write_text(json.dumps({**data, **changes}))
    return path


def test_masks(tmp_path):
    folder = images(tmp_path)
    masks = tmp_path / "masks"
    masks.mkdir()
    (masks / "a.png").write_bytes(png(np.where(spot(SIZE), 255, 0)))
    (masks / "b.png").write_bytes(png(np.zeros(SIZE)))
    (masks / "z.png").write_bytes(png(np.zeros(SIZE)))
    result = abhuman.convert_abhuman(masks, folder, tmp_path / "out")
    assert result.counts == {
        **{"images": 4, "fake": 4, "not annotated": 2, "clean": 1, "without a split": 4},
        **{"with a heatmap": 1, "with a mask": 1},
    }
    assert f"1 masks have no image in {folder}, e.g. z.png" in result.warnings[0]
    assert "2 images have no mask: not annotated, e.g. " in result.warnings[1]
    loaded = samples(result.manifest)
    assert (loaded["a"].mask == (spot(SIZE) > 0)).all()
    assert loaded["a"].record.generator == "abhuman"
    assert loaded["a"].heatmap[5:7, 8:10].min() > 0.9
    assert 0 < loaded["a"].heatmap[4, 5] < 0.5  # beside the region
    assert loaded["a"].heatmap[15, 25] == 0
    assert loaded["b"].record.annotation is Annotation.CLEAN
    assert loaded["c"].record.annotation is Annotation.NONE
    assert {sample.score for sample in loaded.values()} == {None}
    # other data sets have images of these names too
    assert {sample.record.uid for sample in loaded.values()} == {f"abhuman/{k}" for k in "abcd"}


def test_boxes(tmp_path):
    result = abhuman.convert_abhuman(
        boxes(tmp_path), images(tmp_path), tmp_path / "out", generator="sdxl"
    )
    assert result.counts["images"] == 4
    assert "1 images are not in" in result.warnings[0]
    assert "2 images are not in" in result.warnings[1]
    loaded = samples(result.manifest)
    expected = np.zeros(SIZE, np.uint8)
    expected[6:11, 4:14] = 1
    expected[0:5, 25:30] = 1
    assert (loaded["a"].mask == expected).all()
    assert loaded["a"].record.generator == "sdxl"
    assert loaded["a"].heatmap[8, 9] > 0.95
    assert loaded["b"].record.annotation is Annotation.CLEAN
    assert loaded["d"].record.annotation is Annotation.NONE


BOX = st.tuples(
    st.floats(-5, 29.9), st.floats(-5, 19.9), st.floats(0.01, 30), st.floats(0.01, 30)
).filter(lambda box: box[0] + box[2] > 0 and box[1] + box[3] > 0)


@given(st.lists(BOX, min_size=1, max_size=3))
def test_boxes_cover_the_pixels_that_lie_in_them_by_half(drawn):
    mask = draw_boxes(drawn, SIZE, "here")
    certain, possible = np.zeros(SIZE, bool), np.zeros(SIZE, bool)
    for x, y, width, height in drawn:
        for row in range(SIZE[0]):
            for column in range(SIZE[1]):
                inside_x = min(x + width, column + 1) - max(x, column)
                inside_y = min(y + height, row + 1) - max(y, row)
                certain[row, column] |= inside_x > 0.5 and inside_y > 0.5
                possible[row, column] |= inside_x > 0 and inside_y > 0
    assert mask.any()
    assert not (certain & (mask == 0)).any()
    assert not (~_grown(possible) & (mask == 1)).any()


def _grown(region: np.ndarray) -> np.ndarray:
    padded = np.pad(region, 1)
    shifts = [np.roll(padded, (i, j), (0, 1)) for i in (-1, 0, 1) for j in (-1, 0, 1)]
    return np.logical_or.reduce(shifts)[1:-1, 1:-1]


BAD = {
    "must hold the lists 'images'": {"images": None},
    "annotations[0]: 'bbox' must be [x, y": {"annotations": [{"image_id": 1, "bbox": [1, 2, 3]}]},
    "annotations[0]: 'bbox' must be": {"annotations": [{"image_id": 1, "bbox": [1, 2, 3, 0]}]},
    "annotations[0]: 'bbox'": {"annotations": [{"image_id": 1, "bbox": [1, 2, 3, float("nan")]}]},
    "annotations[0]: 'image_id' must be int or str": {"annotations": [{"bbox": [1, 2, 3, 4]}]},
    "image_id 9, no image has": {"annotations": [{"image_id": 9, "bbox": [1, 2, 3, 4]}]},
    "images[0]: box [30.0, 2.0, 3.0, 4.0] lies outside the 30x20 image": {
        "annotations": [{"image_id": 1, "bbox": [30, 2, 3, 4]}]
    },
    "images[1]: id 1 occurs twice": {
        "images": [{"id": 1, "file_name": "a.jpg"}, {"id": 1, "file_name": "b.jpg"}]
    },
    "images[0]: 'file_name' must be str": {"images": [{"id": 1}]},
    "images[0]: 'width' must be int": {"images": [{"id": 1, "file_name": "a.jpg", "height": 20}]},
    "its boxes are for 20x30": {
        "images": [{"id": 1, "file_name": "a.jpg", "height": 30, "width": 20}]
    },
    "a.jpg is annotated twice": {
        "images": [{"id": 1, "file_name": "a.jpg"}, {"id": 2, "file_name": "./a.jpg"}]
    },
}


@pytest.mark.parametrize("message", BAD)
def test_bad_boxes_are_named(tmp_path, message):
    path = boxes(tmp_path, **BAD[message])
    with pytest.raises(ArtifactNetError) as caught:
        abhuman.convert_abhuman(path, images(tmp_path), tmp_path / "out")
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)


def test_images_that_exif_turns(tmp_path):
    """A mask is of the image as it is shown; of boxes nobody knows."""
    folder = images(tmp_path)
    exif = Image.Exif()
    exif[0x0112] = 6
    for path in (folder / "a.jpg", folder / "b.jpg"):
        with Image.open(path) as image:
            image.save(path, exif=exif)
    masks = tmp_path / "masks"
    masks.mkdir()
    (masks / "a.png").write_bytes(png(np.where(spot(SIZE), 255, 0).T))
    (masks / "b.png").write_bytes(png(np.where(spot(SIZE), 255, 0)))
    with pytest.raises(ArtifactNetError, match=r"b\.png.*30x20.*20x30"):
        abhuman.convert_abhuman(masks, folder, tmp_path / "out")
    (masks / "b.png").unlink()
    abhuman.convert_abhuman(masks, folder, tmp_path / "out")
    assert np.array_equal(samples(tmp_path / "out")["a"].mask > 0, spot(SIZE).T > 0)
    result = abhuman.convert_abhuman(boxes(tmp_path), folder, tmp_path / "other")
    loaded = samples(tmp_path / "other")
    assert loaded["a"].record.annotation is loaded["b"].record.annotation is Annotation.NONE
    assert any("2 images are turned by EXIF" in text for text in result.warnings)


def test_images_that_differ_in_suffix_have_maps_of_their_own(tmp_path):
    folder = images(tmp_path)
    picture(folder / "a.png", (30, 20))
    listed = [{"id": 1, "file_name": "a.jpg"}, {"id": 2, "file_name": "a.png"}]
    drawn = [{"image_id": 1, "bbox": [4, 6, 10, 5]}, {"image_id": 2, "bbox": [1, 2, 3, 4]}]
    path = boxes(tmp_path, images=listed, annotations=drawn)
    result = abhuman.convert_abhuman(path, folder, tmp_path / "out")
    rows = [json.loads(line) for line in result.manifest.read_text().splitlines()][:2]
    assert [row["mask"] for row in rows] == [f"masks/abhuman/a.{s}.png" for s in ("jpg", "png")]
    assert {row["uid"] for row in rows} == {"abhuman/a"}  # likely one picture: one split
    areas = [(cv2.imread(str(tmp_path / "out" / row["mask"]), -1) > 0).sum() for row in rows]
    assert areas == [50, 12]
    picture(folder / "a.png.jpg", SIZE)  # its map would have the name of the other's
    listed.append({"id": 3, "file_name": "a.png.jpg"})
    drawn.append({"image_id": 3, "bbox": [4, 6, 8, 5]})
    path = boxes(tmp_path, images=listed, annotations=drawn)
    with pytest.raises(ArtifactNetError, match=r"a.png.jpg: its map .* that of .*/a.png; rename"):
        abhuman.convert_abhuman(path, folder, tmp_path / "clash")


def test_bad_masks_are_named(tmp_path):
    folder, masks = images(tmp_path), tmp_path / "masks"
    masks.mkdir()

    def refused(source: Path, message: str) -> None:
        with pytest.raises(ArtifactNetError, match=message):
            abhuman.convert_abhuman(source, folder, tmp_path / "out")

    for content, message in (
        (png(np.zeros((30, 20))), "its mask .*a.png is 20x30, the image 30x20"),
        (
            png(np.arange(SIZE[0] * SIZE[1]).reshape(SIZE) // 200 * 60),
            "a.png: 3 levels .0, 60, 120",
        ),
        (png(np.random.default_rng(0).integers(0, 255, SIZE))[:90], "a.png: "),
    ):
        (masks / "a.png").write_bytes(content)
        refused(masks, message)
    refused(folder, "lie inside the folder of images")
    refused(tmp_path / "none", "no such folder of masks, nor JSON")
    (masks / "y").mkdir()
    for place in ("", "y"):
        (masks / place / "a.png").write_bytes(png(np.zeros(SIZE)))
    refused(masks, r"y/a.png: .*a.jpg is annotated twice")
    (tmp_path / "boxes.json").write_text('{"images": [')
    refused(tmp_path / "boxes.json", r"boxes.json: not readable as JSON")
    assert not list((tmp_path / "out").glob("*.jsonl"))
