"""Files for tests of the scoring commands: labels as parquet, predictions as PNG and CSV."""

import csv
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

# written out, not imported: the order of rows in the benchmark's tables
CATEGORIES = [
    "low-level-edge_shape",
    "low-level-texture",
    "low-level-color",
    "low-level-symbol",
    "high-level-semantics",
    "cognitive-level-commonsense",
    "cognitive-level-physics",
]
LABELS = pa.list_(pa.struct([("label", pa.string()), ("points", pa.list_(pa.list_(pa.float64())))]))
SCHEMA = pa.schema(
    [
        ("generator", pa.string()),
        ("uid", pa.string()),
        ("labels", LABELS),
        ("width", pa.int64()),
        ("height", pa.int64()),
    ]
)
BOX_HEADER = ["generator", "uid", "category", "x_min", "y_min", "x_max", "y_max"]


def polygon(label, *points):
    return {"label": label, "points": [list(map(float, p)) for p in points]}


def square(label, left, top, side):
    """Covers side x side pixels: the outline belongs to a polygon."""
    right, bottom = left + side - 1, top + side - 1
    return polygon(label, (left, top), (right, top), (right, bottom), (left, bottom))


def row(generator, uid, width, height, *labels):
    values = (generator, uid, list(labels), width, height)
    return dict(zip(SCHEMA.names, values, strict=True))


def write_labels(path, rows, schema=SCHEMA):
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path)
    return str(path)


def write_mask(path, pixels):
    """``pixels`` is True, or above 127, where something is predicted."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    array = np.asarray(pixels)
    Image.fromarray((array * 255).astype(np.uint8) if array.dtype == bool else array).save(path)


def write_boxes(path, rows, header=BOX_HEADER):
    with open(path, "w", newline="") as handle:
        csv.writer(handle).writerows([header, *rows])
    return str(path)


def random_rows(rng, generators=("g1", "g2"), images=3, categories=CATEGORIES):
    """Fractional polygons, some overlapping, some over the edge; some images are clean."""
    rows = []
    for generator in generators:
        for number in range(images):
            width, height = (int(v) for v in rng.integers(20, 60, 2))
            entry = row(generator, f"u{number}", width, height)
            for _ in range(rng.integers(0, 5)):
                category = categories[rng.integers(len(categories))]
                points = rng.uniform(-8, max(width, height) + 8, (rng.integers(3, 7), 2))
                entry["labels"].append(polygon(category, *points))
            rows.append(entry)
    return rows


def read_csv(path):
    with open(path, newline="") as handle:
        return list(csv.DictReader(handle))
