"""The X-AIGD source on small shards in the data set's own schema."""

import json
import multiprocessing
import pickle
import shutil
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from annotated_files import png
from PIL import Image

from artifactnet.benchmarks.xaigd.labels import read_labels
from artifactnet.config import AugmentConfig, DataConfig
from artifactnet.data.images import decode_image, encode_jpeg
from artifactnet.data.masks import rasterize
from artifactnet.data.shards import SCHEMA
from artifactnet.data.sources import xaigd
from artifactnet.taxonomy import BY_LABEL
from artifactnet.types import Annotation, ArtifactNetError

HEIGHT, WIDTH = 24, 32
SQUARE = [[2.0, 3.0], [9.0, 3.0], [9.0, 10.0], [2.0, 10.0]]


def pixels(*key) -> np.ndarray:
    seed = list(repr(key).encode())
    return np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)


def polygon(label: str = "low-level-texture", points=None) -> dict:
    return {"label": label, "points": SQUARE if points is None else points}


def row(uid: str, generator: str = "sdxl", labels=(), **changes) -> dict:
    data = {"bytes": png(pixels(uid, generator)), "path": f"{uid}.png"}
    basic = {"image": data, "generator": generator, "uid": uid, "labels": list(labels)}
    codec = {"image_format": "JPEG", "jpeg_quality": 80, "chroma_subsampling": "4:2:0"}
    return basic | codec | {"width": WIDTH, "height": HEIGHT} | changes


def shard(path: Path, rows: list[dict], row_group_size: int = 2, schema=SCHEMA) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pylist(rows, schema=schema)
    pq.write_table(table, path, row_group_size=row_group_size)
    return path


def photographs(folder: Path, uids) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for uid in uids:
        Image.fromarray(pixels(uid)).save(folder / f"{uid}.jpg")
    return folder


@pytest.fixture
def root(tmp_path) -> Path:
    """Ten labeled training uids, four test uids, three unlabeled ones, photographs of all."""
    train = [row(f"t{k}", labels=[polygon()] if k % 2 else []) for k in range(10)]
    train += [row(f"t{k}", "flux", [polygon("low-level-color")]) for k in range(3)]
    shard(tmp_path / "data" / "labeled_train-00000-of-00002.parquet", train[:7])
    shard(tmp_path / "data" / "labeled_train-00001-of-00002.parquet", train[7:])
    test = [row(f"e{k}", labels=[polygon(), polygon("high-level-semantics")]) for k in range(4)]
    shard(tmp_path / "data" / "labeled_test-00000-of-00001.parquet", test)
    spare = [row("t0", "sd3"), row("u0", "sd3"), row("u1", "sd3"), row("u1", "flux")]
    shard(tmp_path / "data" / "unlabeled_train-00000-of-00001.parquet", spare)
    shard(tmp_path / "data" / "unlabeled_test-00000-of-00001.parquet", [row("e0", "sd3")])
    uids = [*(f"t{k}" for k in range(10)), *(f"e{k}" for k in range(4)), "u0", "u1"]
    photographs(tmp_path / "real", uids)
    return tmp_path


def build(root: Path, seed: int = 0, **options):
    return xaigd.build_xaigd_splits(DataConfig(name="xaigd", root=str(root), **options), seed)


def find(source, uid: str, generator: str) -> int:
    (index,) = [k for k, r in enumerate(source.records) if (r.uid, r.generator) == (uid, generator)]
    return index


def uids(source, label: int | None = None) -> list[str]:
    return sorted(r.uid for r in source.records if label is None or r.label == label)


def test_splits(root):
    splits = build(root, val_fraction=0.3)
    assert list(splits) == ["train", "val", "test"]
    names = {name: set(uids(source)) for name, source in splits.items()}
    assert len(names["val"]) == 3
    assert names["train"] | names["val"] == {f"t{k}" for k in range(10)}
    assert not names["train"] & names["val"]
    assert names["test"] == {f"e{k}" for k in range(4)}
    for source in splits.values():
        assert source.warnings == ()
        real = uids(source, 0)
        assert real == sorted(set(uids(source, 1)))  # one photograph per uid


