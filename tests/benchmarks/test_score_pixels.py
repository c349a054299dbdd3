"""``score-pixels``: the table of the benchmark, from files, against loops over full masks."""

from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pytest
from metric_reference import draw, ratios
from PIL import Image
from score_files import (
    CATEGORIES,
    SCHEMA,
    polygon,
    random_rows,
    read_csv,
    row,
    square,
    write_labels,
    write_mask,
)

from artifactnet.benchmarks.xaigd import pixels as module
from artifactnet.benchmarks.xaigd.pixels import PixelTask, View, score_pixels
from artifactnet.benchmarks.xaigd.tables import check_outputs
from artifactnet.types import ArtifactNetError

AGNOSTIC, FINE = "category-agnostic", "fine-grained"
COLUMNS = "generator task category IoU PixP PixR PixF1 evaluated_images zero_prediction_images"
EDGE, TEXTURE = "low-level-edge_shape", "low-level-texture"


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("masks").mkdir()
    return tmp_path


def score(task=AGNOSTIC, view=None, threshold=127, workers=1):
    predictions = PixelTask("masks", task, view or View(), threshold)
    return score_pixels(["labels.parquet"], predictions, workers)


def reference_truth(entry, category, resize, short, crop):
    polygons = [p["points"] for p in entry["labels"] if category in (None, p["label"])]
    mask = draw(polygons, entry["height"], entry["width"])
    height, width = mask.shape
    if short and height < width:
        resize = short, int(width * short / height)
    elif short:
        resize = int(height * short / width), short
    if resize:
        mask = cv2.resize(mask, resize[::-1], interpolation=cv2.INTER_NEAREST)
    if crop:
        top, left = (mask.shape[0] - crop[0]) // 2, (mask.shape[1] - crop[1]) // 2
        mask = mask[top : top + crop[0], left : left + crop[1]]
    return mask > 0


def reference_counts(entry, category, folder, threshold, sizes):
    truth = reference_truth(entry, category, *sizes)
    found = np.zeros_like(truth)
    for path in sorted(Path(folder).glob("*.png")):
        found |= np.array(Image.open(path)) > threshold
    pairs = list(zip(truth.ravel().tolist(), found.ravel().tolist(), strict=True))
    outcomes = ((True, True), (False, True), (True, False))
    return [*map(pairs.count, outcomes), 1, int(not found.any())]


def reference_row(generator, task, category, counts):
    tp, fp, fn, images, empty = (sum(column) for column in zip(*counts, strict=True))
    p, r, f1 = ratios(tp, fp, fn)
    iou = tp / (tp + fp + fn) if tp + fp + fn else 0.0
    values = (generator, task, category or "all", iou, p, r, f1, images, empty)
    return dict(zip(COLUMNS.split(), values, strict=True))


def reference_tables(rows, task, threshold=127, sizes=(None, None, None)):
    tables = []
    for group in ["all", *sorted({r["generator"] for r in rows})]:
        for category in CATEGORIES if task == FINE else [None]:
            counts = []
            for entry in rows:
                if group in ("all", entry["generator"]):
                    folder = Path("masks", entry["generator"], category or "", entry["uid"])
                    counts.append(reference_counts(entry, category, folder, threshold, sizes))
            tables.append(reference_row(group, task, category, counts))
    overall = len(CATEGORIES) if task == FINE else 1
    return tables[:overall], tables[overall:]


def assert_equal(ours, expected):
    assert len(ours) == len(expected)
    for line, right in zip(ours, expected, strict=True):
        assert list(line) == list(right) == COLUMNS.split()
        for key, value in right.items():
            near = isinstance(value, float)
            assert line[key] == (pytest.approx(value, abs=1e-12) if near else value), key


def random_predictions(rng, rows, task, sizes=(None, None, None)):
    """Up to three gray masks for an image (and category); some black, some folders empty."""
    for entry in rows:
        for category in CATEGORIES if task == FINE else [""]:
            folder = Path("masks", entry["generator"], category, entry["uid"])
            shape = reference_truth(entry, None, *sizes).shape
            kind = rng.integers(5)
            if kind == 0:
                continue
            folder.mkdir(parents=True, exist_ok=True)
            for k in range(kind - 1):
                coarse = rng.integers(0, 200, (4, 4), dtype=np.uint8)
                gray = cv2.resize(coarse, shape[::-1], interpolation=cv2.INTER_LINEAR)
                write_mask(folder / f"{k}.png", gray * np.uint8(rng.random() < 0.8))


