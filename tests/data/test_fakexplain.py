"""JSON lines of FakeXplained's public training code to a manifest."""

import json
from pathlib import Path

import numpy as np
import pytest
from annotated_files import load_manifest, picture
from PIL import Image

from artifactnet.data.converters.convert import convert_dataset
from artifactnet.data.converters.fakexplain import convert_fakexplain, parse_row
from artifactnet.data.manifest_format import read_manifest
from artifactnet.types import Annotation, ArtifactNetError, Region

SIZE = (20, 30)
FAKE_TEXT = (
    "<think><ref-object><bbox>\n<ref-object><bbox>\n<tag>Wrong Texture, other anomalies</tag>"
    "</think><verdict>generated</verdict>"
)
OBJECTS = {
    "ref": ["hand with six fingers", "sign, blurred"],
    "bbox": [[1, 2, 9.5, 8], [0, 0, 30, 20]],
}


def row(image="batch_1/a.png", text=FAKE_TEXT, objects=OBJECTS, **changes) -> dict:
    said = [
        {"role": "system", "content": "Is it <bbox> real?"},
        {"role": "user", "content": "<image>"},
        {"role": "assistant", "content": text},
    ]
    held = {"images": [image], "messages": said, "objects": objects, **changes}
    return {key: value for key, value in held.items() if value is not None}


def real_row(image="real_batch_1/b.png", text="<think></think><verdict>real</verdict>") -> dict:
    return row(image, text, None)


def write(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(one) + "\n" for one in rows))
    return path


def images(root: Path) -> Path:
    for name in ("batch_1/a", "batch_2/a", "real_batch_1/b"):
        picture(root / "images" / f"{name}.png", SIZE)
    return root / "images"


def test_lines_become_regions_tags_and_splits(tmp_path):
    folder = images(tmp_path)
    write(tmp_path / "rows_train.jsonl", [row(), real_row()])
    empty = {"ref": [], "bbox": []}
    style = "<think><tag>artistic style</tag></think><verdict>generated</verdict>"
    gone = row("gone.png")
    write(tmp_path / "rows_test.jsonl", [row("batch_2/a.png", style, empty), gone])
    result = convert_fakexplain(tmp_path, folder, tmp_path / "out")
    assert result.counts == {
        **{"images": 3, "fake": 2, "real": 1, "clean": 2, "train": 2, "test": 1},
        **{"with regions": 1, "with tags": 2},
    }
    assert f"1 images are not in {folder}, e.g. gone.png" in result.warnings[0]
    lines = {line.uid: line for line in read_manifest(result.manifest)}
    marked = lines["fakexplain/batch_1/a"]
    assert marked.regions == (
        Region((1.0, 2.0, 9.5, 8.0), "hand with six fingers"),
        Region((0.0, 0.0, 30.0, 20.0), "sign, blurred"),
    )
    assert marked.tags == ("wrong texture", "other anomalies")
    assert (marked.annotation, marked.generator) == (Annotation.MASK, "fakexplained")
    styled = lines["fakexplain/batch_2/a"]
    assert (styled.label, styled.annotation, styled.regions) == (1, Annotation.CLEAN, ())
    assert styled.tags == ("artistic style",)
    real = lines["fakexplain/real_batch_1/b"]
    assert (real.label, real.annotation, real.regions, real.tags) == (
        0,
        Annotation.CLEAN,
        None,
        None,
    )
    assert load_manifest(result.manifest)["test"].load(0).mask is None


@pytest.mark.parametrize(
    ("change", "label", "tags"),
    [
        ({"text": "<ref-object><bbox><ref-object><bbox>"}, 1, None),
        ({"text": FAKE_TEXT.replace("Wrong Texture, other anomalies", "none")}, 1, ()),
        ({"text": FAKE_TEXT.replace("Wrong Texture, other anomalies", "")}, 1, ()),
        ({"text": "so: <verdict> Real </verdict>", "objects": {"ref": [], "bbox": []}}, 0, None),
        ({"text": "nothing", "objects": {"ref": [], "bbox": []}}, 0, None),
        ({"text": "<tag>none</tag>", "objects": None}, 0, ()),
    ],
)
def test_what_a_line_means(change, label, tags):
    record = parse_row(row(**change), "x")
    assert (record.label, record.tags, len(record.regions)) == (label, tags, 2 * label)