def test_images_masks_and_states(root):
    source = build(root)["test"]
    bits = BY_LABEL["low-level-texture"].bit | BY_LABEL["high-level-semantics"].bit
    expected = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    expected[3:11, 2:10] = bits
    for index, record in enumerate(source.records):
        sample = source.load(index)
        if record.label:
            np.testing.assert_array_equal(sample.image, pixels(record.uid, "sdxl"))
            np.testing.assert_array_equal(sample.mask, expected)
            assert (record.annotation, record.categories) == (Annotation.MASK, bits)
            assert source.encoded(index) == png(pixels(record.uid, "sdxl"))
            assert record.path is None
            assert record.location.endswith(f"labeled_test-00000-of-00001.parquet#{index}")
        else:
            np.testing.assert_array_equal(sample.image, decode_image(record.path, "x"))
            assert sample.mask is source.encoded(index) is None
            assert (record.annotation, record.generator) == (Annotation.CLEAN, "real")
    source = build(root, val_fraction=0.0)["train"]
    index = find(source, "t0", "sdxl")  # a labeled row without polygons
    assert source.records[index].annotation is Annotation.CLEAN
    assert source.load(index).mask is None


def test_unlabeled_rows_go_where_their_uid_goes(root):
    plain = build(root, val_fraction=0.3)
    splits = build(root, val_fraction=0.3, unlabeled=True)
    source = splits["val" if "t0" in uids(plain["val"]) else "train"]
    index = find(source, "t0", "sd3")
    assert source.records[index].annotation is Annotation.NONE
    np.testing.assert_array_equal(source.load(index).image, pixels("t0", "sd3"))
    assert find(splits["train"], "u1", "flux") >= 0
    assert find(splits["test"], "e0", "sd3") >= 0
    assert set(uids(splits["val"])) == set(uids(plain["val"]))
    assert all(record.generator != "sd3" for s in plain.values() for record in s.records)
    for path in (root / "data").glob("labeled_*"):
        path.unlink()
    splits = build(root, unlabeled=True, val_fraction=0.4)
    assert set(uids(splits["train"])) | set(uids(splits["val"])) == {"t0", "u0", "u1"}
    with pytest.raises(ArtifactNetError, match=r"only unlabeled_train, .*data\.unlabeled=true"):
        build(root)


def test_validation_on_unlabeled_uids(root):
    splits = build(root, unlabeled_val=1, extra_real=True)
    (chosen,) = set(uids(splits["val"]))
    assert chosen in ("u0", "u1")
    other = {"u0": "u1", "u1": "u0"}[chosen]
    fakes = [r for r in splits["val"].records if r.label]
    assert {r.annotation for r in fakes} == {Annotation.NONE}
    assert sorted(r.generator for r in fakes) == (["flux", "sd3"] if chosen == "u1" else ["sd3"])
    assert uids(splits["val"], 0) == [chosen]
    assert set(uids(splits["train"], 1)) == {f"t{k}" for k in range(10)}
    assert set(uids(splits["train"], 0)) == {*(f"t{k}" for k in range(10)), other}
    assert {uids(build(root, seed, unlabeled_val=1)["val"])[0] for seed in range(8)} == {"u0", "u1"}
    with_rows = build(root, unlabeled_val=1, unlabeled=True)
    assert chosen not in uids(with_rows["train"])
    assert other in uids(with_rows["train"], 1)
    with pytest.raises(ArtifactNetError, match=r"unlabeled_val=3: unlabeled_train has 2 uids"):
        build(root, unlabeled_val=3)  # t0 has a labeled row


def test_extra_real_photographs(root):
    source = build(root, extra_real=True, val_fraction=0.0)["train"]
    assert {"u0", "u1"} <= set(uids(source, 0))
    assert not {"u0", "u1"} & set(uids(source, 1))
    splits = build(root, extra_real=True, val_fraction=0.3)
    assert not set(uids(splits["train"])) & set(uids(splits["val"]))