def test_worked_by_hand(place):
    """10x10: truth 4x4 at the corner, prediction 4x4 moved by 2; and an image without either."""
    write_labels(
        "labels.parquet", [row("g", "a", 10, 10, square(EDGE, 0, 0, 4)), row("g", "b", 5, 5)]
    )
    found = np.zeros((10, 10), bool)
    found[2:6, 2:6] = True  # 4 of 16 pixels lie on the truth
    write_mask("masks/g/a/m.png", found)
    table = score()
    (line,) = table.overall
    assert (line["IoU"], line["PixP"], line["PixR"], line["PixF1"]) == (4 / 28, 0.25, 0.25, 0.25)
    assert (line["generator"], line["task"], line["category"]) == ("all", AGNOSTIC, "all")
    assert (line["evaluated_images"], line["zero_prediction_images"]) == (2, 1)
    assert table.per_generator == [{**line, "generator": "g"}]
    assert (table.images, table.warnings) == (2, ())


@pytest.mark.parametrize("task", [AGNOSTIC, FINE])
@pytest.mark.parametrize("seed", range(4))
def test_equals_the_reference(place, task, seed):
    rng = np.random.default_rng(seed)
    rows = random_rows(rng)
    write_labels("labels.parquet", rows)
    random_predictions(rng, rows, task)
    threshold = int(rng.integers(0, 200))
    table = score(task, threshold=threshold)
    overall, per_generator = reference_tables(rows, task, threshold)
    assert_equal(table.overall, overall)
    assert_equal(table.per_generator, per_generator)
    assert any(line["IoU"] > 0 for line in table.overall)


@pytest.mark.parametrize(
    "sizes",
    [
        ((24, 31), None, None),
        (None, 17, None),
        (None, 90, (60, 55)),
        ((64, 64), None, (56, 57)),
        (None, None, (11, 20)),
    ],
)
def test_sizes_equal_the_reference(place, sizes):
    rng = np.random.default_rng(5)
    rows = random_rows(rng, images=4)
    write_labels("labels.parquet", rows)
    random_predictions(rng, rows, AGNOSTIC, sizes)
    table = score(view=View(*sizes))
    assert_equal(table.overall, reference_tables(rows, AGNOSTIC, sizes=sizes)[0])
    assert table.overall[0]["IoU"] > 0


def test_sides_and_crops_are_rounded_down():
    for shape, side, expected in (((30, 40), 20, (20, 26)), ((3, 7), 5, (5, 11))):
        assert View(short_side=side).apply(np.zeros(shape, np.uint8), "x").shape == expected
    mask = np.arange(35, dtype=np.uint8).reshape(5, 7)
    assert View(crop=(2, 2)).apply(mask, "x").tolist() == [[9, 10], [16, 17]]


@pytest.mark.parametrize(("threshold", "found"), [(127, 0), (126, 1), (0, 1), (255, 0)])
def test_above_the_threshold_means_above(place, threshold, found):
    write_labels("labels.parquet", [row("g", "a", 6, 4, square(EDGE, 0, 0, 6))])
    write_mask("masks/g/a/0.png", np.full((4, 6), 127, np.uint8))
    line = score(threshold=threshold).overall[0]
    assert (line["PixR"], line["zero_prediction_images"]) == (found, 1 - found)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "1", "LA", "I;16"])
def test_other_kinds_of_png_count_alike(one, mode):
    mask = np.zeros((4, 6), np.uint8)
    mask[:, :4] = 255
    image = Image.fromarray(mask).convert(mode)
    if mode == "I;16":  # the high byte counts
        image = Image.fromarray(np.where(mask, 32768, 32767).astype(np.uint16))
    image.save("masks/g/a/0.png")
    assert score().overall[0]["IoU"] == 1.0


