"""SynthScars to a manifest: hulls of outlines, items of one picture merged."""

import json
from pathlib import Path

import numpy as np
import pytest
from annotated_files import picture
from PIL import Image

from artifactnet.data.converters.convert import convert_dataset
from artifactnet.data.manifest_format import read_manifest
from artifactnet.types import Annotation, ArtifactNetError, Region

SIZE = (20, 30)
OUTLINE = [[1, 2, 9.5, 2, 9.5, 8, 1, 8], [12, 3, 14, 3, 13, 4]]


def ref(outlines=OUTLINE, explanation="The hand has six fingers.", sentence="a hand") -> dict:
    return {"sentence": sentence, "explanation": explanation, "segmentation": outlines}


def item(image="a.jpg", *refs: dict, key="0") -> dict:
    return {key: {"img_file_name": image, "caption": "a man", "refs": list(refs)}}


def write(root: Path, split: str, items, folder="annotations") -> Path:
    path = root / split / folder / f"{split}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(items))
    return path


def convert(root: Path, **options):
    return convert_dataset("synthscars", root / "scars", root / "out", **options)


@pytest.fixture
def root(tmp_path) -> Path:
    for name in "abcd":
        picture(tmp_path / "scars" / "train" / "images" / f"{name}.jpg", SIZE)
    picture(tmp_path / "scars" / "test" / "images" / "a.jpg", SIZE)
    return tmp_path


def test_outlines_become_boxes_and_items_of_a_picture_one_line(root):
    edge = ref([[0, 0, 30 + 1e-13, 0, 30, 20 + 1e-13]], "", "the sky")
    items = [
        item("a.jpg", ref()),
        item("b.jpg", ref([[3, 3, 8, 3]]), ref([])),  # nothing that can be used
        item("a.jpg", ref(), edge, key="7"),  # the first region again
        item("c.jpg"),
        item("d.jpg", ref([[3, 3, 8, 3]]), ref(explanation="", sentence=" "), ref()),
        item("gone.jpg", ref()),
    ]
    write(root / "scars", "train", items)
    write(root / "scars", "test", [item("a.jpg", ref())], "annoations")
    result = convert(root)
    lines = {line.uid.removeprefix("synthscars/"): line for line in read_manifest(result.manifest)}
    hand = Region((1.0, 2.0, 14.0, 8.0), "The hand has six fingers.")
    assert lines["train/a"].regions == (hand, Region((0.0, 0.0, 30.0, 20.0), "the sky"))
    assert (lines["train/a"].split, lines["train/a"].generator) == ("train", "synthscars")
    assert (lines["train/b"].annotation, lines["train/b"].regions) == (Annotation.NONE, None)
    assert (lines["train/c"].annotation, lines["train/c"].regions) == (Annotation.CLEAN, ())
    assert lines["train/d"].regions == lines["test/a"].regions == (hand,)
    assert {line.label for line in lines.values()} == {1}
    left = json.loads((root / "out" / "synthscars.left_out.json").read_text())
    assert {reason.split(" in /")[0]: len(names) for reason, names in left.items()} == {
        "regions have no area": 3,
        "regions are in two items of their picture": 1,
        "regions have no caption": 1,
        "images are not": 1,
    }
    assert "train: 1 pictures have several items, which are merged, e.g. a.jpg" in result.warnings


BAD = {
    "must hold a list of items, not {}": {},
    "item 0 must be an object with one key, not {'a': 1, 'b': 2}": [{"a": 1, "b": 2}],
    "item 1: 'img_file_name' must be text, not None": [item(), {"0": {"refs": []}}],
    "item 0: 'img_file_name' must be text, not None": [{"0": 3}],
    "item 0: 'refs' must be a list, not None": [{"0": {"img_file_name": "a.jpg"}}],
    "item 0: refs[1]: 'segmentation' must be a list of outlines": [item("a.jpg", ref(), ref("x"))],
    "finite numbers, not [[1, 2, 3]]": [item("a.jpg", ref([[1, 2, 3]]))],
    "finite numbers, not [[1, 2, 3, '4']]": [item("a.jpg", ref([[1, 2, 3, "4"]]))],
    "finite numbers, not [[1, 2, 3, nan]]": [item("a.jpg", ref([[1, 2, 3, float("nan")]]))],
    "refs[0]: 'segmentation' must be": [item("a.jpg", "hand")],
    "refs[0]: 'explanation' must not hold <verdict>": [item("a.jpg", ref(explanation="<verdict>"))],
    "refs[0]: 'explanation' must be text": [item("a.jpg", ref(explanation=3))],
    "item 0: refs[0]: bbox [1.0, 2.0, 31.0, 8.0] reaches out of the 30x20 image": [
        item("a.jpg", ref([[1, 2, 31, 2, 31, 8]]))
    ],
}


@pytest.mark.parametrize("message", BAD)
def test_a_bad_item_is_named(root, message):
    path = write(root / "scars", "train", BAD[message])
    with pytest.raises(ArtifactNetError) as caught:
        convert(root)
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)


def test_folders_and_images_that_exif_turns(root):
    with pytest.raises(ArtifactNetError, match=r"holds neither train/annotations/train\.json nor"):
        convert(root)
    exif = Image.Exif()
    exif[0x0112] = 6
    path = root / "scars" / "test" / "images" / "a.jpg"
    Image.fromarray(np.zeros((*SIZE, 3), np.uint8)).save(path, exif=exif)
    write(root / "scars", "test", [item("a.jpg", ref())])
    result = convert(root)
    (line,) = read_manifest(result.manifest)
    assert (line.annotation, line.regions) == (Annotation.NONE, None)
    assert "no annotations of split train" in result.warnings[0]
    assert "1 images are turned by EXIF" in result.warnings[1]
