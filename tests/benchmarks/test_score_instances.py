"""``score-instances``: the table of the benchmark, from files, against full-size masks."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from score_files import (
    BOX_HEADER,
    CATEGORIES,
    polygon,
    random_rows,
    read_csv,
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


# --- the rules, written again: one full-size mask per instance and per box -----------------


def reference_image(entry, category, boxes, threshold):
    """TP, FP, FN, images, images without a box, invalid boxes."""
    height, width = entry["height"], entry["width"]
    union = np.zeros((height, width), np.uint8)
    for label in entry["labels"]:
        if label["label"] == category:
            points = np.array(label["points"], dtype=np.int32)
            points[:, 0] = np.clip(points[:, 0], 0, width - 1)
            points[:, 1] = np.clip(points[:, 1], 0, height - 1)
            cv2.fillPoly(union, [points], 255)
    count, components = cv2.connectedComponents(
        cv2.dilate(union, cv2.getStructuringElement(cv2.MORPH_RECT, (5, 5))), connectivity=8
    )
    instances = [(components == k) & (union > 0) for k in range(1, count)]
    hit_boxes, hit_instances, invalid = set(), set(), 0
    for i, (x_min, y_min, x_max, y_max) in enumerate(boxes):
        mask = np.zeros((height, width), bool)
        if 0 <= x_min < x_max <= width and 0 <= y_min < y_max <= height:
            mask[int(y_min) : int(y_max), int(x_min) : int(x_max)] = True
        if not mask.any():
            invalid += 1
            continue
        for k, instance in enumerate(instances):
            if (mask & instance).sum() / mask.sum() > threshold:
                hit_boxes.add(i)
                hit_instances.add(k)
    tp = len(hit_instances)
    return tp, len(boxes) - len(hit_boxes), len(instances) - tp, 1, int(not boxes), invalid


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
            p, r = tp / max(1, tp + fp), tp / max(1, tp + fn)
            ratios = [p, r, 2 * p * r / (p + r) if p + r else 0.0]
            tables.append([group, category, *ratios, tp, fp, fn, images, empty, invalid])
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


# --- equal numbers ------------------------------------------------------------------------


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


def test_one_box_may_match_several_instances_and_the_other_way_round():
    strips = [square(EDGE, 0, 0, 4), square(EDGE, 10, 0, 4)]
    write_labels("labels.parquet", [row("g", "a", 20, 4, *strips)])
    write_boxes("boxes.csv", [("g", "a", EDGE, 0, 0, 14, 4), ("g", "a", EDGE, 0, 0, 2, 2)])
    assert counts_of(line_of(score(0.2))) == (2, 0, 0)


def test_the_threshold_names_the_columns():
    write_labels("labels.parquet", [row("g", "a", 5, 5)])
    write_boxes("boxes.csv", [])
    assert list(score(0.75).overall[0])[2:5] == ["P@0.75", "R@0.75", "F1@0.75"]
    assert list(score(0.0).overall[0])[2:5] == ["P@0", "R@0", "F1@0"]


@pytest.mark.parametrize(
    "box",
    [
        (-0.5, 0, 3, 3),
        (0, 0, 10.5, 3),
        (3, 0, 3, 3),
        (0, 5, 3, 2),
        (0.2, 0, 0.8, 3),
        (50, 50, 60, 60),
    ],
)
@pytest.mark.parametrize("labels", [[], [square(EDGE, 0, 0, 4)]])
def test_invalid_boxes_count_once_and_as_wrong(box, labels):
    """Also where the image has no instance of the category."""
    write_labels("labels.parquet", [row("g", "a", 10, 10, *labels)])
    write_boxes("boxes.csv", [("g", "a", EDGE, *box)])
    line = line_of(score())
    assert counts_of(line) == (0, 1, len(labels))
    assert (line["invalid_prediction_boxes"], line["zero_prediction_images"]) == (1, 0)


def test_boxes_are_cut_to_integers():
    """[0.9, 3.9) is [0, 3): three pixels wide, two of them on the artifact."""
    write_labels("labels.parquet", [row("g", "a", 10, 10, square(EDGE, 1, 0, 4))])
    write_boxes("boxes.csv", [("g", "a", EDGE, 0.9, 0, 3.9, 1)])
    assert counts_of(line_of(score(0.6))) == (1, 0, 0)
    assert counts_of(line_of(score(0.67))) == (0, 1, 1)


def test_generators_sum_up_to_all():
    rng = np.random.default_rng(3)
    rows = random_rows(rng, generators=("z", "b", "m"))
    write_labels("labels.parquet", rows)
    write_boxes("boxes.csv", random_boxes(rng, rows))
    table = score()
    assert [line["generator"] for line in table.per_generator[::7]] == ["b", "m", "z"]
    for line in table.overall:
        parts = [p for p in table.per_generator if p["category"] == line["category"]]
        for key in COLUMNS.split()[5:]:
            assert line[key] == sum(part[key] for part in parts)


@pytest.mark.slow
def test_several_processes_equal_one(monkeypatch):
    monkeypatch.setattr(module, "MIN_IMAGES", 1)
    rng = np.random.default_rng(4)
    rows = random_rows(rng, images=6)
    write_labels("labels.parquet", rows)
    write_boxes("boxes.csv", random_boxes(rng, rows))
    assert score(workers=2) == score()


def test_written_tables():
    rng = np.random.default_rng(5)
    rows = random_rows(rng)
    write_labels("labels.parquet", rows)
    write_boxes("boxes.csv", random_boxes(rng, rows))
    table = score()
    table.write("all.csv", "each.csv")
    for path, lines in (("all.csv", table.overall), ("each.csv", table.per_generator)):
        assert read_csv(path) == [{k: str(v) for k, v in line.items()} for line in lines]
    assert Path("all.csv").read_text().splitlines()[0] == COLUMNS.replace(" ", ",")


def test_columns_may_come_in_any_order_and_with_others():
    write_labels("labels.parquet", [row("g", "a", 10, 10, square(EDGE, 0, 0, 4))])
    header = ["score", *reversed(BOX_HEADER)]
    write_boxes("boxes.csv", [(0.9, 4, 4, 0, 0, EDGE, "a", "g")], header)
    assert counts_of(line_of(score())) == (1, 0, 0)
    text = Path("boxes.csv").read_text()
    Path("boxes.csv").write_text(text.replace("score,", "").replace("0.9,", ""), "utf-8-sig")
    assert counts_of(line_of(score())) == (1, 0, 0)  # as saved by a spreadsheet


# --- bad input ----------------------------------------------------------------------------


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


@pytest.mark.parametrize("word", ["left", "", "nan", "inf", "1,5"])
def test_a_word_where_a_number_belongs(labels, word):
    write_boxes("boxes.csv", [GOOD, GOOD, ("g", "a", EDGE, 0, 0, word, 3)])
    fails(rf"boxes\.csv: row 4: x_max .*'{word}'")


def test_unknown_category(labels):
    write_boxes("boxes.csv", [GOOD, ("g", "a", "low-level-smell", 0, 0, 3, 3)])
    fails(r"boxes\.csv: row 3: .*'low-level-smell'")


@pytest.mark.parametrize("values", [GOOD[:-1], (*GOOD, 7)])
def test_too_few_or_too_many_values(labels, values):
    write_boxes("boxes.csv", [GOOD, values])
    fails(r"boxes\.csv: row 3: ")


def test_a_file_that_is_none(labels):
    fails(r"boxes\.csv: ")
    Path("boxes.csv").write_bytes(b"")
    fails("column 'generator'")
    Path("boxes.csv").write_bytes(b"\xff\xfe\x00\x01")
    fails(r"boxes\.csv: .*CSV")


@pytest.mark.parametrize("threshold", [-0.1, 1.5, float("nan")])
def test_threshold_out_of_range(labels, threshold):
    write_boxes("boxes.csv", [GOOD])
    fails("overlap threshold", threshold=threshold)


def test_boxes_for_other_images(labels):
    write_boxes("boxes.csv", [GOOD, ("g", "b", EDGE, 0, 0, 3, 3)])
    (warning,) = score().warnings
    assert warning.startswith("boxes.csv: row 3: ")
    write_boxes("boxes.csv", [("G", "a", EDGE, 0, 0, 3, 3)])
    fails(r"boxes\.csv: row 2: ")


def test_no_boxes_at_all(labels):
    write_boxes("boxes.csv", [])
    assert counts_of(line_of(score())) == (0, 0, 1)


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


def test_two_rows_of_an_image():
    write_labels("labels.parquet", [row("g", "a", 10, 10)] * 2)
    write_boxes("boxes.csv", [GOOD])
    fails("g/a")