@pytest.mark.slow
@pytest.mark.usefixtures("preloaded")
def test_several_processes_equal_one(place, monkeypatch):
    monkeypatch.setattr(module, "MIN_IMAGES", 1)
    rng = np.random.default_rng(3)
    rows = random_rows(rng, images=4)
    write_labels("labels.parquet", rows)
    random_predictions(rng, rows, FINE)
    assert score(FINE, workers=2) == score(FINE)
    write_labels("labels.parquet", [row("h", name, 5, 5) for name in "abcd"])
    for name in "bd":
        write_mask(f"masks/h/{name}/0.png", np.zeros((4, 5), bool))
    with pytest.raises(ArtifactNetError, match="masks/h/b/0.png"):
        score(workers=2)


def test_several_files_and_patterns_make_one_table(place):
    rng = np.random.default_rng(1)
    rows = random_rows(rng, images=4)
    random_predictions(rng, rows, AGNOSTIC)
    for name, part in (("test-0", rows[:3]), ("test-1", rows[3:5]), ("last", rows[5:])):
        write_labels(f"parts/{name}.parquet", part)
    # a file that a pattern finds again is read once
    files = ["parts/test-*.parquet", "parts/last.parquet", "parts/test-1.parquet"]
    table = score_pixels(files, PixelTask("masks", AGNOSTIC))
    image = pa.field("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    rows = [{**entry, "image": {"bytes": b"no image"}} for entry in rows]  # which is not read
    write_labels("labels.parquet", rows, SCHEMA.insert(0, image))
    assert score() == table


def test_written_tables(place):
    rng = np.random.default_rng(2)
    rows = random_rows(rng)
    write_labels("labels.parquet", rows)
    random_predictions(rng, rows, FINE)
    table = score(FINE)
    table.write("out/all.csv", "out/each.csv")
    assert Path("out/all.csv").read_text().splitlines()[0] == COLUMNS.replace(" ", ",")
    for path, lines in (("out/all.csv", table.overall), ("out/each.csv", table.per_generator)):
        assert b"\r" not in Path(path).read_bytes()
        read = read_csv(path)
        assert [{k: str(v) for k, v in line.items()} for line in lines] == read
        assert float(read[0]["IoU"]) == lines[0]["IoU"]  # nothing is rounded
    assert sorted(p.name for p in Path("out").iterdir()) == ["all.csv", "each.csv"]


def fails(match, **options):
    with pytest.raises(ArtifactNetError, match=match) as info:
        score(**options)
    assert "\n" not in str(info.value)


@pytest.fixture
def one(place):
    write_labels("labels.parquet", [row("g", "a", 6, 4, square(EDGE, 0, 0, 4))])
    Path("masks/g/a").mkdir(parents=True)
    return place


def test_wrong_masks(one):
    write_mask("masks/g/a/0.png", np.zeros((6, 4), bool))
    fails(r"masks/g/a/0\.png: .*4x6.*6x4")
    Image.new("RGBA", (6, 4), (255, 255, 255, 0)).save("masks/g/a/0.png")
    fails(r"0\.png.*transparent")
    for name in ("0.jpg", "0.PNG"):
        next(Path("masks/g/a").iterdir()).unlink()
        Image.new("L", (6, 4)).save(f"masks/g/a/{name}")
        fails(rf"{name}: .*png")
    Path(f"masks/g/a/{name}").unlink()
    Path("masks/g/a").rmdir()
    Path("masks/g/a").write_text("x")
    fails("masks/g/a: ")


@pytest.mark.parametrize("content", [b"", b"hello", None])
def test_no_image(one, content):
    path = Path("masks/g/a/0.png")
    write_mask(path, np.random.default_rng(0).random((4, 6)) > 0.5)
    path.write_bytes(path.read_bytes()[:50] if content is None else content)
    fails(r"masks/g/a/0\.png")


@pytest.mark.parametrize("path", ["masks/a.png", "masks/g/a.png"])
def test_masks_outside_their_folder(one, path):
    write_mask(path, np.zeros((4, 6), bool))
    fails(rf"{path}: .*uid")


def test_layout_of_the_other_task(one):
    fails("masks/g/a: .* --task category-agnostic", task=FINE)
    Path("masks/g/a").rename("masks/g/low-level-smell")
    fails("masks/g/low-level-smell: ", task=FINE)
    Path("masks/g/low-level-smell").rename("masks/g/old")
    Path(f"masks/g/{EDGE}/a").mkdir(parents=True)
    fails(f"masks/g/{EDGE}: .* --task fine-grained")


def test_predictions_for_other_images(one):
    Path("masks/g/other").mkdir()
    Path("masks/real/x").mkdir(parents=True)
    (warning,) = score().warnings
    assert "masks/g/other and 1 more" in warning
    Path("masks/g/a").rmdir()
    fails("masks/g/other: ")


def test_no_predictions_at_all_score_zero(one):
    Path("masks/g/a").rmdir()
    assert score().overall[0]["zero_prediction_images"] == 1
    Path("masks/g").rmdir()
    Path("masks").rmdir()
    fails("masks: ")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PixelTask("masks", AGNOSTIC, threshold=-1), "threshold.* -1"),
        (lambda: PixelTask("masks", AGNOSTIC, threshold=256), "threshold.* 256"),
        (lambda: PixelTask("masks", "fine"), "task 'fine'"),
        (lambda: View(resize=(0, 5)), "above 0"),
        (lambda: View(short_side=-1), "above 0"),
        (lambda: View(crop=(5, 0)), "above 0"),
        (lambda: View(resize=(5, 5), short_side=5), "not both"),
    ],
)
def test_invalid_options(make, message):
    with pytest.raises(ArtifactNetError, match=message):
        make()


