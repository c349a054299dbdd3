"""Captioned boxes in COCO's form to a manifest."""

import json
from pathlib import Path

import numpy as np
import pytest
from annotated_files import load_manifest, picture
from PIL import Image

from artifactnet.data.converters.convert import convert_dataset
from artifactnet.data.manifest_format import read_manifest
from artifactnet.types import Annotation, ArtifactNetError, Region

SIZE = (20, 30)


def images(root: Path) -> Path:
    for name in "abcd":
        picture(root / "images" / f"{name}.jpg", SIZE)
    return root / "images"


def write(root: Path, **changes) -> Path:
    data = {
        "images": [
            {"id": 1, "file_name": "a.jpg", "width": 30, "height": 20, "tags": ["Texture errors"]},
            {"id": "two", "file_name": "b.jpg", "tags": []},
            {"id": 3, "file_name": "missing.jpg"},
            {"id": 4, "file_name": "c.jpg"},
        ],
        "annotations": [
            {"image_id": 1, "bbox": [4, 6, 10, 5], "category_id": 7},
            {
                "image_id": 1,
                "bbox": [25.5, 3, 4.5, 8],
                "caption": "sign, blurred",
                "category_id": 7,
            },
            {"image_id": 4, "bbox": [1, 2, 3, 4], "caption": "", "category_id": 7},
        ],
        "categories": [{"id": 7, "name": "hand"}],
    }
    path = root / "boxes.json"
    path.write_text(json.dumps({**data, **changes}))
    return path


def convert(root: Path, source: Path, **options):
    return convert_dataset("coco", source, root / "out", images=root / "images", **options)


def test_boxes_captions_and_tags(tmp_path):
    folder = images(tmp_path)
    result = convert(tmp_path, write(tmp_path), generator="sdxl")
    lines = {Path(line.image).stem: line for line in read_manifest(result.manifest)}
    assert set(lines) == set("abcd")
    first = lines["a"]
    assert (first.uid, first.label, first.generator) == ("coco/a", 1, "sdxl")
    assert first.regions == (
        Region((4.0, 6.0, 14.0, 11.0), "hand"),
        Region((25.5, 3.0, 30.0, 11.0), "sign, blurred"),
    )
    assert first.tags == ("wrong texture",)
    assert (lines["b"].annotation, lines["b"].regions, lines["b"].tags) == (
        Annotation.CLEAN,
        (),
        (),
    )
    assert (lines["c"].regions[0].caption, lines["c"].tags) == ("hand", None)
    assert (lines["d"].annotation, lines["d"].regions) == (Annotation.NONE, None)
    assert f"1 images are not in {folder}" in result.warnings[0]
    assert "1 images are not in" in result.warnings[1]
    assert "boxes.json: not annotated" in result.warnings[1]
    left = json.loads((tmp_path / "out" / "coco.left_out.json").read_text())
    assert [len(names) for names in left.values()] == [1, 1]
    masks = {}
    for source in load_manifest(result.manifest).values():
        for k, record in enumerate(source.records):
            masks[Path(record.location).stem] = source.load(k).mask
    expected = np.zeros(SIZE, np.uint8)
    expected[6:11, 4:14] = 1
    expected[3:11, 26:30] = 1
    assert (masks["a"] == expected).all()


ROW = {"image_id": 1, "bbox": [1, 2, 3, 4], "caption": "hand"}
BAD = {
    "annotations[0]: bbox [1.0, 2.0, 30.5, 4.0] reaches out of the 30x20": [
        {**ROW, "bbox": [1, 2, 29.5, 2]}
    ],
    "annotations[0]: bbox [-1.0, 2.0, 2.0, 6.0] reaches out": [{**ROW, "bbox": [-1, 2, 3, 4]}],
    "annotations[0]: 'bbox' must be [x, y, width, height]": [{**ROW, "bbox": [1, 2, 0, 4]}],
    "annotations[1]: 'caption' (or the name of its category) must be text that is not blank, not "
    "None": [ROW, {"image_id": 1, "bbox": [1, 2, 3, 4], "category_id": 8}],
    "annotations[0]: 'caption' (or the name of its category) must not hold <tag>": [
        {**ROW, "caption": "<tag>"}
    ],
    "annotations[0]: 'caption' (or the name of its category) must be text that is not blank, not "
    "3": [{**ROW, "caption": 3}],
}


@pytest.mark.parametrize("message", BAD)
def test_bad_boxes_are_named(tmp_path, message):
    images(tmp_path)
    path = write(tmp_path, annotations=BAD[message])
    with pytest.raises(ArtifactNetError) as caught:
        convert(tmp_path, path)
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"tags": "wrong texture"}, r"images\[0\]: 'tags' must be a list, not 'wrong texture'"),
        ({"tags": ["bad hands"]}, r"images\[0\]: 'tags': unknown tag 'bad hands'"),
        ({"width": 20, "height": 30}, r"images\[0\]: .*a.jpg is 30x20, its boxes are for 20x30"),
    ],
)
def test_bad_images_are_named(tmp_path, entry, message):
    images(tmp_path)
    listed = [{"id": 1, "file_name": "a.jpg", **entry}]
    with pytest.raises(ArtifactNetError, match=message):
        convert(tmp_path, write(tmp_path, images=listed, annotations=[ROW]))
    twice = [{"id": 1, "file_name": "a.jpg"}, {"id": 2, "file_name": "./a.jpg"}]
    with pytest.raises(ArtifactNetError, match=r"images\[1\]: .*a.jpg is annotated twice"):
        convert(tmp_path, write(tmp_path, images=twice, annotations=[ROW]))


def test_an_image_that_exif_turns_is_not_annotated(tmp_path):
    folder = images(tmp_path)
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(folder / "a.jpg") as image:
        image.save(folder / "a.jpg", exif=exif)
    result = convert(tmp_path, write(tmp_path))
    lines = {Path(line.image).stem: line for line in read_manifest(result.manifest)}
    assert (lines["a"].annotation, lines["a"].regions) == (Annotation.NONE, None)
    assert any("1 images are turned by EXIF" in text for text in result.warnings)
