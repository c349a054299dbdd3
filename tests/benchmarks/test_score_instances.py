"""``score-instances``: the table of the benchmark, from files, against full-size masks."""

from pathlib import Path

import metric_reference as reference
import numpy as np
import pytest
from score_files import (
    BOX_HEADER,
    CATEGORIES,
    polygon,
    random_rows,
    row,
    square,
    write_boxes,
    write_labels,
)

from artifactnet.benchmarks.xaigd import instances as module
from artifactnet.benchmarks.xaigd.instances import score_instances
from artifactnet.types import ArtifactNetError

EDGE, TEXTURE = "low-level-edge_shape", "low-level-texture"
COLUMNS = (
    "generator category P@0.5 R@0.5 F1@0.5 TP FP FN evaluated_images zero_prediction_images "
    "invalid_prediction_boxes"
)


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def score(threshold=0.5, workers=1):
    return score_instances(["labels.parquet"], "boxes.csv", threshold, workers)


def line_of(table, category=EDGE):
    (line,) = [line for line in table.overall if line["category"] == category]
    return line


def counts_of(line):
    return line["TP"], line["FP"], line["FN"]


def reference_image(entry, category, boxes, threshold):
    """TP, FP, FN, images, images without a box, invalid boxes."""
    height, width = entry["height"], entry["width"]
    polygons = [p["points"] for p in entry["labels"] if p["label"] == category]
    instances = reference.instances(reference.draw(polygons, height, width))
    regions = [reference.box_region(box, height, width) for box in boxes]
    *counts, invalid = reference.counts(*reference.match(instances, regions, threshold))
    return *counts, 1, int(not boxes), invalid


def reference_tables(rows, boxes, threshold=0.5):
    tables = []
    for group in ["all", *sorted({r["generator"] for r in rows})]:
        for category in CATEGORIES:
            counts = [
                reference_image(
                    entry,
                    category,
                    [b[3:] for b in boxes if b[:3] == (entry["generator"], entry["uid"], category)],
                    threshold,
                )
                for entry in rows
                if group in ("all", entry["generator"])
            ]
            tp, fp, fn, images, empty, invalid = map(sum, zip(*counts, strict=True))
            scores = reference.ratios(tp, fp, fn)
            tables.append([group, category, *scores, tp, fp, fn, images, empty, invalid])
    return tables[: len(CATEGORIES)], tables[len(CATEGORIES) :]


def assert_equal(ours, expected):
    assert len(ours) == len(expected)
    for line, right in zip(ours, expected, strict=True):
        values = list(line.values())
        assert values[:2] == right[:2]
        assert values[2:5] == pytest.approx(right[2:5], abs=1e-12)
        assert values[5:] == right[5:]


def random_boxes(rng, rows, number=60):
    """Some on the artifacts, some anywhere, some invalid."""
    boxes = []
    for _ in range(number):
        entry = rows[rng.integers(len(rows))]
        category = CATEGORIES[rng.integers(len(CATEGORIES))]
        low = rng.uniform(-1, 40, 2)
        if entry["labels"] and rng.random() < 0.7:
            label = entry["labels"][rng.integers(len(entry["labels"]))]
            category = label["label"]
            low = np.mean(label["points"], axis=0) - rng.uniform(0, 4, 2)
        high = low + rng.uniform(-0.5, 9, 2)
        boxes.append((entry["generator"], entry["uid"], category, *low.tolist(), *high.tolist()))
    return boxes


def test_worked_by_hand():
    """Two squares 2 apart are one instance; one far away is another.

    Of four boxes one lies on the first, one on nothing, one is outside the image, and one
    covers exactly half: not more than half.
    """
    near = [square(EDGE, 0, 0, 4), square(EDGE, 6, 0, 4)]
    write_labels("labels.parquet", [row("g", "a", 30, 20, *near, square(EDGE, 20, 10, 4))])
    boxes = [(0, 0, 2, 2), (12, 12, 15, 15), (28, 18, 31, 19), (20, 12, 24, 16)]
    write_boxes("boxes.csv", [("g", "a", EDGE, *box) for box in boxes])
    table = score()
    assert list(table.overall[0]) == COLUMNS.split()
    assert list(line_of(table).values()) == [
        "all", EDGE, 1 / 4, 1 / 2, 1 / 3, 1, 3, 1, 1, 0, 1,
    ]  # fmt: skip
    assert line_of(table, TEXTURE)["zero_prediction_images"] == 1
    assert [line["category"] for line in table.overall] == CATEGORIES