def test_impossible_sizes(one):
    fails(r"labels\.parquet#0 \(g/a\): .*6x5.*6x4", view=View(crop=(5, 6)))
    fails("100000x100000", view=View(resize=(100000, 100000)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": [polygon("low-level-smell", (0, 0), (1, 0), (1, 1))]}, "low-level-smell"),
        ({"labels": [polygon(EDGE, (0, 0), (1, 1))]}, f"{EDGE}' has 2 points"),
        ({"uid": ""}, "#1: "),
        ({"generator": None}, "#1: "),
        ({"width": 0}, r"#1 \(g/b\): width"),
        ({"height": None}, r"#1 \(g/b\): width"),
        ({"width": 10**6, "height": 10**6}, r"#1 \(g/b\): 1000000x1000000"),
        ({"uid": "a"}, r"g/a: labels\.parquet#0 and labels\.parquet#1"),
    ],
)
def test_bad_rows(place, change, message):
    rows = [row("g", "a", 6, 4), {**row("g", "b", 6, 4), **change}]
    write_labels("labels.parquet", rows)
    fails(message)
    if "labels" in change:
        fails(r"labels\.parquet#1 \(g/b\)")


@pytest.mark.parametrize("column", SCHEMA.names)
def test_missing_column_of_labels(place, column):
    schema = SCHEMA.remove(SCHEMA.get_field_index(column))
    entry = {k: v for k, v in row("g", "a", 6, 4).items() if k != column}
    write_labels("labels.parquet", [entry], schema)
    fails(f"labels.parquet: column '{column}'")


def test_wrong_label_files(place):
    fails("labels.parquet: ")
    Path("labels.parquet").write_text("hello")
    fails("labels.parquet: .*parquet")
    write_labels("labels.parquet", [])
    fails("labels.parquet: no rows")
    entry = row("g", "a", 6, 4)
    schema = SCHEMA.set(2, pa.field("labels", pa.int64()))
    write_labels("labels.parquet", [{**entry, "labels": 3}], schema)
    fails("column 'labels' .* int64")
    write_labels("labels.parquet", [{**entry, "labels": None}])  # annotated as clean
    write_labels("more.parquet", [row("h", "a", 6, 4), entry])
    with pytest.raises(ArtifactNetError, match=r"labels\.parquet#0 and more\.parquet#1"):
        score_pixels(["labels.parquet", "more.parquet"], PixelTask("masks", AGNOSTIC))
    write_labels("labels.parquet", [{**row('g, "1"', "a", 6, 4), "labels": None}])
    score().write("all.csv", "each.csv")
    assert [line["generator"] for line in read_csv("each.csv")] == ['g, "1"']  # quoted, not cut


def test_outputs_that_cannot_be_written(place):
    Path("file").write_text("x")
    for out, each, message in (
        ("masks", None, "masks: is a folder"),
        ("file/x.csv", None, "file is not a folder"),
        ("a.csv", "file/sub/x.csv", "file is not a folder"),
        ("a.csv", "./a.csv", "two files"),
    ):
        with pytest.raises(ArtifactNetError, match=message):
            check_outputs(out, each)
    check_outputs("new/folder/a.csv", "b.csv")
