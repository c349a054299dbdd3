"""Manifests: round trips, strict reading, splits, and every kind of bad input."""

import json
import math
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from annotated_files import picture, spot
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from artifactnet.config import DataConfig
from artifactnet.data import manifest_format
from artifactnet.data.checks import summarize_data
from artifactnet.data.datamodule import build_splits
from artifactnet.data.duplicates import drop_duplicates
from artifactnet.data.manifest_format import ManifestLine
from artifactnet.data.sources import manifest
from artifactnet.types import Annotation, ArtifactNetError

TEXT = st.text(st.characters(exclude_characters="\0/", codec="utf-8"), min_size=1, max_size=12)
FAKE = {"image": "a.png", "uid": "a", "label": 1, "annotation": "none"}


def save(path: Path, pixels: np.ndarray) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path.name


def write(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def build(root: Path, seed: int = 0, **options):
    config = DataConfig(name="manifest", root=str(root), **options)
    return manifest.build_manifest_splits(config, seed)


def rows_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def home_of(splits) -> dict[str, str]:
    """Split of each uid."""
    return {record.uid: name for name, source in splits.items() for record in source.records}


def mixed(root: Path, count: int, splits: bool = False) -> Path:
    """Pairs of a photograph and a fake."""
    rows = []
    for k in range(count):
        for label, state, kind in ((0, "clean", "real"), (1, "none", "fake")):
            picture(root / kind / f"{k}.png")
            row = {"image": f"{kind}/{k}.png", "uid": f"{k}", "label": label, "annotation": state}
            if splits:
                row["split"] = ("train", "val", "test")[k % 3]
            rows.append(row)
    return write(root / "data.jsonl", rows)


def test_everything_known_of_an_image_is_loaded(tmp_path):
    picture(tmp_path / "a.png", (16, 16))
    bits = spot(value=0b101)
    maps = {"heatmap": save(tmp_path / "h.png", spot()), "mask": save(tmp_path / "m.png", bits)}
    text = "### Image Description\n\u732b ... [SCORE]."
    labels = ["cognitive-level-physics", "low-level-texture"]
    more = {"generator": "sdxl", "score": 0.25, "text": text, "categories": labels}
    row = {**FAKE, "split": "test", "annotation": "mask", **maps, **more}
    source = build(write(tmp_path / "data.jsonl", [row]))["test"]
    record, sample = source.records[0], source.load(0)
    assert (record.uid, record.label, record.generator) == ("a", 1, "sdxl")
    assert (record.annotation, record.categories) == (Annotation.MASK, 0b10000010)
    assert record.path == record.location == str(tmp_path / "a.png")
    assert (sample.image == np.array(Image.open(tmp_path / "a.png"))).all()
    assert (sample.mask == bits).all()
    np.testing.assert_allclose(sample.heatmap, spot() / 255, atol=1e-7)
    assert (sample.score, sample.text) == (0.25, text)
    counts = summarize_data({"test": source}, "counts")["splits"]["test"]["category"]
    assert {key for key, count in counts.items() if count} == set(labels)


def test_a_heatmap_alone_gives_the_mask(tmp_path):
    picture(tmp_path / "a.png", (32, 32))
    values = spot(value=127)
    values[5, 7] = 128
    row = {**FAKE, "annotation": "mask", "heatmap": save(tmp_path / "h.png", values)}
    sample = build(write(tmp_path / "data.jsonl", [{**row, "split": "test"}]))["test"].load(0)
    assert sample.heatmap.shape == sample.mask.shape == (32, 32)
    assert ((sample.heatmap >= 0.5) == (sample.mask == 1)).all()
    assert 0 < (sample.mask == 1).sum() <= 4
    assert sample.score is None


@given(
    st.lists(
        st.builds(
            ManifestLine,
            image=TEXT.map(lambda name: f"/data/images/{name}.png"),
            uid=TEXT,
            label=st.just(1),
            annotation=st.just(Annotation.MASK),
            split=st.sampled_from([None, "train", "val", "test"]),
            generator=TEXT.filter(lambda name: name != "real"),
            heatmap=st.just("/data/maps/h.png"),
            mask=st.sampled_from([None, "/elsewhere/m.png"]),
            score=st.none() | st.floats(0, 1),
            categories=st.integers(0, 127).map(lambda bits: bits << 1),
            text=st.none() | st.text(st.characters(codec="utf-8"), min_size=1).filter(str.strip),
        ),
        max_size=4,
    )
)
def test_lines_come_back(tmp_path_factory, lines):
    path = tmp_path_factory.getbasetemp() / "lines.jsonl"
    manifest_format.write_manifest(path, lines)

    def normal(line):
        paths = {kind: getattr(line, kind) for kind in ("image", "heatmap", "mask")}
        return replace(line, **{k: p and os.path.normpath(p) for k, p in paths.items()})

    back = manifest_format.read_manifest(path)
    assert list(map(normal, back)) == list(map(normal, lines))  # `where` is not compared
    stored = [json.loads(row) for row in path.read_text().splitlines()]
    assert not any(os.path.isabs(row["image"]) for row in stored)


def test_paths_survive_a_folder_that_is_a_link(tmp_path):
    picture(tmp_path / "images" / "a.png")
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "deep" / "er")
    line = ManifestLine(str(tmp_path / "images" / "a.png"), "a", 1, Annotation.NONE)
    path = tmp_path / "link" / "data.jsonl"
    manifest_format.write_manifest(path, [line])
    assert Path(manifest_format.read_manifest(path)[0].image).read_bytes()


