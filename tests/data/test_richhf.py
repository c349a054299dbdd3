"""RichHF-18K: real TFRecords to a manifest that trains, and everything that can be wrong."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from annotated_files import SCORES, load_manifest, png, richhf_example, spot, write_records
from annotated_files import picture as make_picture

from artifactnet.data.converters import richhf
from artifactnet.types import Annotation, ArtifactNetError

EMPTY = np.zeros((16, 16), np.uint8)


def data_set(root: Path, **changes: list) -> tuple[Path, Path, Path]:
    """TFRecords of three splits, their images, and a place for the manifest."""
    for split, count in (("train", 3), ("dev", 2), ("test", 1)):
        records = []
        for k in range(count):
            name = f"{split}-{k}"
            make_picture(root / "images" / f"part{k}" / f"{name}.jpg", (32, 32))
            records.append(richhf_example(f"train/{name}.png", spot() if k else EMPTY, **changes))
        write_records(root / "records" / f"{split}.tfrecord", records)
    return root / "records", root / "images", root / "out"


def test_the_manifest_reads_back(tmp_path):
    result = richhf.convert_richhf(*data_set(tmp_path))
    assert result.manifest == tmp_path / "out" / "richhf.jsonl"
    assert result.warnings == ()
    counts = {"train": 3, "val": 2, "test": 1}
    assert result.counts == {
        **{"images": 6, "fake": 6, "clean": 3, "with a heatmap": 3, "with a score": 6},
        **counts,
    }
    splits = load_manifest(result.manifest)
    assert {name: len(source.records) for name, source in splits.items()} == counts
    for source in splits.values():
        for index, record in enumerate(source.records):
            sample = source.load(index)
            assert (record.generator, record.uid) == ("pickapic", Path(record.location).stem)
            assert sample.score == SCORES["artifact_score"]
            if record.uid.endswith("0"):
                assert record.annotation is Annotation.CLEAN
                assert sample.heatmap is None
            else:
                assert record.annotation is Annotation.MASK
                assert sample.heatmap.shape == (32, 32)
                assert math.isclose(sample.heatmap.max(), 200 / 255, rel_tol=1e-6)
                assert (sample.mask[10:14, 14:22] == 1).all()


def test_what_concerns_the_prompt_is_kept_beside(tmp_path):
    source, images, out = data_set(tmp_path, misalignment_map=[png(spot(value=99))])
    richhf.convert_richhf(source, images, out)
    kept = json.loads((out / "richhf.prompt.json").read_text())
    assert len(kept) == 6
    assert kept["dev-1"] == {
        "misalignment_score": 0.5,
        "aesthetics_score": 0.25,
        "overall_score": 0.125,
        "prompt_misalignment_label": "1 0 1",
        "misalignment_map": "misalignment/richhf/part1/dev-1.png",
    }
    assert (out / kept["dev-1"]["misalignment_map"]).read_bytes() == png(spot(value=99))


def test_a_killed_conversion_goes_on(tmp_path, monkeypatch):
    source, images, out = data_set(tmp_path)
    whole, seen = richhf.ManifestWriter.add, []

    def killed(*args, **maps):
        if len(seen) == 4:
            raise KeyboardInterrupt
        seen.append(args)
        return whole(*args, **maps)

    monkeypatch.setattr(richhf.ManifestWriter, "add", killed)
    with pytest.raises(KeyboardInterrupt):
        richhf.convert_richhf(source, images, out)
    first = sorted(out.rglob("*.png"))
    assert len(first) == 2
    assert not list(out.glob("*.jsonl"))
    first[1].write_bytes(first[1].read_bytes()[:30])  # as a machine that lost power leaves it
    before = first[0].stat()
    monkeypatch.undo()
    result = richhf.convert_richhf(source, images, out)
    assert result.counts["images"] == 6
    assert first[0].stat().st_ino == before.st_ino
    assert first[0].stat().st_mtime_ns == before.st_mtime_ns
    for split in load_manifest(result.manifest).values():
        for index in range(len(split.records)):
            split.load(index)


def test_an_output_among_the_images_is_refused(tmp_path):
    source, images, _ = data_set(tmp_path)
    for out in (images, images / "part0" / ".." / "out"):
        with pytest.raises(ArtifactNetError, match="lies inside .*images"):
            richhf.convert_richhf(source, images, out)
    assert not {path.suffix for path in images.rglob("*")} & {".png", ".jsonl"}
    for overwrite in (False, True):  # above them is fine
        result = richhf.convert_richhf(source, images, tmp_path, overwrite=overwrite)
        assert (result.counts["images"], result.warnings) == (6, ())


def test_missing_images_are_counted_and_listed(tmp_path):
    source, images, out = data_set(tmp_path)
    (images / "part0" / "train-0.jpg").unlink()
    broken = images / "part1" / "dev-1.jpg"
    broken.write_bytes(broken.read_bytes()[:20])
    result = richhf.convert_richhf(source, images, out)
    assert (result.counts["images"], len(result.warnings)) == (4, 2)
    assert result.warnings[0].startswith(f"1 images are not in {images}, e.g. train/train-0.png")
    assert "1 images cannot be read" in result.warnings[1]
    listed = json.loads((out / "richhf.left_out.json").read_text())
    assert listed[f"images are not in {images}"] == ["train/train-0.png"]
    assert "part1/dev-1.jpg" in listed["images cannot be read"][0]
    make_picture(images / "train-1.webp")
    with pytest.raises(ArtifactNetError, match=r"2 images could be 'train/train-1.png': "):
        richhf.convert_richhf(source, images, out, overwrite=True)
    make_picture(tmp_path / "others" / "a.png")
    with pytest.raises(ArtifactNetError, match="no image can be used: 6 images are not in"):
        richhf.convert_richhf(source, tmp_path / "others", tmp_path / "empty")
    assert not list((tmp_path / "empty").glob("*.jsonl"))


def test_repeated_names_and_other_aspect_ratios_are_left_out(tmp_path):
    source, images, out = data_set(tmp_path)
    write_records(source / "test.tfrecord", [richhf_example("elsewhere/train-1.jpg", EMPTY)])
    make_picture(images / "part1" / "dev-1.jpg", (32, 40))
    result = richhf.convert_richhf(source, images, out)
    assert result.counts == {**result.counts, "train": 3, "val": 1, "images": 4}
    assert "1 images have another aspect ratio than their heatmap, e.g. " in result.warnings[0]
    assert "(40x32, heatmap 16x16)" in result.warnings[0]
    assert "test.tfrecord: record 0 at byte 0" in result.warnings[1]


def test_one_file_and_a_name_and_an_existing_manifest(tmp_path):
    source, images, out = data_set(tmp_path)
    options = {"name": "rich", "generator": "sdxl"}
    result = richhf.convert_richhf(source / "dev.tfrecord", images, out, **options)
    assert result.manifest.name == "rich.jsonl"
    rows = [json.loads(line) for line in result.manifest.read_text().splitlines()]
    assert {(row["split"], row["generator"]) for row in rows} == {("val", "sdxl")}
    assert rows[1]["image"] == "../images/part1/dev-1.jpg"
    assert rows[1]["heatmap"] == "heatmaps/rich/part1/dev-1.png"
    with pytest.raises(ArtifactNetError, match="already there; replace it with --overwrite"):
        richhf.convert_richhf(source, images, out, **options)
    result.manifest.write_text("old")
    richhf.convert_richhf(source, images, out, **options, overwrite=True)
    assert len(result.manifest.read_text().splitlines()) == 6
    # a replacement that fails leaves no manifest that names maps of another
    write_records(source / "dev.tfrecord", [richhf_example("dev-1", spot(value=9))])
    damaged = (source / "test.tfrecord").read_bytes()[:-1]
    (source / "test.tfrecord").write_bytes(damaged)
    with pytest.raises(ArtifactNetError, match="truncated"):
        richhf.convert_richhf(source, images, out, **options, overwrite=True)
    assert not list(out.glob("*.jsonl"))


BAD = {
    "'artifact_score' must be from 0 to 1, not 1.5": {"artifact_score": [1.5]},
    "'artifact_score' must be from 0 to 1, not nan": {"artifact_score": [math.nan]},
    "'overall_score' must be one value of float: 2 of float": {"overall_score": [0.5, 0.5]},
    "'overall_score' must be one value of float: 1 of int": {"overall_score": [1]},
    "'filename' must be one value of bytes: none": {"filename": []},
    "'filename' is not UTF-8": {"filename": [b"\xff\xff"]},
    "artifact_map: not an image": {"artifact_map": [b"nothing"]},
    "artifact_map: truncated": {"artifact_map": [png(spot())[:-30]]},
    "artifact_map: a map must be gray": {
        "artifact_map": [png(np.random.default_rng(0).integers(0, 255, (16, 16, 3)))]
    },
}


@pytest.mark.parametrize("message", BAD)
def test_a_bad_record_is_named(tmp_path, message):
    make_picture(tmp_path / "images" / "a.png")
    path = write_records(
        tmp_path / "test.tfrecord", [richhf_example("a.png", spot(), **BAD[message])]
    )
    with pytest.raises(ArtifactNetError) as caught:
        richhf.convert_richhf(path, tmp_path / "images", tmp_path / "out")
    assert str(caught.value).startswith(f"{path}: record 0 at byte 0: ")
    assert message in str(caught.value)


def test_other_files_are_refused(tmp_path):
    with pytest.raises(ArtifactNetError, match="nor a folder with any of train.tfrecord"):
        richhf.convert_richhf(tmp_path, tmp_path, tmp_path / "out")
    path = write_records(tmp_path / "test.tfrecord", [b""])
    with pytest.raises(ArtifactNetError, match=r"feature 'filename' is missing; is this RichHF"):
        next(richhf.read_richhf(path))
    source, images, out = data_set(tmp_path)
    whole = (source / "train.tfrecord").read_bytes()
    (source / "train.tfrecord").write_bytes(whole[:-1])
    with pytest.raises(ArtifactNetError, match=r"train.tfrecord: record 2 at byte \d+: truncated"):
        richhf.convert_richhf(source, images, out)
