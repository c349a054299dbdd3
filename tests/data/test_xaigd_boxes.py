"""X-AIGD's polygons to boxes with captions."""

from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from annotated_files import load_manifest, picture, png
from hypothesis import given
from hypothesis import strategies as st

from artifactnet.config import DataConfig
from artifactnet.data.converters.convert import convert_dataset
from artifactnet.data.manifest_format import read_manifest
from artifactnet.data.masks import polygon_box
from artifactnet.data.regions import CAPTIONS
from artifactnet.data.shards import SCHEMA
from artifactnet.data.sources.xaigd import build_xaigd_splits
from artifactnet.taxonomy import CATEGORIES
from artifactnet.types import Annotation, ArtifactNetError, Region

WIDTH, HEIGHT = 48, 64
SPAN = [[10.9, 20.2], [50.7, 20.9], [30.1, -3.0]]
LABEL = {"label": "low-level-symbol", "points": SPAN}
HAND = {"label": "high-level-semantics", "points": [[1, 2], [5, 2], [5, 9], [1, 9]]}


def pixels(uid: str) -> np.ndarray:
    seed = list(uid.encode())
    return np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)


def row(uid: str, generator: str, labels: list, **changes) -> dict:
    data = {"bytes": png(pixels(uid + generator)), "path": f"{uid}.png"}
    held = {"image": data, "generator": generator, "uid": uid, "labels": labels}
    return held | {"width": WIDTH, "height": HEIGHT} | changes


def shard(root: Path, part: str, rows: list[dict]) -> Path:
    path = root / "data" / f"{part}-00000-of-00001.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), path, row_group_size=2)
    return path


def test_a_polygon_is_truncated_clipped_and_boxed(tmp_path):
    assert polygon_box(LABEL, HEIGHT, WIDTH, "x") == (10, 0, 48, 21)
    root = tmp_path / "xaigd"
    rows = [row("t1", "sdxl", [LABEL, HAND]), row("t1", "flux", []), row("t2", "sdxl", [HAND])]
    shard(root, "labeled_train", rows)
    shard(root, "labeled_test", [row("e1", "sdxl", [HAND])])
    shard(root, "unlabeled_train", [row("u1", "sdxl", [])])
    for uid in ("t1", "e1", "spare"):
        picture(root / "real" / f"{uid}.jpg")
    out = tmp_path / "out"
    result = convert_dataset("xaigd_boxes", root, out)
    assert result.counts == {
        **{"images": 6, "fake": 4, "real": 2, "clean": 3, "with regions": 3},
        **{"train": 4, "test": 2},
    }
    assert f"1 photographs are not in {root / 'real'}, e.g. t2" in result.warnings[0]
    lines = {(line.uid, line.generator): line for line in read_manifest(result.manifest)}
    marked = lines["t1", "sdxl"]
    assert marked.regions == (
        Region((10.0, 0.0, 48.0, 21.0), CAPTIONS["low-level-symbol"]),
        Region((1.0, 2.0, 6.0, 10.0), CAPTIONS["high-level-semantics"]),
    )
    assert (marked.categories, marked.annotation) == (1 << 3 | 1 << 5, Annotation.MASK)
    assert (lines["t1", "flux"].annotation, lines["t1", "flux"].regions) == (Annotation.CLEAN, ())
    assert {uid for uid, generator in lines if generator == "real"} == {"t1", "e1"}
    assert (out / "images/xaigd_boxes/sdxl/t1.png").read_bytes() == png(pixels("t1sdxl"))
    # the shards themselves have the same regions
    shards = build_xaigd_splits(DataConfig(name="xaigd", root=str(root), val_fraction=0.01), 0)
    samples = [part.load(k) for part in shards.values() for k in range(len(part.records))]
    found = {(s.record.uid, s.record.generator): s.regions for s in samples}
    assert found["t1", "sdxl"] == marked.regions
    assert found["e1", "sdxl"] == lines["e1", "sdxl"].regions
    assert found["t1", "flux"] is None  # annotated as clean
    source = load_manifest(result.manifest)["test"]
    index = [record.label for record in source.records].index(1)
    sample = source.load(index)
    expected = np.zeros((HEIGHT, WIDTH), np.uint8)
    expected[2:10, 1:6] = 1
    assert (sample.mask == expected).all()
    assert (sample.image == pixels("e1sdxl")).all()