BAD = {
    "unknown key 'colour'": {"colour": 1},
    "'uid' is missing": {"uid": None},
    "'label' must be 0": {"label": True},
    "not 2": {"label": 2},
    "not '1'": {"label": "1"},
    "'image' must be text": {"image": 3},
    "not ''": {"image": ""},
    "'annotation' must be one of none, clean, mask": {"annotation": "MASK"},
    "'split' must be one of train, val, test": {"split": "eval"},
    "'score' must be a number from 0 to 1, not 1.5": {"score": 1.5},
    "not False": {"score": False},
    "not nan": {"score": math.nan},
    "'annotation' is 'none', but a heatmap": {"heatmap": "h.png"},
    "'annotation' is 'mask', but neither": {"annotation": "mask"},
    "must have annotation 'clean'": {"label": 0, "generator": "real"},
    "'generator' is 'real' and 'label' is 1": {"generator": "real"},
    "'categories' must be a list of labels, not 'x'": {"categories": "x"},
    "'categories' has unknown 'texture'; known: low-level-texture, ": {"categories": ["texture"]},
    "'categories' has unknown 3;": {"categories": [3]},
    "'categories' are given, but": {"categories": ["low-level-texture"]},
    "'text' must be text, not 3": {"text": 3},
    "not ' '": {"text": " "},
    "'text' is no Unicode text": {"text": "a\ud800"},
}


@pytest.mark.parametrize("message", BAD)
def test_a_bad_line_is_named(tmp_path, message):
    path = write(tmp_path / "data.jsonl", [FAKE, {**FAKE, **BAD[message]}])
    with pytest.raises(ArtifactNetError) as caught:
        build(path)
    assert str(caught.value).startswith(f"{path}:2: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text", ["{", "[]", "7", '{"uid": "a", "uid": "b"}', "[" * 100_000, '{"a": 1} x']
)
def test_a_line_that_is_no_object_is_named(tmp_path, text):
    path = tmp_path / "data.jsonl"
    path.write_text(json.dumps(FAKE) + "\n\n" + text + "\n")
    with pytest.raises(ArtifactNetError, match=r"data.jsonl:3: .*JSON"):
        build(path)


def test_roots_without_a_manifest(tmp_path):
    with pytest.raises(ArtifactNetError, match="no such file or folder"):
        build(tmp_path / "nothing")
    with pytest.raises(ArtifactNetError, match="holds no \\*.jsonl file"):
        build(tmp_path)
    for content, message in ((b"\n", "lists no image"), (b"\xff\xfe\0", "data.jsonl: cannot be")):
        (tmp_path / "data.jsonl").write_bytes(content)
        with pytest.raises(ArtifactNetError, match=message):
            build(tmp_path)


@pytest.mark.parametrize("kind", ["image", "heatmap", "mask"])
def test_missing_files_are_named(tmp_path, kind):
    picture(tmp_path / "a.png")
    row = {**FAKE, "annotation": "mask", "split": "test"}
    row |= {"heatmap": "a.png", "mask": "a.png"} | {kind: "gone.png"}
    path = write(tmp_path / "data.jsonl", [row])
    with pytest.raises(ArtifactNetError, match=rf"data.jsonl:1: {kind} .*gone.png: no such file"):
        build(path)
    source = build(path, on_error="skip")["test"]  # met, and left out, when it is loaded
    with pytest.raises(ArtifactNetError, match=r"data.jsonl:1: "):
        source.load(0)


