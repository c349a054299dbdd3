"""labelme's JSON files to a manifest."""

import json
from pathlib import Path

import pytest
from annotated_files import picture

from artifactnet.data.converters.convert import convert_dataset
from artifactnet.data.manifest_format import read_manifest
from artifactnet.types import Annotation, ArtifactNetError, Region

SIZE = (20, 30)


def shape(kind: str = "rectangle", points=((2, 3), (8, 9)), **changes) -> dict:
    held = {"label": "hand", "points": [list(p) for p in points], "shape_type": kind}
    return {**held, "description": "", "flags": {}, **changes}


def annotate(folder: Path, name: str, shapes: list, **changes) -> Path:
    data = {"version": "5.4.1", "flags": {}, "shapes": shapes, "imagePath": f"{name}.png"}
    data |= {"imageData": None, "imageHeight": SIZE[0], "imageWidth": SIZE[1], **changes}
    path = folder / f"{name}.json"
    path.write_text(json.dumps(data))
    return path


@pytest.fixture
def folder(tmp_path) -> Path:
    for name in ("a", "sub/b", "c", "d"):
        picture(tmp_path / "data" / f"{name}.png", SIZE)
    return tmp_path / "data"


def convert(folder: Path, **options):
    return convert_dataset("labelme", folder, folder.parent / "out", **options)


def test_shapes_become_boxes_and_flags_tags(folder):
    shapes = [
        shape(points=[(8.5, 9), (2, 3.25)], description="hand with six fingers"),
        shape("polygon", [(1, 1), (5, 2), (3, 7.5)]),
        shape("circle", [(10, 10), (13, 14)]),
        shape("circle", [(28, 2), (28, 6)]),  # beyond the image by 2 each
        shape("line"),
    ]
    annotate(folder, "a", shapes, flags={"Wrong texture": True, "artistic style": False})
    annotate(folder / "sub", "b", [], flags={"keep": False})
    annotate(folder, "c", [shape("point", [(1, 1)])], imagePath="..\\data\\c.png")
    annotate(folder, "gone", [])
    result = convert(folder)
    lines = {line.uid: line for line in read_manifest(result.manifest)}
    assert set(lines) == {"labelme/a", "labelme/sub/b", "labelme/c", "labelme/d"}
    marked = lines["labelme/a"]
    assert marked.regions == (
        Region((2.0, 3.25, 8.5, 9.0), "hand with six fingers"),
        Region((1.0, 1.0, 5.0, 7.5), "hand"),
        Region((5.0, 5.0, 15.0, 15.0), "hand"),
        Region((24.0, 0.0, 30.0, 6.0), "hand"),
    )
    assert (marked.tags, marked.generator) == (("wrong texture",), "fake")
    clean = lines["labelme/sub/b"]
    assert (clean.annotation, clean.regions, clean.tags) == (Annotation.CLEAN, (), ())
    unknown = lines["labelme/c"]  # a shape that cannot be used is not the same as no shape
    assert (unknown.annotation, unknown.regions, unknown.tags) == (Annotation.NONE, None, None)
    assert lines["labelme/d"].annotation is Annotation.NONE
    assert result.counts["images"] == 4
    left = json.loads((folder.parent / "out" / "labelme.left_out.json").read_text())
    assert {reason.split(" in ")[0]: len(names) for reason, names in left.items()} == {
        "shapes are no rectangle, polygon, circle": 2,
        "images are not": 1,
        "images have no JSON file: not annotated": 1,
    }


BAD = {
    "shapes[0] must be an object with 'shape_type'": {"shapes": [{"points": []}]},
    "shapes[0]: 'points' of a rectangle must be 2 to 4 finite pairs": {
        "shapes": [shape(points=[(1, 2)])]
    },
    "'points' of a polygon must be 3 or more finite": {"shapes": [shape("polygon")]},
    "'points' of a circle must be 2 finite pairs": {"shapes": [shape("circle", [(1, 2)] * 3)]},
    "not [[1, nan], [3, 4]]": {"shapes": [shape(points=[(1, float("nan")), (3, 4)])]},
    "not [[1, '2'], [3, 4]]": {"shapes": [shape(points=[(1, "2"), (3, 4)])]},
    "shapes[0]: the box around its 'points' must have 0 <= x1 < x2": {
        "shapes": [shape(points=[(1, 2), (1, 4)])]
    },
    "shapes[1]: bbox [1.0, 2.0, 30.5, 4.0] reaches out of the 30x20": {
        "shapes": [shape(), shape(points=[(1, 2), (30.5, 4)])]
    },
    "shapes[0]: 'label' must be text that is not blank": {"shapes": [shape(label=" ")]},
    "shapes[0]: 'description' must not hold <think>": {"shapes": [shape(description="<think>")]},
    "'flags': unknown tag 'keep'": {"flags": {"keep": True}},
    "'flags' must be an object of true and false, not {'artistic style': 1}": {
        "flags": {"artistic style": 1}
    },
    "a.png is 30x20, its 'imageWidth' and 'imageHeight' are 20 and 30": {
        "imageWidth": 20,
        "imageHeight": 30,
    },
    "'imageWidth' and 'imageHeight' are None and 20": {"imageWidth": None},
    "a file of labelme has a list 'shapes' and the text 'imagePath'": {"imagePath": 3},
    "a file of labelme has": {"shapes": None},
}


@pytest.mark.parametrize("message", BAD)
def test_a_bad_file_is_named(folder, message):
    path = annotate(folder, "a", **{"shapes": [], **BAD[message]})
    with pytest.raises(ArtifactNetError) as caught:
        convert(folder)
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)


def test_images_elsewhere_and_folders_without_files(folder, tmp_path):
    (tmp_path / "json").mkdir()
    annotate(tmp_path / "json", "a", [shape()])
    result = convert_dataset("labelme", tmp_path / "json", tmp_path / "out", images=folder)
    assert [bool(line.regions) for line in read_manifest(result.manifest)].count(True) == 1
    with pytest.raises(ArtifactNetError, match=r"data: holds no \.json file"):
        convert(folder)
    with pytest.raises(ArtifactNetError, match="no such folder of labelme"):
        convert(tmp_path / "none")
    annotate(folder, "a", [])
    annotate(folder, "twin", [], imagePath="a.png")
    with pytest.raises(ArtifactNetError, match=r"twin.json: .*a.png is annotated twice"):
        convert(folder, name="twins")