def test_generators_and_limit(root):
    splits = build(root, generators=["flux"], val_fraction=0.0)
    assert list(splits) == ["train"]
    assert uids(splits["train"], 1) == uids(splits["train"], 0) == ["t0", "t1", "t2"]
    with pytest.raises(ArtifactNetError, match=r"data\.generators: 'dalle'.*flux, sdxl"):
        build(root, generators=["dalle"])
    for source in build(root, limit=2).values():
        assert len(set(uids(source))) <= 2
        assert {record.label for record in source.records} == {0, 1}


def test_real_root_nested_and_of_other_formats(root, tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for path in (root / "real").iterdir():
        target = folder / path.stem[0] / f"{path.stem}.png"
        target.parent.mkdir(exist_ok=True)
        Image.open(path).save(target)
    splits = build(root, real_root=str(folder))
    real = [record for record in splits["test"].records if record.label == 0]
    assert all(record.path and record.path.endswith(".png") for record in real)
    assert len(real) == 4


def test_missing_photographs_and_shards_are_counted(root):
    for name in ("t1", "e2"):
        (root / "real" / f"{name}.jpg").unlink()
    splits = build(root)
    for source in splits.values():
        (text,) = source.warnings
        assert "2 of 14 real images are missing" in text
    assert "e2" in uids(splits["test"], 1)
    assert "e2" not in uids(splits["test"], 0)
    (root / "data" / "labeled_train-00000-of-00002.parquet").unlink()
    assert any("labeled_train: 1 of 2 shards" in text for text in build(root)["train"].warnings)


def test_unusable_photographs(root, tmp_path_factory):
    Image.fromarray(pixels(1)).save(root / "real" / "t0.png")
    with pytest.raises(ArtifactNetError, match=r"two images of uid 't0'.*t0\.jpg.*t0\.png"):
        build(root)
    empty = tmp_path_factory.mktemp("empty")
    with pytest.raises(ArtifactNetError, match=r"14 of 14 real images are missing"):
        build(root, real_root=str(empty))
    shutil.rmtree(root / "real")
    with pytest.raises(ArtifactNetError, match=r"data\.real_root is not set"):
        build(root)
    with pytest.raises(ArtifactNetError, match="nowhere: no such folder"):
        build(root, real_root=str(root / "nowhere"))


def one_row(tmp_path, **changes):
    photographs(tmp_path / "real", ["a"])
    shard(tmp_path / "labeled_test-00000-of-00001.parquet", [row("a") | changes])
    return tmp_path


@pytest.mark.parametrize(
    "column", ["image", "generator", "uid", "labels", "width", "height", "jpeg_quality"]
)
def test_missing_column(tmp_path, column):
    schema = SCHEMA.remove(SCHEMA.get_field_index(column))
    shard(tmp_path / "labeled_test-0.parquet", [row("a")], schema=schema)
    augment = AugmentConfig(align_compression=column == "jpeg_quality")
    with pytest.raises(ArtifactNetError, match=rf"labeled_test-0\.parquet: column '{column}'"):
        build(tmp_path, augment=augment)


@pytest.mark.parametrize("keep", [0, 10, 400])
def test_damaged_shard(tmp_path, keep):
    path = shard(tmp_path / "labeled_test-0.parquet", [row("a")])
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ArtifactNetError, match=r"labeled_test-0\.parquet: cannot") as caught:
        build(tmp_path)
    assert "\n" not in str(caught.value)


def test_shards_of_another_kind(tmp_path):
    with pytest.raises(ArtifactNetError, match=r"no X-AIGD shards; expected data/labeled_train"):
        build(tmp_path)
    with pytest.raises(ArtifactNetError, match=r"data\.root is not set"):
        xaigd.build_xaigd_splits(DataConfig(name="xaigd"), 0)
    schema = SCHEMA.set(0, pa.field("image", pa.string()))
    shard(tmp_path / "labeled_test-0.parquet", [row("a", image="a.png")], schema=schema)
    with pytest.raises(ArtifactNetError, match="column 'image' must be a struct .* not string"):
        build(tmp_path)