POINTS = st.lists(st.tuples(st.floats(-90, 90), st.floats(-90, 90)), min_size=3, max_size=6)


@given(POINTS)
def test_the_box_is_the_one_around_the_pixels_that_the_benchmark_draws(points):
    whole = np.array([[int(x), int(y)] for x, y in points], np.int32)
    whole[:, 0] = np.minimum(np.maximum(whole[:, 0], 0), WIDTH - 1)
    whole[:, 1] = np.minimum(np.maximum(whole[:, 1], 0), HEIGHT - 1)
    plane = np.zeros((HEIGHT, WIDTH), np.uint8)
    cv2.fillPoly(plane, [whole], 1)
    rows, columns = np.nonzero(plane)
    label = {"label": "low-level-color", "points": [list(point) for point in points]}
    expected = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
    assert polygon_box(label, HEIGHT, WIDTH, "x") == expected


def test_every_category_has_a_caption_of_its_own():
    assert list(CAPTIONS) == [category.label for category in CATEGORIES]
    assert len(set(CAPTIONS.values())) == len(CATEGORIES)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([row("a", "g", [{**HAND, "label": "hand"}])], r"#0 \(g/a\): polygon 0: unknown artifact"),
        ([row("a", "g", [HAND, {**HAND, "points": [[1, 2]]}])], r"\(g/a\): polygon 1: .*1 points"),
        (
            [row("a", "g", [HAND], width=64)],
            r"\(g/a\): the image is 48x64, its annotation is for 64",
        ),
        ([row("a", "g", [])] * 2, r"#1 \(g/a\): .*a.png is annotated twice"),
        ([row("", "g", [])], "uid is empty"),
    ],
)
def test_a_bad_row_is_named(tmp_path, rows, message):
    shard(tmp_path / "x", "labeled_test", rows)
    with pytest.raises(ArtifactNetError, match=message):
        convert_dataset("xaigd_boxes", tmp_path / "x", tmp_path / "out")
    assert not (tmp_path / "out" / "xaigd_boxes.jsonl").exists()


def test_damaged_images_and_missing_parts(tmp_path):
    root, out = tmp_path / "x", tmp_path / "out"
    damaged = {"bytes": png(pixels("b"))[:40], "path": "b.png"}
    shard(root, "labeled_test", [row("a", "g/h", [HAND]), row("b", "g", [], image=damaged)])
    result = convert_dataset("xaigd_boxes", root, out)
    assert result.counts["images"] == 1
    assert f"no photographs: there is no {root / 'real'}; name their folder" in result.warnings[0]
    assert "1 images cannot be read" in result.warnings[1]
    with pytest.raises(ArtifactNetError, match="none: no such folder of photographs"):
        convert_dataset("xaigd_boxes", root, out, images=tmp_path / "none", overwrite=True)
    with pytest.raises(ArtifactNetError, match="takes no --generator"):
        convert_dataset("xaigd_boxes", root, out, generator="g", overwrite=True)
    shard(tmp_path / "y", "unlabeled_test", [row("a", "g", [])])
    with pytest.raises(ArtifactNetError, match="only unlabeled_test shards, which have no polyg"):
        convert_dataset("xaigd_boxes", tmp_path / "y", out, name="y")
    for name in ("7.png", "s/7.jpg"):
        picture(root / "real" / name)
    with pytest.raises(ArtifactNetError, match="two images of uid '7'"):
        convert_dataset("xaigd_boxes", root, out, name="twins")
