"""Test sets in every layout: what is listed, what is left out, wrong layouts and broken images."""

import json
import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from annotated_files import png
from hypothesis import given, settings
from hypothesis import strategies as st
from noise_images import put

from artifactnet.config import DataConfig
from artifactnet.data.duplicates import find_shared, hash_bytes
from artifactnet.data.shards import SCHEMA
from artifactnet.data.sources.folder import build_folder_splits
from artifactnet.data.test_sets import folders
from artifactnet.data.test_sets.base import TestSet as Set  # pytest would look into its own name
from artifactnet.data.test_sets.base import join_reals
from artifactnet.data.test_sets.read import (
    LAYOUTS,
    USES,
    MissingTestSet,
    layout_of,
    read_test_set,
)
from artifactnet.data.test_sets.read import TestSetOptions as Options
from artifactnet.types import Annotation, ArtifactNetError, Region

NOISE = np.random.default_rng(0).integers(0, 256, (40, 12, 16, 3), dtype=np.uint8)


def fill(root: Path, *names: str) -> Path:
    """Images of noise, no two alike."""
    for name in names:
        put(root / name, seed=hash_bytes(name.encode())[0] + 256 * len(name))
    return root


def described(test_set: Set) -> dict[str, tuple[str, str, str]]:
    """key -> generator, uid, part."""
    rows = zip(test_set.keys, test_set.records, test_set.parts, strict=True)
    return {key: (record.generator, record.uid, part) for key, record, part in rows}


def check_whole(test_set: Set) -> None:
    """What holds for every set: names are unique, labels agree, every image loads."""
    assert len(set(test_set.keys)) == len(test_set.keys) == len(test_set.records)
    assert len(test_set.parts) == len(test_set.records)
    for k, record in enumerate(test_set.records):
        assert (record.generator == "real") == (record.label == 0)
        assert (record.annotation is Annotation.CLEAN) >= (record.label == 0)
        sample = test_set.load(k)
        assert sample.record is record
        assert sample.image.dtype == np.uint8
        assert sample.image.shape[2] == 3


# --- folders ---


def test_two_classes(tmp_path):
    fill(tmp_path, "real/a.png", "fake/sdxl/a.png", "fake/flux/a.png", "fake/b.png")
    test_set = read_test_set("mine", tmp_path)
    check_whole(test_set)
    assert test_set.layout == "folder"
    assert described(test_set) == {
        "real/real/a": ("real", "real/a", ""),
        "sdxl/fake/sdxl/a": ("sdxl", "fake/sdxl/a", "sdxl"),
        "flux/fake/flux/a": ("flux", "fake/flux/a", "flux"),
        "fake/fake/b": ("fake", "fake/b", "fake"),
    }
    assert test_set.counts() == {"images": 4, "real": 1, "fake": 3, "left out": 0}
    assert test_set.only is None


@pytest.mark.parametrize(("folder", "only"), [("1_fake", "fake"), ("nature", "real")])
def test_one_class(tmp_path, folder, only):
    """The source of training data refuses these."""
    fill(tmp_path, f"{folder}/a.png", f"{folder}/b.png")
    with pytest.raises(ArtifactNetError, match="holds no"):
        build_folder_splits(DataConfig(name="folder", root=str(tmp_path)), 0)
    test_set = read_test_set("mine", tmp_path)
    check_whole(test_set)
    assert (test_set.only, len(test_set.records)) == (only, 2)


def test_the_test_folder_is_read_where_there_is_one(tmp_path):
    fill(tmp_path, "train/real/a.png", "train/fake/a.png", "test/real/b.png", "test/fake/b.png")
    test_set = read_test_set("mine", tmp_path)
    assert {record.uid for record in test_set.records} == {"test/real/b", "test/fake/b"}
    assert any("only test/ is used, 2 of 4 images" in text for text in test_set.warnings)