@pytest.mark.parametrize(
    ("label", "message"),
    [
        (polygon("low-level-smell"), "unknown artifact category 'low-level-smell'"),
        (polygon(points=[[0.0, 0.0], [1.0, 1.0]]), "'low-level-texture' has 2 points"),
    ],
)
def test_malformed_labels(tmp_path, label, message):
    root = one_row(tmp_path, labels=[label, polygon("low-level-color")])
    where = r"labeled_test-00000-of-00001\.parquet#0 \(sdxl/a\): .*"
    with pytest.raises(ArtifactNetError, match=where + message):
        build(root)
    source = build(root, on_error="skip")["test"]  # the bad row is met when it is loaded
    with pytest.raises(ArtifactNetError, match=where + message):
        source.load(0)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"image": None}, "the row has no image bytes"),
        ({"image": {"bytes": None, "path": "a.png"}}, "the row has no image bytes"),
        ({"image": {"bytes": png(pixels("a"))[:400], "path": ""}}, "truncated"),
        ({"labels": [polygon()], "width": WIDTH + 1}, r"the image is 32x24.*for 33x24"),
    ],
)
def test_unusable_rows_are_named(tmp_path, changes, problem):
    source = build(one_row(tmp_path, **changes))["test"]
    with pytest.raises(ArtifactNetError, match=rf"labeled_test.*#0: .*{problem}"):
        source.load(0)
    for column in ("uid", "generator"):
        with pytest.raises(ArtifactNetError, match=f"#0: {column} is empty"):
            build(one_row(tmp_path, **{column: None}))


@pytest.mark.parametrize(
    ("changes", "codec"),
    [
        ({}, (80, "4:2:0")),
        ({"jpeg_quality": 35, "chroma_subsampling": "4:4:4"}, (35, "4:4:4")),
        ({"chroma_subsampling": None}, (80, "4:2:0")),
        ({"image_format": "PNG"}, None),
        ({"jpeg_quality": 0}, None),
        ({"jpeg_quality": None}, None),
        ({"image_format": None, "jpeg_quality": None, "chroma_subsampling": None}, None),
    ],
)
def test_compression_alignment(tmp_path, changes, codec):
    root = one_row(tmp_path, **changes)
    source = build(root, augment=AugmentConfig(align_compression=True))["test"]
    original = pixels("a", "sdxl")
    expected = original if codec is None else decode_image(encode_jpeg(original, *codec), "x")
    np.testing.assert_array_equal(source.load(0).image, expected)
    np.testing.assert_array_equal(build(root)["test"].load(0).image, original)
    if codec is None:
        assert "1 of 1 fakes stay as they are" in source.warnings[0]
    else:
        assert source.warnings == ()


def test_one_row_group_is_read_at_a_time(root, monkeypatch):
    source = build(root)["test"]
    reads = []
    original = pq.ParquetFile.read_row_group

    def spy(self, group, **options):
        reads.append((group, options["columns"]))
        return original(self, group, **options)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", spy)
    for index in (0, 1, 0, 3, 2, 1):
        source.load(index)
    assert [group for group, _ in reads] == [0, 1, 0]
    assert all("original_prompt" not in columns for _, columns in reads)


def load_three(source, queue=None):
    sums = [int(source.load(index).image.sum()) for index in (3, 0, 2)]
    if queue is not None:
        queue.put(sums)
    return sums


def test_pickle_and_fork_after_use(root):
    source = build(root)["test"]
    expected = load_three(source)
    copy = pickle.loads(pickle.dumps(source))
    assert copy.records == source.records
    assert load_three(copy) == expected
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    children = [context.Process(target=load_three, args=(source, queue)) for _ in range(2)]
    for child in children:
        child.start()
    results = [queue.get(timeout=60) for _ in children]
    for child in children:
        child.join(timeout=60)
    assert results == [expected, expected]