@pytest.mark.parametrize("seed", range(8))
def test_equals_the_reference(seed):
    rng = np.random.default_rng(seed)
    few = CATEGORIES[: 1 + seed % 3]  # polygons of one category meet more often
    rows = random_rows(rng, images=4, categories=few)
    boxes = random_boxes(rng, rows)
    write_labels("labels.parquet", rows)
    write_boxes("boxes.csv", boxes)
    threshold = float(rng.choice([0.0, 0.25, 0.5, 0.75]))
    table = score(threshold)
    overall, per_generator = reference_tables(rows, boxes, threshold)
    assert_equal(table.overall, overall)
    assert_equal(table.per_generator, per_generator)
    assert sum(line["TP"] for line in table.overall) > 0
    assert sum(line["invalid_prediction_boxes"] for line in table.overall) > 0


def test_the_threshold_names_the_columns():
    write_labels("labels.parquet", [row("g", "a", 5, 5, square(EDGE, 0, 0, 4))])
    write_boxes("boxes.csv", [])
    assert list(score(0.75).overall[0])[2:5] == ["P@0.75", "R@0.75", "F1@0.75"]
    assert list(score(0.0).overall[0])[2:5] == ["P@0", "R@0", "F1@0"]
    assert counts_of(line_of(score())) == (0, 0, 1)  # no boxes at all
    for threshold in (-0.1, 1.5, float("nan")):
        fails("overlap threshold", threshold=threshold)


@pytest.mark.slow
def test_several_processes_equal_one(monkeypatch):
    monkeypatch.setattr(module, "MIN_IMAGES", 1)
    rng = np.random.default_rng(4)
    rows = random_rows(rng, images=6)
    write_labels("labels.parquet", rows)
    write_boxes("boxes.csv", random_boxes(rng, rows))
    assert score(workers=2) == score()


def test_columns_may_come_in_any_order_and_with_others():
    write_labels("labels.parquet", [row("g", "a", 10, 10, square(EDGE, 0, 0, 4))])
    header = ["score", *reversed(BOX_HEADER)]
    write_boxes("boxes.csv", [(0.9, 4, 4, 0, 0, EDGE, "a", "g")], header)
    assert counts_of(line_of(score())) == (1, 0, 0)
    text = Path("boxes.csv").read_text()
    Path("boxes.csv").write_text(text.replace("score,", "").replace("0.9,", ""), "utf-8-sig")
    assert counts_of(line_of(score())) == (1, 0, 0)  # as saved by a spreadsheet


GOOD = ("g", "a", EDGE, 0, 0, 3, 3)


def fails(match, **options):
    with pytest.raises(ArtifactNetError, match=match) as info:
        score(**options)
    assert "\n" not in str(info.value)


@pytest.fixture
def labels():
    write_labels("labels.parquet", [row("g", "a", 10, 10, square(EDGE, 0, 0, 4))])


@pytest.mark.parametrize("column", BOX_HEADER)
def test_missing_column(labels, column):
    keep = [k for k, name in enumerate(BOX_HEADER) if name != column]
    write_boxes("boxes.csv", [[GOOD[k] for k in keep]], [BOX_HEADER[k] for k in keep])
    fails(rf"boxes\.csv: column '{column}'")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        *((("g", "a", EDGE, 0, 0, word, 3), f"x_max .*'{word}'") for word in ("left", "", "nan")),
        (("g", "a", EDGE, 0, 0, "1,5", 3), "x_max .*'1,5'"),
        (("g", "a", "low-level-smell", 0, 0, 3, 3), ".*'low-level-smell'"),
        (GOOD[:-1], ""),
        ((*GOOD, 7), ""),
    ],
)
def test_bad_rows(labels, values, message):
    write_boxes("boxes.csv", [GOOD, GOOD, values])
    fails(rf"boxes\.csv: row 4: {message}")


def test_a_file_that_is_none(labels):
    fails(r"boxes\.csv: ")
    Path("boxes.csv").write_bytes(b"")
    fails("column 'generator'")
    Path("boxes.csv").write_bytes(b"\xff\xfe\x00\x01")
    fails(r"boxes\.csv: .*CSV")


def test_boxes_for_other_images(labels):
    write_boxes("boxes.csv", [GOOD, ("g", "b", EDGE, 0, 0, 3, 3)])
    (warning,) = score().warnings
    assert warning.startswith("boxes.csv: row 3: ")
    write_boxes("boxes.csv", [("G", "a", EDGE, 0, 0, 3, 3)])
    fails(r"boxes\.csv: row 2: ")


@pytest.mark.parametrize(
    ("label", "message"),
    [
        (polygon("low-level-smell", (0, 0), (1, 0), (1, 1)), "low-level-smell"),
        (polygon(EDGE, (0, 0), (1, 1)), f"{EDGE}' has 2 points"),
        ({"label": EDGE, "points": None}, f"{EDGE}' has 0 points"),
    ],
)
def test_bad_polygons(label, message):
    write_labels("labels.parquet", [row("g", "a", 10, 10), row("g", "b", 10, 10, label)])
    write_boxes("boxes.csv", [GOOD])
    fails(message)
    fails(r"labels\.parquet#1 \(g/b\)")