def test_masks_are_the_truth(tmp_path):
    fill(tmp_path, "real/a.png", "fake/a.png")
    mask = np.zeros((20, 30), np.uint8)
    mask[2:5, 3:9] = 255
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks" / "a.png").write_bytes(png(mask))
    test_set = read_test_set("mine", tmp_path)
    (fake,) = [k for k, record in enumerate(test_set.records) if record.label]
    assert np.array_equal(test_set.load(fake).mask > 0, mask > 0)
    assert test_set.load(1 - fake).mask is None


@pytest.mark.parametrize("name", ["chameleon", "commfor", "mmfr"])
def test_parts_of_class_folders(tmp_path, name):
    """Real images beside the fakes of a generator are of its part, shared ones of all."""
    root = tmp_path / "evaluation_sets" if name == "mmfr" else tmp_path
    fill(root, "biggan/0_real/1.png", "biggan/1_fake/1.png", "glide/0_real/1.png")
    fill(root, "glide/1_fake/1.png", "0_real/1.png")
    if name == "mmfr":
        (root / "biggan" / "biggan_reasoning.json").write_text("[]")
        fill(tmp_path, "laion/00000/000000000.jpg", "diffusiondb/part-000001/1.png")  # its training
    test_set = read_test_set(name, tmp_path)
    check_whole(test_set)
    assert sorted((part, record.label) for part, record in
                  zip(test_set.parts, test_set.records, strict=True)) == [
        ("", 0), ("biggan", 0), ("biggan", 1), ("glide", 0), ("glide", 1),
    ]  # fmt: skip


def test_chameleon_without_class_folders(tmp_path):
    fill(tmp_path, "test/0_real/1.jpg", "test/1_fake/1.jpg")
    assert read_test_set("chameleon", tmp_path).counts()["images"] == 2


def test_mmfr_may_be_named_by_its_inner_folder(tmp_path):
    fill(tmp_path, "biggan/0_real/1.png", "biggan/1_fake/1.png")
    assert read_test_set("mmfr", tmp_path).parts == ("biggan", "biggan")


def test_synthbuster(tmp_path):
    root = fill(
        tmp_path / "set", "dalle2/r1.png", "Stable Diffusion XL/r1.png", "glide/deep/r2.png"
    )
    test_set = read_test_set("synthbuster", root)
    check_whole(test_set)
    assert test_set.only == "fake"
    assert test_set.parts == ("stable-diffusion-xl", "dalle2", "glide")
    assert any("no images of dalle3, firefly, mid" in text for text in test_set.warnings)
    raise_1k = fill(tmp_path / "raise", "r1.png", "more/r2.png")
    both = read_test_set("synthbuster", root, Options(reals=raise_1k))
    check_whole(both)
    assert (both.only, both.parts[-2:], both.keys[-2:]) == (
        None,
        ("", ""),
        ("real/r1", "real/more/r2"),
    )
    assert any("2 real images are of raise" in text for text in both.warnings)
    fill(root, "real/r1.png", "unknown/x.png")
    own = read_test_set("synthbuster", root, Options(reals=raise_1k))
    assert own.counts() == {"images": 4, "real": 1, "fake": 3, "left out": 0}  # its own reals stay
    assert any("1 images lie in no folder of a generator" in text for text in own.warnings)


def frames(root: Path, **videos: int) -> Path:
    """``METHOD__VIDEO=frames``; frame names are numbers without leading zeros."""
    for video, count in videos.items():
        method, name = video.split("__")
        fill(root, *(f"{method}/{name}/{number}.png" for number in range(count)))
    return root


def test_videos_have_equal_frames(tmp_path):
    frames(tmp_path, original__000=12, Deepfakes__000_003=4, Face2Face__000_003=3)
    test_set = read_test_set("ffpp", tmp_path)
    check_whole(test_set)
    found = described(test_set)
    # the middle one of three equal stretches, frame 10 after frame 9
    assert {key: value for key, value in found.items() if value[0] == "real"} == {
        f"real/000/original/000/{number}.png": ("real", "000", "") for number in (2, 6, 10)
    }
    assert {key for key, value in found.items() if value[2] == "Deepfakes"} == {
        f"Deepfakes/000_003/Deepfakes/000_003/{number}.png" for number in (0, 2, 3)
    }
    assert any("frames of each of 3 videos: 3" in text for text in test_set.warnings)
    fixed = read_test_set("ffpp", tmp_path, Options(frames=4))
    assert fixed.left_out == {
        "videos have fewer than 4 frames": (str(tmp_path / "Face2Face" / "000_003"),)
    }
    assert fixed.counts() == {"images": 8, "real": 4, "fake": 4, "left out": 1}