@pytest.mark.parametrize(
    ("kind", "pixels", "message"),
    [
        ("heatmap", np.zeros((16, 17), np.uint8), "17x16, its image 16x16: another aspect ratio"),
        ("mask", np.zeros((32, 32), np.uint8), "32x32, its image 16x16; they must agree"),
        ("mask", np.zeros((16, 16, 3), np.uint8), "pixels are of type RGB"),
        ("heatmap", np.zeros((16, 16, 3), np.uint8), "pixels are of type RGB"),
    ],
)
def test_maps_that_do_not_fit_are_named(tmp_path, kind, pixels, message):
    picture(tmp_path / "a.png")
    save(tmp_path / "map.png", pixels)
    row = {**FAKE, "annotation": "mask", kind: "map.png", "split": "test"}
    source = build(write(tmp_path / "data.jsonl", [row]))["test"]
    with pytest.raises(ArtifactNetError) as caught:
        source.load(0)
    assert f"data.jsonl:1: {kind} {tmp_path}/map.png: " in str(caught.value)
    assert message in str(caught.value)


@pytest.mark.parametrize("named", ["test", "val"])
def test_a_split_named_on_a_generator_that_is_left_out_still_holds(tmp_path, named):
    """Else a photograph of the test split could be trained on, beside another fake of it."""
    rows = rows_of(mixed(tmp_path, 12))
    for row in rows:
        row |= {"split": None, "generator": "flux" if row["label"] else "real"}
    twins = [{**row, "generator": "sdxl"} for row in rows if row["label"]]
    for row in twins:
        row["image"] = f"sdxl/{row['uid']}.png"
        picture(tmp_path / row["image"])
        row["split"] = named if int(row["uid"]) < 9 else None
    write(tmp_path / "data.jsonl", [*rows, *twins])
    for seed in range(3):
        splits = build(tmp_path / "data.jsonl", seed, generators=["flux"], val_fraction=0.3)
        home = home_of(splits)
        assert len(home) == 12
        assert {home[f"{k}"] for k in range(9)} == {named}
        assert not any(r.generator == "sdxl" for s in splits.values() for r in s.records)


def test_links_through_a_generator_that_is_left_out_still_hold(tmp_path):
    rows = rows_of(mixed(tmp_path, 8))
    for row in rows:
        row["generator"] = "flux" if row["label"] else "real"
    link = {**FAKE, "image": str(picture(tmp_path / "sdxl.png")), "generator": "sdxl"}
    write(tmp_path / "data.jsonl", rows + [{**link, "uid": f"{k}"} for k in range(6)])
    for seed in range(3):
        home = home_of(build(tmp_path, seed, generators=["flux"], val_fraction=0.25))
        assert len({home[f"{k}"] for k in range(6)}) == 1


def test_splits_are_drawn_by_uid(tmp_path):
    def uids(seed):
        splits = build(tmp_path, seed, val_fraction=0.2)
        return {name: {record.uid for record in source.records} for name, source in splits.items()}

    mixed(tmp_path, 20)
    drawn = uids(0)
    assert {name: len(part) for name, part in drawn.items()} == {"train": 12, "val": 4, "test": 4}
    assert len(set.union(*drawn.values())) == 20
    assert uids(0) == drawn
    assert uids(1)["val"] != drawn["val"]


def test_validation_comes_from_training_where_there_is_none(tmp_path):
    rows = rows_of(mixed(tmp_path, 10))
    for row in rows:
        row["split"] = "test" if int(row["uid"]) < 2 else "train"
    splits = build(write(tmp_path / "data.jsonl", rows), val_fraction=0.25)
    sizes = {name: len({r.uid for r in source.records}) for name, source in splits.items()}
    assert sizes == {"train": 6, "val": 2, "test": 2}


def test_several_manifests_are_mixed_and_a_named_split_wins(tmp_path):
    (tmp_path / "sub").mkdir()
    mixed(tmp_path, 6)
    row = {**FAKE, "image": picture(tmp_path / "extra.png").name, "uid": "3", "split": "test"}
    write(tmp_path / "other.jsonl", [{**row, "generator": "flux"}])
    write(tmp_path / ".hidden.jsonl", [{"broken": 1}])
    splits = build(tmp_path)
    assert sum(len(source.records) for source in splits.values()) == 13
    assert home_of(splits)["3"] == "test"
    assert len([r for r in splits["test"].records if r.uid == "3"]) == 3
    assert summarize_data(splits, "full")["splits"]["test"]["generator"]["flux"] == 1


def mixture(root: Path, how: str, first: str | None, second: str | None) -> dict[str, str]:
    """Two manifests name one picture under two uids, among others; split of each line."""
    mixed(root, 6)
    source = root / "fake" / "0.png"
    if how == "copy":
        picture(root / "twin.png").write_bytes(source.read_bytes())
    twin = {"copy": "twin.png", "path": "real/../fake/0.png"}[how]
    rows = rows_of(root / "data.jsonl")
    for row in rows:
        row["split"] = first if row["uid"] == "0" else None
    write(root / "data.jsonl", rows)
    picture(root / "own.png")
    rows = [{**FAKE, "image": name, "uid": "other", "split": second} for name in (twin, "own.png")]
    write(root / "other.jsonl", rows)
    return home_of(build(root))