def test_named_validation_uids_are_taken_and_the_public_table_is_not_mistaken(root):
    plain = build(root, val_fraction=0.3)
    table = root / "uid_splits.csv"
    for text in ("uid,split\nt1,train\ne1,test\n", "image,part\nt1,val\n", ""):
        table.write_text(text)
        assert uids(build(root, val_fraction=0.3)["val"]) == uids(plain["val"])
    table.write_text("uid,split\nt1,train\nt2,val\nt5,val\nelsewhere,val\n")
    written = table.read_text()
    for seed, encoding in enumerate(("utf-8", "utf-8-sig", "utf-8")):
        table.write_text(written.replace("val", ("val", "Validation", "dev")[seed]), encoding)
        splits = build(root, seed, val_fraction=0.3)
        assert set(uids(splits["val"])) == {"t2", "t5"}
        assert set(uids(splits["train"])) == {f"t{k}" for k in range(10)} - {"t2", "t5"}
    table.write_bytes(b"uid,split\n\xff\xfe,val\n")
    with pytest.raises(ArtifactNetError, match=r"uid_splits\.csv: cannot be read as CSV"):
        build(root)


# --- the forms in which writers of parquet store labels, names and images ---

TEXTURE, COLOR = "low-level-texture", "low-level-color"
TRIANGLE = [[12.0, 3.0], [20.0, 3.0], [20.0, 14.0]]
POLYGONS = [polygon(TEXTURE), polygon(COLOR, TRIANGLE)]


def xy(points) -> list[dict]:
    return [{"x": x, "y": y} for x, y in points]


def columns(polygons) -> dict:
    return {key: [item[key] for item in polygons] for key in ("label", "points")}


def transposed(points) -> dict:
    return {"x": [x for x, _ in points], "y": [y for _, y in points]}


def with_points(change) -> list[dict]:
    return [{**item, "points": change(item["points"])} for item in POLYGONS]


LARGE = pa.large_list(
    pa.struct(
        [
            ("points", pa.large_list(pa.list_(pa.float32(), 2))),
            ("score", pa.float64()),
            ("label", pa.large_string()),
        ]
    )
)
CODED = pa.list_(
    pa.struct(
        [
            ("label", pa.dictionary(pa.int32(), pa.string())),
            ("points", pa.list_(pa.list_(pa.int16()))),
        ]
    )
)
FORMS = {
    "list of structs": pa.array([POLYGONS]),
    "struct of lists": pa.array([columns(POLYGONS)]),
    "JSON text": pa.array([json.dumps(POLYGONS)]),
    "JSON text of a struct of lists": pa.array([json.dumps(columns(POLYGONS), indent=1)]),
    "JSON text, large and coded": pa.array([json.dumps(POLYGONS)], pa.large_string()).cast(
        pa.dictionary(pa.int8(), pa.large_string())
    ),
    "JSON bytes": pa.array([json.dumps(POLYGONS).encode()]),
    "JSON text of each polygon": pa.array([[json.dumps(item) for item in POLYGONS]]),
    "JSON text of points": pa.array([with_points(json.dumps)]),
    "points as structs": pa.array([with_points(xy)]),
    "points as lists of x and y": pa.array([with_points(transposed)]),
    "points of a struct of lists as lists of x and y": pa.array([columns(with_points(transposed))]),
    "flat points": pa.array([with_points(lambda p: [v for pair in p for v in pair])]),
    "large and fixed lists, float32, other fields": pa.array([POLYGONS], LARGE),
    "coded labels, integer points": pa.array([POLYGONS], CODED),
    "arrays of numpy": pa.array([with_points(lambda p: [np.array(pair) for pair in p])]),
}


def table_of(tmp_path, **columns):
    """A shard of one row: ``columns`` are arrays of length one; the others are as published."""
    photographs(tmp_path / "real", ["7"])
    table = pa.Table.from_pylist([row("7", labels=POLYGONS)], schema=SCHEMA)
    for name, values in columns.items():
        table = table.set_column(table.column_names.index(name), name, values)
    pq.write_table(table, tmp_path / "labeled_test-0.parquet")
    return tmp_path