@given(st.lists(st.integers(1, 9), min_size=1, max_size=5), st.integers(1, 9))
@settings(max_examples=60, deadline=None)
def test_spread_takes_each_stretch_once(lengths, count):
    """By the definition: the frame at the middle of each of ``count`` equal stretches of time."""
    for length in lengths:
        if length < count:
            continue
        taken = list(folders._spread([str(k) for k in range(length)], count))
        middles = [str(int((k + 0.5) * length / count + 1e-9)) for k in range(count)]
        assert taken == middles
        assert len(set(taken)) == count


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (Options(frames=20), "no video has 20 frames; the longest has 2"),
        (Options(frames=0), "at least 1"),
    ],
)
def test_impossible_frames(tmp_path, options, message):
    frames(tmp_path, original__000=2, Deepfakes__1=2)
    with pytest.raises(ArtifactNetError, match=message):
        read_test_set("ffpp", tmp_path, options)


# --- tables ---


def table(path: Path, rows: list[dict], **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, **options), path, row_group_size=2)
    return path


def forensics(number: int, model: str = "sd", label: int = 1, **changes) -> dict:
    return {
        "image_name": f"{number:08d}.png",
        "image_data": png(NOISE[number]),
        "model_name": model,
        "label": label,
        "real_source": "COCO",
    } | changes


def test_community_forensics_rows(tmp_path):
    rows = [forensics(0), forensics(1, "gan"), forensics(0, "gan", image_data=png(NOISE[2]))]
    rows += [forensics(3, "COCO", 0), forensics(0)]  # one name twice
    table(tmp_path / "data" / "publicEval" / "PublicEval-00000.parquet", rows)
    table(tmp_path / "data" / "systematic" / "train.parquet", [forensics(9)])
    test_set = read_test_set("commfor", tmp_path)
    check_whole(test_set)
    place = "data/publicEval/PublicEval-00000.parquet"
    assert described(test_set) == {
        f"sd/00000000/{place}#0": ("sd", "00000000", "sd"),
        "gan/00000001": ("gan", "00000001", "gan"),
        "gan/00000000": ("gan", "00000000", "gan"),
        "real/00000003": ("real", "00000003", ""),
        f"sd/00000000/{place}#4": ("sd", "00000000", "sd"),
    }
    for k, number in enumerate((0, 1, 2, 3, 0)):  # not in the order of the row groups
        assert np.array_equal(test_set.load(k).image, NOISE[number])
    again = pickle.loads(pickle.dumps(test_set.source))  # as a process of its own gets it
    assert np.array_equal(again.load(1).image, NOISE[1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": 2}, r"#1: 'label' must be 0 or 1, not 2"),
        ({"model_name": "real"}, r"#1: 'model_name' must name a generator"),
        ({"model_name": None}, r"#1: 'model_name' must name a generator"),
    ],
)
def test_rows_of_community_forensics_that_say_nothing(tmp_path, change, message):
    file = table(tmp_path / "x.parquet", [forensics(0), forensics(1) | change])
    with pytest.raises(ArtifactNetError, match=message):
        read_test_set("commfor", file)


def comparison(first: int, second: int, models=("4o-26-3-25", "flux-1.1-pro")) -> dict:
    image = {k: {"bytes": png(NOISE[n]), "path": f"{n}.png"} for k, n in enumerate((first, second))}
    return {"prompt": "a cat", "image1": image[0], "image2": image[1],
            "model1": models[0], "model2": models[1]}  # fmt: skip