@pytest.mark.parametrize("how", ["path", "copy"])
@pytest.mark.parametrize("splits", [("test", None), (None, "test"), (None, "val"), (None, None)])
def test_one_picture_under_two_uids_is_in_one_split(tmp_path, how, splits):
    home = mixture(tmp_path, how, *splits)
    assert home["0"] == home["other"] == (splits[0] or splits[1] or home["0"])
    assert set(home) == {*"012345", "other"}


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("path", r"image '.*fake/0.png' is in test here and in train in "),
        ("copy", r"uid 'other' \(.*twin.png\) is in test here, and '0' \(.*0.png\)"),
    ],
)
def test_one_picture_in_two_named_splits_is_refused(tmp_path, how, message):
    with pytest.raises(ArtifactNetError, match=rf"other.jsonl:1: {message}.*data.jsonl:\d"):
        mixture(tmp_path, how, "train", "test")
    if how == "copy":  # may be left out of the earlier split instead
        config = DataConfig(name="manifest", root=str(tmp_path), on_error="skip")
        splits, _ = drop_duplicates(build_splits(config, 0))
        home = {r.location: name for name, source in splits.items() for r in source.records}
        assert home[str(tmp_path / "twin.png")] == "test"
        assert str(tmp_path / "fake/0.png") not in home


def test_groups_are_joined_over_several_uids(tmp_path):
    mixed(tmp_path, 8)
    rows = [{**FAKE, "image": f"fake/{k + 1}.png", "uid": f"{k}"} for k in range(6)]
    write(tmp_path / "chain.jsonl", [*rows, {**rows[0], "uid": "6", "split": "test"}])
    home = home_of(build(tmp_path))
    assert ({home[f"{k}"] for k in range(7)}, home["7"]) == ({"test"}, "train")


@pytest.mark.parametrize("changes", [{"score": math.nan}, {"uid": ""}, {"text": ""}, {"label": 0}])
def test_what_cannot_be_read_is_not_written(tmp_path, changes):
    good = ManifestLine("i/good.png", "b", 1, Annotation.NONE)
    bad = replace(good, image="i/x.png", **changes)
    with pytest.raises(ArtifactNetError, match=r"^i/x\.png: "):
        manifest_format.write_manifest(tmp_path / "data.jsonl", [good, bad])
    assert list(tmp_path.iterdir()) == []


def test_lines_that_contradict_each_other(tmp_path):
    path = mixed(tmp_path, 3, splits=True)
    rows = rows_of(path)
    write(path, [*rows, {**rows[1], "image": "./fake/0.png"}])
    assert "1 images are listed more than once" in build(path)["train"].warnings[0]
    write(path, [*rows, {**rows[0], "label": 1, "annotation": "none"}])
    with pytest.raises(ArtifactNetError, match=r"data.jsonl:7: .* has label 1 here and 0 in .*:1"):
        build(path)
    write(path, [rows[0], {**rows[1], "split": "val"}, *rows[2:]])
    with pytest.raises(ArtifactNetError, match=r"data.jsonl:2: uid '0' is in val .*in train"):
        build(path)


def test_files_that_other_editors_save(tmp_path):
    """A byte order mark and Windows' line ends are read; UTF-16 is refused by name."""
    picture(tmp_path / "a.png")
    path = tmp_path / "data.jsonl"
    text = json.dumps({**FAKE, "image": "a.png", "split": "Validation"})
    for content in (text.encode("utf-8-sig"), text.encode() + b"\r\n\r\n"):
        path.write_bytes(content)
        assert [r.uid for r in build(path)["val"].records] == [FAKE["uid"]]
    path.write_bytes(text.encode("utf-16"))
    with pytest.raises(ArtifactNetError, match=r"data\.jsonl: cannot be read .*UTF-8") as caught:
        build(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", ["x" * 200_000, [[["x"] * 1000] * 100] * 10, {"a": "b" * 9999}])
def test_messages_stay_short(tmp_path, value):
    for key in ("image", "uid", "label", "score", "split", "categories"):
        path = write(tmp_path / "data.jsonl", [{**FAKE, key: value}])
        with pytest.raises(ArtifactNetError, match=rf"data\.jsonl:1: .*{key}") as caught:
            build(path)
        assert len(str(caught.value)) < 500
