"""FakeClue to a manifest: its labels are the reverse of ours."""

import json
from pathlib import Path

import pytest
from annotated_files import load_manifest, picture

from artifactnet.data.converters.convert import convert_dataset
from artifactnet.data.manifest_format import read_manifest
from artifactnet.types import Annotation, ArtifactNetError

SAID = [{"from": "human", "value": "<image>Is it real?"}, {"from": "gpt", "value": "It is not."}]


def row(image: str, label: int, **changes) -> dict:
    return {"image": image, "label": label, "cate": "animal", "conversations": SAID, **changes}


def write(root: Path, split: str, rows) -> Path:
    path = root / "data_json" / f"{split}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows))
    return path


def convert(root: Path, **options):
    return convert_dataset("fakeclue", root / "clue", root / "out", **options)


@pytest.fixture
def source(tmp_path) -> Path:
    for name in ("train/gan/1.png", "train/real/1.png", "test/gan/1.png"):
        picture(tmp_path / "clue" / name)
    write(tmp_path / "clue", "train", [row("gan/1.png", 0), row("real/1.png", 1)])
    write(tmp_path / "clue", "test", [row("gan/1.png", 0), row("gone.png", 0), row("gan/1.png", 0)])
    return tmp_path


def test_zero_is_fake_and_one_is_real(source):
    result = convert(source)
    lines = {line.uid: line for line in read_manifest(result.manifest)}
    assert {uid: (line.label, line.generator, line.split) for uid, line in lines.items()} == {
        "fakeclue/train/gan/1": (1, "fakeclue", "train"),
        "fakeclue/train/real/1": (0, "real", "train"),
        "fakeclue/test/gan/1": (1, "fakeclue", "test"),
    }
    fake = lines["fakeclue/test/gan/1"]
    assert (fake.annotation, fake.regions, fake.text) == (Annotation.NONE, None, None)
    assert lines["fakeclue/train/real/1"].annotation is Annotation.CLEAN
    assert {text.split(",")[0].split(" in /")[0] for text in result.warnings} == {
        "1 images are not", "1 rows are of an image that occurred before",
    }  # fmt: skip
    assert load_manifest(result.manifest)["test"].load(0).mask is None


def test_texts_are_kept_on_demand(source):
    lines = read_manifest(convert(source, texts=True, generator="many").manifest)
    assert {line.text for line in lines} == {"It is not."}
    assert {line.generator for line in lines} == {"many", "real"}
    with pytest.raises(ArtifactNetError, match="convert coco does not take --texts"):
        convert_dataset("coco", "x", "o", images="i", texts=True)


def test_one_split_and_images_elsewhere(source):
    (source / "clue" / "data_json" / "train.json").unlink()
    (source / "moved").mkdir()
    (source / "clue" / "test").rename(source / "moved" / "test")
    result = convert(source, images=source / "moved")
    assert result.counts["images"] == 1
    assert "train.json: no such file" in result.warnings[0]
    (source / "clue" / "data_json" / "test.json").unlink()
    with pytest.raises(ArtifactNetError, match=r"holds neither data_json/train.json nor data_json"):
        convert(source, overwrite=True)


BAD = {
    "must hold a list of rows, not {'a': 1}": {"a": 1},
    "row 0 must be an object, not 3": [3],
    "row 1: 'image' must be a path, not None": [row("gan/1.png", 0), {"label": 0}],
    "row 0: 'label' must be 0 (fake) or 1 (real), not True": [row("gan/1.png", True)],
    "row 0: 'label' must be 0 (fake) or 1 (real), not 2": [row("gan/1.png", 2)],
    "row 1: gan/1.png is both real and fake": [row("gan/1.png", 0), row("gan/1.png", 1)],
    "row 0: 'conversations' must be a list": [row("gan/1.png", 0, conversations="It is fake.")],
}


@pytest.mark.parametrize("message", BAD)
def test_a_bad_row_is_named(source, message):
    path = write(source / "clue", "train", BAD[message])
    with pytest.raises(ArtifactNetError) as caught:
        convert(source, texts=True)
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)