@pytest.mark.parametrize("form", FORMS)
def test_labels_in_every_form(tmp_path, form):
    root = table_of(tmp_path, labels=FORMS[form])
    source = build(root)["test"]
    index = find(source, "7", "sdxl")
    expected = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    expected[3:11, 2:10] = BY_LABEL[TEXTURE].bit
    cv2.fillPoly(expected, [np.array(TRIANGLE, np.int32)], BY_LABEL[COLOR].bit)
    np.testing.assert_array_equal(source.load(index).mask, expected)
    assert source.records[index].categories == BY_LABEL[TEXTURE].bit | BY_LABEL[COLOR].bit
    (scored,) = read_labels([str(root / "labeled_test-0.parquet")])
    drawn = rasterize(scored.labels, scored.height, scored.width, "x")
    np.testing.assert_array_equal(drawn, expected)


NOTHING = {
    "null": pa.nulls(1),
    "a null list": pa.array([None], SCHEMA.field("labels").type),
    "an empty list": pa.array([[]]),
    "an empty struct of lists": pa.array([columns([])]),
    "a struct of nulls": pa.array([{"label": None, "points": None}]),
    "a null struct": pa.array([None], pa.struct([("label", pa.string()), ("points", pa.string())])),
    "empty JSON": pa.array([" [] "]),
    "null in JSON": pa.array(["null"]),
    "empty text": pa.array([""]),
    "a null text": pa.array([None], pa.string()),
}


@pytest.mark.parametrize("form", NOTHING)
def test_rows_without_polygons_are_clean_in_every_form(tmp_path, form):
    source = build(table_of(tmp_path, labels=NOTHING[form]))["test"]
    assert source.records[find(source, "7", "sdxl")].annotation is Annotation.CLEAN
    (scored,) = read_labels([str(tmp_path / "labeled_test-0.parquet")])
    assert not scored.labels


@pytest.mark.parametrize(
    "uid",
    [
        pa.array([7], pa.int64()),
        pa.array([7], pa.uint8()),
        pa.array([7], pa.int32()).dictionary_encode(),
        pa.array([7.0]),
        pa.array([7.0], pa.float32()),
        pa.array([7], pa.decimal128(20, 4)),
        pa.array(["7"], pa.large_string()),
        pa.array(["7"], pa.string_view()),
        pa.array(["7"]).dictionary_encode(),
        pa.array([b"7"]),
    ],
    ids=str,
)
def test_uid_and_generator_of_every_type(tmp_path, uid):
    root = table_of(tmp_path, uid=uid, width=pa.array([float(WIDTH)]), generator=uid)
    source = build(root)["test"]
    index = find(source, "7", "7")
    assert source.load(index).mask.any()
    assert find(source, "7", "real") >= 0  # the photograph of this uid
    (scored,) = read_labels([str(root / "labeled_test-0.parquet")])
    assert (scored.uid, scored.generator, scored.width) == ("7", "7", WIDTH)


@pytest.mark.parametrize(
    ("uid", "problem"),
    [
        (pa.array([7.5]), "uid must be text or a whole number, not 7.5"),
        (pa.array([float("inf")]), "uid must be .*inf"),
        (pa.array([float("nan")]), "uid is empty"),
        (pa.array([2.0**54]), "uid must be"),  # its neighbour is the same float
        (pa.array([2.0**25], pa.float32()), "uid must be"),
        (pa.array([b"\xff"]), "uid must be"),
        (pa.array(["a\0b"]), "uid must be"),
        (pa.array([True]), r"0\.parquet: column 'uid' must be text or whole numbers, not bool"),
        (pa.array([["7"]]), r"0\.parquet: column 'uid' must be .*not list"),
    ],
)
def test_uids_that_name_nothing(tmp_path, uid, problem):
    root = table_of(tmp_path, uid=uid)
    with pytest.raises(ArtifactNetError, match=problem) as caught:
        build(root)
    assert "labeled_test-0.parquet" in str(caught.value)
    with pytest.raises(ArtifactNetError, match=problem):
        read_labels([str(root / "labeled_test-0.parquet")])


PNG = png(pixels("7", "sdxl"))