def test_gpt_image_is_taken_once(tmp_path):
    rows = [comparison(0, 1), comparison(2, 0, ("imagen-3", "4o-26-3-25")), comparison(3, 1)]
    rows += [comparison(4, 5, ("imagen-3", "flux-1.1-pro"))]
    empty = comparison(6, 7)
    empty["image1"] = {"bytes": None, "path": "6.png"}
    table(tmp_path / "data" / "train-00000-of-00001.parquet", [*rows, empty])
    test_set = read_test_set("gptimage", tmp_path)
    check_whole(test_set)
    uids = [hash_bytes(png(NOISE[number])).hex() for number in (0, 3)]
    assert list(test_set.keys) == [f"4o-26-3-25/{uid}" for uid in uids]
    assert test_set.only == "fake"
    assert [len(names) for names in test_set.left_out.values()] == [1]
    for k, number in enumerate((0, 3)):
        assert np.array_equal(test_set.load(k).image, NOISE[number])
    other = read_test_set("gptimage", tmp_path, Options(generator="flux-1.1-pro"))
    assert len(other.records) == 3  # 1, 5, 7
    with pytest.raises(
        ArtifactNetError, match=r"no images of 'gpt'; it has those of 4o-26-3-25, fl"
    ):
        read_test_set("gptimage", tmp_path, Options(generator="gpt"))


def test_fakeclue(tmp_path):
    fill(tmp_path, "test/gan/1.png", "test/real/1.png", "train/gan/2.png")
    rows = [("gan/1.png", 0), ("real/1.png", 1), ("gan/1.png", 0), ("gone.png", 0)]
    file = tmp_path / "data_json" / "test.json"
    file.parent.mkdir()
    file.write_text(json.dumps([{"image": name, "label": label} for name, label in rows]))
    test_set = read_test_set("FakeClue", tmp_path)
    check_whole(test_set)
    assert described(test_set) == {
        "fakeclue/gan/1": ("fakeclue", "gan/1", "fakeclue"),  # its label 0 is fake
        "real/real/1": ("real", "real/1", ""),
    }
    assert test_set.left_out == {
        "rows are of an image that occurred before": (f"{file}: row 2",),
        "images are missing": (str(tmp_path / "test" / "gone.png"),),
    }


# --- annotated sets ---


def test_xaigd(tmp_path):
    square = [[2.0, 3.0], [9.0, 3.0], [9.0, 10.0], [2.0, 10.0]]

    def row(uid, number, points):
        labels = [{"label": "low-level-texture", "points": p} for p in points]
        image = {"bytes": png(NOISE[number]), "path": None}
        return {"image": image, "generator": "sdxl", "uid": uid, "labels": labels,
                "width": 16, "height": 12}  # fmt: skip

    file = tmp_path / "data" / "labeled_test-00000-of-00001.parquet"
    table(file, [row("a", 0, [square]), row("b", 1, [])], schema=SCHEMA)
    fill(tmp_path / "photographs", "a.png", "b.png")
    test_set = read_test_set("XAIGD", tmp_path, Options(reals=tmp_path / "photographs"))
    check_whole(test_set)
    assert test_set.layout == layout_of("anything", tmp_path) == "xaigd"
    assert set(test_set.keys) == {"sdxl/a", "sdxl/b", "real/a", "real/b"}
    mask = test_set.load(test_set.keys.index("sdxl/a")).mask
    assert mask[5, 5]
    assert not mask[0, 0]
    table(
        tmp_path / "train" / "labeled_train-00000-of-00001.parquet",
        [row("a", 0, [])],
        schema=SCHEMA,
    )
    with pytest.raises(ArtifactNetError, match="no labeled_test shards"):
        read_test_set("xaigd", tmp_path / "train", Options(reals=tmp_path / "photographs"))