BAD = {
    "the line has the keys ['boxes', 'image']; expected are 'images', 'messages'": {
        "image": "a.png",
        "boxes": [],
    },
    "the line is ['a']": ["a"],
    "'images' must be a list of one path, not ['a.png', 'b.png']": row(images=["a.png", "b.png"]),
    "not [{'bytes'": row(images=[{"bytes": ""}]),
    "'messages' must be a list of": row(messages="hello"),
    "'messages' has none of the role 'assistant'": row(messages=[]),
    "'objects' must have the keys 'ref', 'bbox', not ['bbox', 'bbox_type', 'ref']": row(
        objects={**OBJECTS, "bbox_type": "norm1"}
    ),
    "objects.ref must be a list, not 'hand'": row(objects={"ref": "hand", "bbox": []}),
    "objects.ref has 1 entries, the assistant's text 2 <ref-object>": row(
        objects={**OBJECTS, "ref": ["hand"]}
    ),
    "objects.bbox has 1 entries, the assistant's text 2 <bbox>": row(
        objects={**OBJECTS, "bbox": [[1, 2, 3, 4]]}
    ),
    "objects.ref has 2 entries, objects.bbox 1; they must agree": row(
        text="<ref-object><ref-object><bbox>", objects={**OBJECTS, "bbox": [[1, 2, 3, 4]]}
    ),
    "objects.bbox has 0 entries, the assistant's text 1 <bbox>": real_row(text="<bbox>"),
    "objects.bbox[1] must have 0 <= x1 < x2": row(
        objects={**OBJECTS, "bbox": [[1, 2, 3, 4], [5, 2, 3, 4]]}
    ),
    "objects.ref[0] must be text that is not blank": row(objects={**OBJECTS, "ref": ["", "b"]}),
    "objects.ref[0] must not hold </think>": row(objects={**OBJECTS, "ref": ["</think>", "b"]}),
    "the verdict is 'real', but the line has 2 boxes": row(
        text=FAKE_TEXT.replace("generated", "real")
    ),
    "the verdict is 'generated', but the line has no 'objects'": real_row(
        text="<verdict>generated</verdict>"
    ),
    "<verdict> must hold one of real, generated, not 'fake'": row(
        text=FAKE_TEXT.replace("generated", "fake")
    ),
    "must have one <verdict>...</verdict>": row(text=FAKE_TEXT + "<verdict>generated</verdict>"),
    "must have one <tag>...</tag>": row(text=FAKE_TEXT.replace("</tag>", "")),
    "<tag>: unknown tag 'bad hands'": row(text=FAKE_TEXT.replace("Wrong Texture", "bad hands")),
    "'other anomalies' is named twice": row(
        text=FAKE_TEXT.replace("Wrong Texture", "other anomalies")
    ),
    "the line has the tags artistic style, but it is of a real image": real_row(
        text="<tag>artistic style</tag>"
    ),
    "regions[1]: bbox [0.0, 0.0, 31.0, 20.0] reaches out of the 30x20 image": row(
        objects={**OBJECTS, "bbox": [[1, 2, 3, 4], [0, 0, 31, 20]]}
    ),
    "batch_2/a.png is annotated twice": row("./batch_2/a.png"),
}


@pytest.mark.parametrize("message", BAD)
def test_a_bad_line_is_named(tmp_path, message):
    folder = images(tmp_path)
    path = write(tmp_path / "rows.jsonl", [row("batch_2/a.png"), BAD[message]])
    with pytest.raises(ArtifactNetError) as caught:
        convert_fakexplain(path, folder, tmp_path / "out")
    assert str(caught.value).startswith(f"{path}:2: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_image_that_exif_turns_is_not_annotated(tmp_path):
    folder = images(tmp_path)
    path = folder / "batch_1" / "a.png"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.zeros((*SIZE, 3), np.uint8)).save(path, exif=exif)
    result = convert_dataset(
        "fakexplain", write(tmp_path / "r.jsonl", [row()]), tmp_path / "out", images=folder
    )
    (line,) = read_manifest(result.manifest)
    assert (line.annotation, line.regions, len(line.tags)) == (Annotation.NONE, None, 2)
    assert "1 images are turned by EXIF" in result.warnings[0]
