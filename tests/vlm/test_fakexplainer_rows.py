"""Images as what is asked and should be answered: which are kept, and what is refused."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("transformers", reason="needs the extra mllm")

from artifactnet.config import load
from artifactnet.data.converters.demo import convert_demo_data
from artifactnet.data.regions import CAPTIONS, UNNAMED, regions_of_mask
from artifactnet.types import ArtifactNetError, Region
from artifactnet.vlm.fakexplainer import grammar
from artifactnet.vlm.rows import TaskData

SIZE = (60, 40)  # of every image; coordinates are its pixels


class Words:
    """Processing of a model whose tokens are words, with one control word."""

    def __init__(self, drop="none"):
        self.drop = drop

    def check_text(self, text, what):
        if "<|end|>" in text:
            raise ArtifactNetError(f"{what}: holds '<|end|>'")

    def input_size(self, image_size):
        return image_size

    def answer(self, is_fake, regions, tags, image_size):
        return grammar.write(is_fake, regions, tags, image_size, image_size, self.drop)

    def tokenize(self, text):
        return text.split()


def fake(*regions, **more):
    named = [{"bbox": list(box), "caption": f"part {k}"} for k, box in enumerate(regions)]
    return {"label": 1, "annotation": "mask", "regions": named} | more


def data(folder: Path, lines, *overrides) -> TaskData:
    """A train split of some lines; the number of an image is its shade."""
    rows = []
    held_out = [{"label": 0, "split": "val"}, {"label": 1, "split": "val"}]
    for number, line in enumerate([*lines, *held_out]):
        name = f"{number:02}.png"
        Image.new("RGB", SIZE, (number,) * 3).save(folder / name)
        known = {"image": name, "uid": name, "annotation": "clean", "split": "train"}
        rows.append(json.dumps(known | line) + "\n")
    path = folder / "images.jsonl"
    path.write_text("".join(rows))
    keys = [f"data.root={path}", "data.check=counts", "data.balance=false", "mllm.base=x"]
    return TaskData(load("paper/fakexplainer_sft", [*keys, *overrides]))


REAL = {"label": 0}


def test_answers_are_written_and_images_opened(tmp_path):
    one = data(tmp_path, [REAL, fake((1, 2, 30, 20), tags=["wrong texture"], generator="sdxl")])
    real, row = one.rows("train", Words())
    assert (real.is_fake, real.answer) == (False, grammar.write(False, (), (), SIZE, SIZE))
    assert (row.is_fake, row.size, row.input_size) == (True, SIZE, SIZE)
    assert row.regions == (Region((1.0, 2.0, 30.0, 20.0), "part 0"),)
    assert '{"bbox_2d": [1, 2, 30, 20], "label": "part 0"}' in row.answer
    assert "<tag>wrong texture</tag>" in row.answer
    assert (one.image("train", row) == 1).all()
    assert one.summary["warnings"] == []


def test_of_too_many_regions_the_largest_are_learned_in_their_order(tmp_path):
    boxes = [(k, 0, k + 1, 1 + k % 20) for k in range(40)]  # those of k = 0..3, 20..23 are smallest
    one = data(tmp_path, [REAL, fake(*boxes)])
    _, row = one.rows("train", Words())
    assert len(row.regions) == 40
    learned = [k for k in range(40) if f'"part {k}"' in row.answer]
    assert learned == [k for k in range(40) if k % 20 >= 4]
    (warning,) = one.summary["warnings"]
    assert warning.startswith("train: 1 images have more than 32 regions")
    assert warning.endswith("01.png")


def test_fakes_that_no_answer_describes_are_left_out(tmp_path):
    tags = {"tags": ["wrong texture"]}
    lines = [
        REAL,
        fake((1, 2, 3, 4)),
        {"label": 1} | tags,  # somebody looked: it has no region
        {"label": 1, "annotation": "none"} | tags,  # nobody did
        {"label": 1, "annotation": "none"},
        {"label": 1},
    ]
    one = data(tmp_path, lines)
    assert [row.index for row in one.rows("train", Words())] == [0, 1, 2]
    (warning,) = one.summary["warnings"]
    assert warning.startswith("train: 3 fakes have no annotated region")
    assert len(data(tmp_path, lines).rows("train", Words("label"))) == 6  # verdicts are known


def test_masks_without_regions_become_boxes(tmp_path):
    mask = np.zeros(SIZE[::-1], np.uint8)
    mask[5:9, 10:30] = 1
    Image.fromarray(mask).save(tmp_path / "mask.png")
    one = data(tmp_path, [REAL, {"label": 1, "annotation": "mask", "mask": "mask.png"}])
    _, row = one.rows("train", Words())
    assert row.regions == (Region((10.0, 5.0, 30.0, 9.0), UNNAMED),)


def test_the_demo_data_and_its_files_give_the_same_rows(tmp_path):
    keys = ("demo_size=96", "demo_train=12", "demo_val=1", "demo_test=1", "demo_edits=1")
    options = ("data.check=off", *(f"data.{key}" for key in keys))
    demo = load("paper/fakexplainer_sft", ["data.name=demo", "data.root=null", *options])
    convert_demo_data(demo.data, tmp_path)
    files = load("paper/fakexplainer_sft", [f"data.root={tmp_path}", "data.check=off"])
    made, read = (TaskData(one).rows("train", Words()) for one in (demo, files))
    assert [replace(row, location="") for row in made] == [
        replace(row, location="") for row in read
    ]
    fakes = [row for row in made if row.is_fake]
    assert len(fakes) == 12
    assert all(row.regions for row in fakes)
    assert {row.tags for row in made if not row.is_fake} == {()}
    untagged = {CAPTIONS["low-level-symbol"], CAPTIONS["cognitive-level-physics"]}
    edited = [row for row in fakes if row.tags is not None]
    assert {bool(row.tags) for row in edited} == {True, False}
    assert all((row.regions[0].caption in untagged) == (not row.tags) for row in edited)
    assert all(f"<tag>{tag}</tag>" in row.answer for row in edited for tag in row.tags)
    repainted = [row for row in fakes if row.tags is None]
    assert len(repainted) == 3
    assert {row.regions[0].caption for row in repainted} == {UNNAMED}
    assert all("<tag>none</tag>" in row.answer for row in repainted)


def test_regions_of_a_mask():
    mask = np.zeros((8, 9), np.uint8)
    mask[0, 0] = mask[1, 1] = 1 << 3  # touch at a corner: one region
    mask[0, 4:6] |= 1 << 3 | 1 << 5  # two categories
    mask[7, 8] = 1  # of no category, beside others
    assert [(r.bbox, r.caption) for r in regions_of_mask(mask)] == [
        ((0, 0, 2, 2), CAPTIONS["low-level-symbol"]),
        ((4, 0, 6, 1), CAPTIONS["low-level-symbol"]),
        ((4, 0, 6, 1), CAPTIONS["high-level-semantics"]),
    ]
    assert regions_of_mask(mask & 1) == (Region((8.0, 7.0, 9.0, 8.0), UNNAMED),)
    assert regions_of_mask(mask * 0) == ()


@pytest.mark.parametrize("reals", [2, 7])
def test_classes_are_balanced_by_drawing_again(tmp_path, reals):
    lines = [*[REAL] * reals, *[fake((1, 2, 3, 4))] * 5]
    one = data(tmp_path, lines, "data.balance=true")
    indices = [row.index for row in one.rows("train", Words())]
    assert indices[: len(lines)] == list(range(len(lines)))  # each at least once
    again = indices[len(lines) :]
    assert len(again) == abs(reals - 5)
    assert all((index < reals) == (reals < 5) for index in again)  # of the rarer class
    counts = [again.count(index) for index in set(again)]
    assert max(counts, default=0) - min(counts, default=0) <= 1
    assert [row.index for row in one.rows("train", Words())] == indices
    assert [row.index for row in data(tmp_path, lines).rows("train", Words())] == list(
        range(len(lines))
    )


@pytest.mark.parametrize(
    ("line", "overrides", "message"),
    [
        ({"regions": [{"bbox": [1, 2, 3, 4], "caption": "a <|end|> hand"}]}, [], "'<|end|>'"),
        ({"regions": [{"bbox": [1, 2, 3, 4], "caption": "a <box> hand"}]}, [], "not hold <box>"),
        ({"regions": [{"bbox": [1, 2, 3, 4], "caption": "a" * 301}]}, [], "1 to 300 characters"),
        ({}, ["mllm.max_new_tokens=5"], "tokens, more than mllm.max_new_tokens=5: raise"),
        ({"regions": [{"bbox": [1, 2, 61, 4], "caption": "hand"}]}, [], "reaches out of the 60x40"),
    ],
)
def test_what_cannot_be_taught_is_refused_by_name(tmp_path, line, overrides, message):
    one = data(tmp_path, [REAL, fake((1, 2, 3, 4)) | line], *overrides)
    with pytest.raises(ArtifactNetError) as error:
        one.rows("train", Words())
    assert str(error.value).startswith(f"{tmp_path / 'images.jsonl'}:2: {tmp_path}/")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([REAL, REAL], "only real"),
        ([fake((1, 2, 3, 4))], "only fake"),
        (
            [REAL, {"label": 1}],
            "only real images that can be answered.*train: 1 fakes have no ann",
        ),
    ],
)
def test_one_class_teaches_nothing(tmp_path, lines, message):
    with pytest.raises(ArtifactNetError, match=message):
        data(tmp_path, lines).rows("train", Words())


def test_images_that_cannot_be_used_are_counted_if_asked_for(tmp_path):
    one = data(tmp_path, [REAL, fake((1, 2, 3, 4)), REAL], "data.on_error=skip")
    (tmp_path / "02.png").write_bytes(b"no image")
    assert [row.index for row in one.rows("train", Words())] == [0, 1]
    (warning,) = one.summary["warnings"]
    assert warning.startswith("train: 1 images cannot be used: left out")