def manifest(path: Path, lines: list[dict]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_manifest_with_regions(tmp_path):
    fill(tmp_path, "f.png", "r.png", "t.png")
    region = {"bbox": [1, 2, 5, 6], "caption": "hand with six fingers"}
    lines = [
        {"image": "f.png", "uid": "1", "label": 1, "annotation": "mask", "generator": "sdxl",
         "split": "test", "regions": [region]},
        {"image": "r.png", "uid": "1", "label": 0, "annotation": "clean", "split": "test"},
        {"image": "t.png", "uid": "2", "label": 1, "annotation": "none", "split": "train"},
        {"image": "gone.png", "uid": "3", "label": 1, "annotation": "none", "split": "test"},
    ]  # fmt: skip
    file = manifest(tmp_path / "fakex.jsonl", lines)
    test_set = read_test_set("FAKEX", file)
    check_whole(test_set)
    assert test_set.layout == layout_of("synthbuster", file) == layout_of("x", tmp_path)
    assert set(test_set.keys) == {"sdxl/1", "real/1"}
    sample = test_set.load(test_set.keys.index("sdxl/1"))
    assert sample.regions == (Region((1.0, 2.0, 5.0, 6.0), "hand with six fingers"),)
    (missing,) = test_set.left_out.values()
    assert missing == (str(tmp_path / "gone.png"),)


def test_manifest_without_splits_of_one_class(tmp_path):
    fill(tmp_path, "a/1.png", "b/1.png")
    lines = [{"image": f"{folder}/1.png", "uid": "one", "label": 1, "annotation": "none"}
             for folder in "ab"]  # fmt: skip
    test_set = read_test_set("x", manifest(tmp_path / "x.jsonl", lines))
    assert test_set.keys == ("fake/one/a/1.png", "fake/one/b/1.png")
    assert test_set.only == "fake"


# --- bad input ---


def test_wrong_layouts_name_the_known_ones(tmp_path):
    fill(tmp_path, "pictures/1.png")
    for name in LAYOUTS:
        with pytest.raises(ArtifactNetError) as error:
            read_test_set(name, tmp_path)
        text = str(error.value)
        assert "\n" not in text
        assert text.startswith(f"{name}={tmp_path}: ")
        assert f"read as {name}: {LAYOUTS[name]}" in text
        assert all(other in text for other in LAYOUTS)


def test_nothing_there(tmp_path):
    with pytest.raises(MissingTestSet, match=r"chameleon=.*nowhere: no such file or folder"):
        read_test_set("chameleon", tmp_path / "nowhere")
    with pytest.raises(ArtifactNetError, match="no such folder of real images"):
        read_test_set("x", fill(tmp_path, "fake/1.png"), Options(reals=tmp_path / "nowhere"))


def test_names_choose_layouts(tmp_path):
    assert layout_of("Synthbuster-recoded", tmp_path) == "synthbuster"
    assert layout_of("synthbusters", tmp_path) == "folder"
    assert all(layout_of(name.upper(), tmp_path) == name for name in LAYOUTS)
    assert {layout for layouts in USES.values() for layout in layouts} <= set(LAYOUTS)


def test_broken_images_are_listed_when_they_are_loaded(tmp_path):
    fill(tmp_path, "real/a.png", "fake/a.png", "fake/b.png")
    whole = (tmp_path / "fake" / "b.png").read_bytes()
    (tmp_path / "fake" / "b.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "fake" / "c.png").write_bytes(b"")  # no image by content: not listed, but said
    test_set = read_test_set("mine", tmp_path)
    assert len(test_set.records) == 3
    assert any("c.png" in text for text in test_set.warnings)
    failed = []
    for k, record in enumerate(test_set.records):
        try:
            test_set.load(k)
        except ArtifactNetError as error:
            failed.append((record.uid, "\n" in str(error)))
    assert failed == [("fake/b", False)]


def test_broken_rows_are_listed_when_they_are_loaded(tmp_path):
    rows = [
        forensics(0),
        forensics(1, image_data=b"\x89PNG\r\n\x1a\n half"),
        forensics(2, image_data=None),
    ]
    test_set = read_test_set("commfor", table(tmp_path / "x.parquet", rows))
    test_set.load(0)
    for k in (1, 2):
        with pytest.raises(ArtifactNetError, match=f"x.parquet#{k}"):
            test_set.load(k)


# --- subsets ---


@given(st.permutations(range(5)), st.integers(1, 5))
@settings(max_examples=30, deadline=None)
def test_subsets_keep_names_and_parts_together(tmp_path_factory, order, count):
    root = tmp_path_factory.getbasetemp() / "subsets"
    if not root.exists():
        fill(root, "real/a.png", "real/b.png", "fake/x/a.png", "fake/y/a.png", "fake/y/b.png")
    test_set = read_test_set("mine", root)
    some = test_set.select(order[:count], "for a reason")
    assert [described(test_set)[key] for key in some.keys] == list(described(some).values())
    assert some.counts()["images"] + some.counts()["left out"] == 5
    for k, index in enumerate(order[:count]):
        assert np.array_equal(some.load(k).image, test_set.load(index).image)


def test_limit_keeps_both_classes(tmp_path):
    fill(tmp_path, *(f"{kind}/{k}.png" for kind in ("real", "fake") for k in range(10)))
    test_set = read_test_set("mine", tmp_path, Options(limit=4))
    assert test_set.counts() == {"images": 4, "real": 2, "fake": 2, "left out": 0}
    assert test_set.warnings == ("a sample: 4 uids, 4 of 20 images",)
    with pytest.raises(ArtifactNetError, match="limit=0 must be at least 1"):
        read_test_set("mine", tmp_path, Options(limit=0))


def test_reals_of_another_set(tmp_path):
    fakes = read_test_set("fakes", fill(tmp_path / "f", "fake/1.png"))
    other = read_test_set(
        "other", fill(tmp_path / "o", "biggan/0_real/1.png", "biggan/1_fake/2.png")
    )
    both = join_reals(fakes, other)
    check_whole(both)
    assert both.parts == ("fake", "")  # of a generator over there, shared here
    assert any("1 real images are of other" in text for text in both.warnings)
    with pytest.raises(ArtifactNetError, match="other: has real images of its own"):
        join_reals(other, fakes)
    with pytest.raises(ArtifactNetError, match="has no real images for fakes"):
        join_reals(fakes, fakes)


# --- leaks ---


def test_images_of_the_training_data_are_found(tmp_path):
    """By content, from files to files, files to rows, and rows to files."""
    train = fill(tmp_path / "train", "train/real/a.png", "train/fake/a.png", "train/fake/b.png")
    fill(train, "val/real/c.png", "val/fake/c.png", "test/real/d.png", "test/fake/d.png")
    config = DataConfig(name="folder", root=str(train))
    learned = list(build_folder_splits(config, 0).values())[:2]
    root = fill(tmp_path / "set", "real/new.png", "fake/new.png")
    copies = {"real/copy.png": "train/fake/b.png", "fake/other name.png": "val/fake/c.png"}
    for copy, original in copies.items():
        (root / copy).write_bytes((train / original).read_bytes())
    (root / "fake" / "tested.png").write_bytes((train / "test" / "fake" / "d.png").read_bytes())
    test_set = read_test_set("mine", root)
    found = find_shared(test_set.source, learned)
    assert {test_set.records[k].uid: twin for k, twin in found.items()} == {
        copy[:-4]: str(train / original) for copy, original in copies.items()
    }

    rows = [
        forensics(0),
        forensics(1, image_data=(train / "train" / "fake" / "a.png").read_bytes()),
    ]
    in_rows = read_test_set("commfor", table(tmp_path / "x.parquet", rows))
    assert [in_rows.keys[k] for k in find_shared(in_rows.source, learned)] == ["sd/00000001"]
    assert find_shared(test_set.source, [in_rows.source]) == {}
    put(root / "fake" / "row.png", 5)
    (root / "fake" / "row.png").write_bytes(rows[0]["image_data"])
    (index,) = find_shared(read_test_set("mine", root).source, [in_rows.source]).items()
    assert index[1].endswith("x.parquet#0")