@pytest.mark.parametrize(
    "image",
    [
        pa.array([PNG]),
        pa.array([PNG], pa.large_binary()),
        pa.array([PNG], pa.binary_view()),
        pa.array([PNG]).dictionary_encode(),
        pa.array([{"path": "a.png", "bytes": PNG, "hash": 3}]),
        pa.array([{"bytes": PNG}], pa.struct([("bytes", pa.large_binary())])),
    ],
    ids=lambda array: str(array.type),
)
def test_images_of_every_type(tmp_path, image):
    source = build(table_of(tmp_path, image=image))["test"]
    np.testing.assert_array_equal(source.load(0).image, pixels("7", "sdxl"))
    assert source.encoded(0) == PNG


BAD_LABELS = [
    (pa.array([[{"label": TEXTURE, "points": 3}]]), "'points' must be"),
    (pa.array([[{"label": 3, "points": SQUARE}]]), "'label' must be text, not 3"),
    (pa.array([[None, *POLYGONS]]), "polygon 0 must have 'label' and 'points'"),
    (pa.array([{"label": [TEXTURE], "points": [SQUARE, TRIANGLE]}]), "1 categories, but 2 polyg"),
    (pa.array(["low-level-texture"]), "not readable as JSON"),
    (pa.array(["{'label': 'a'}"]), "not readable as JSON"),
    (pa.array(["[" * 100_000]), "not readable as JSON .*deep"),
    (pa.array(["7"]), "labels must be .*, not 7"),
    (pa.array(['{"points": []}']), "labels must have 'label' and 'points'"),
    (pa.array(['[{"label": ["a"], "points": []}]']), "'label' must be text"),
    (pa.array([json.dumps([polygon(points=[[1, 2], [3, 4], [5]])])]), "finite"),
    (pa.array([json.dumps([polygon(points=[[1, 2], [3, 4], [5, 10**400]])])]), "finite"),
    (pa.array([json.dumps([polygon(points=[[1, 2], [3, 4], [5, float("nan")]])])]), "finite"),
    (pa.array([json.dumps([polygon(points={"x": [1, 2, 3], "y": [1, 2]})])]), "'points' must"),
]


@pytest.mark.parametrize(("labels", "problem"), BAD_LABELS)
def test_labels_of_no_known_form_name_the_row(tmp_path, labels, problem):
    root = table_of(tmp_path, labels=labels)
    where = r"labeled_test-0\.parquet#0 \(sdxl/7\): .*"
    with pytest.raises(ArtifactNetError, match=where + problem) as caught:
        build(root)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600
    source = build(root, on_error="skip")["test"]  # the bad row is met when it is loaded
    with pytest.raises(ArtifactNetError, match=problem):
        source.load(0)


@pytest.mark.parametrize(
    ("column", "values", "expected"),
    [
        ("labels", pa.array([[1, 2]]), "a list of structs with 'label' and 'points'"),
        ("labels", pa.array([[{"category": "a"}]]), "'label' and 'points'"),
        ("labels", pa.array([1.5]), "not double"),
        ("image", pa.array([[1, 2]]), "a struct with 'bytes', or the bytes of an image file"),
        ("image", pa.array([{"path": "a.png"}]), "a struct with 'bytes'"),
        ("width", pa.array(["32"]), "whole numbers, not string"),
        ("generator", pa.array([{"a": 1}]), "text or whole numbers, not struct"),
    ],
)
def test_columns_of_a_wrong_type_are_named(tmp_path, column, values, expected):
    root = table_of(tmp_path, **{column: values})
    named = rf"labeled_test-0\.parquet: column '{column}' must be .*{expected}"
    with pytest.raises(ArtifactNetError, match=named) as caught:
        build(root)
    assert "\n" not in str(caught.value)


def test_a_column_that_occurs_twice(tmp_path):
    root = table_of(tmp_path)
    path = tmp_path / "labeled_test-0.parquet"
    table = pq.read_table(path)
    pq.write_table(table.append_column("uid", pa.array(["8"])), path)
    with pytest.raises(ArtifactNetError, match="column 'uid' occurs 2 times"):
        build(root)
    pq.write_table(table.append_column("extra", pa.array([{"a": [1]}])), path)
    assert len(build(root)["test"].records) == 2
