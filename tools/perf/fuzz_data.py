"""Mutated data files: each is read, or refused with one line, within the time limit.

Files of eight formats are damaged: their bytes (flipped bits, cuts, other encodings, huge lines)
and, behind a sound frame, their values (wrong types, NaN, huge numbers, deep nesting). What reads
them in training, scoring or conversion reads them here.
"""

from __future__ import annotations

import argparse
import csv
import functools
import io
import json
import random
import struct
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from artifactnet.benchmarks.xaigd.instances import read_boxes
from artifactnet.benchmarks.xaigd.labels import read_labels
from artifactnet.config import DataConfig, load
from artifactnet.data.converters.abhuman import convert_abhuman
from artifactnet.data.converters.expl_aigi_eval import convert_expl_aigi_eval
from artifactnet.data.converters.richhf import SCORES, convert_richhf
from artifactnet.data.converters.tfrecord import masked_crc32c
from artifactnet.data.heatmaps import read_heatmap
from artifactnet.data.images import encode_png
from artifactnet.data.masks import rasterize
from artifactnet.data.sources.base import Splits
from artifactnet.data.sources.manifest import build_manifest_splits
from artifactnet.data.sources.xaigd import build_xaigd_splits
from artifactnet.inference.collect import iterate_shard
from artifactnet.inference.inputs import Failure
from artifactnet.models.metadata import FORMAT, read_metadata
from artifactnet.taxonomy import CATEGORIES, INSTANCE_COLUMNS
from artifactnet.types import ArtifactNetError
from perf.fuzz import FuzzCounts, add_fuzz_options, fuzz, print_counts
from perf.harness import check_out, check_setting, machine, write_report

_SIDE = 24  # pixels of the images
_IMAGES = 4
_LONGEST = 1500  # characters of an error
_HUGE = 4_000_000  # characters of a huge line
_DEEP = 100_000  # brackets of a deep nesting

_Random = random.Random


def benchmark_fuzz_data(
    cases: int = 2000, seed: int = 0, limit: float = 20.0, workers: int = 1
) -> dict[str, Any]:
    """Read mutated data files; the report has the counts of `perf.fuzz.fuzz`.

    Args:
        cases: mutated files; the formats take turns.
        seed: of the mutations.
        limit: seconds that reading one file may take.
        workers: processes.

    Raises:
        ArtifactNetError: a setting is below 1.
    """
    setting: dict[str, Any] = {"cases": cases, "workers": workers}
    check_setting(setting)
    counts = fuzz(functools.partial(check, seed), cases, limit, workers)
    setting |= {"seed": seed, "limit": limit, "formats": list(FORMATS)}
    return {"benchmark": "fuzz-data", "setting": setting, "machine": machine(), **counts.to_json()}


def check(seed: int, case: int) -> str | None:
    """Write and read the mutated file of a case; see `perf.fuzz`.

    Raises:
        ArtifactNetError: why the file cannot be used.
        AssertionError: an error is longer than anyone reads.
    """
    rng = random.Random(f"{seed}/{case}")
    name = list(FORMATS)[case % len(FORMATS)]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        try:
            return FORMATS[name](rng, folder)
        except ArtifactNetError as error:
            message = str(error).replace(temporary, "FOLDER")
            if len(message) > _LONGEST:
                raise AssertionError(f"an error of {len(message)} characters") from error
            raise ArtifactNetError(f"{name}: {message}") from error


# --- mutations of bytes and values ---


def mutate_bytes(rng: _Random, data: bytes) -> bytes:
    """Damage a file as disks, downloads, editors and other tools do."""
    if not data:
        return data
    at = rng.randrange(len(data))
    end = min(len(data), at + rng.randrange(1, 200))
    kind = rng.choice(sorted(_BYTES))
    return _BYTES[kind](rng, data, at, end)


def _flip(rng: _Random, data: bytes, _at: int, _end: int) -> bytes:
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 3, 20))):
        out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)
    return bytes(out)


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


_BYTES: dict[str, Callable[[_Random, bytes, int, int], bytes]] = {
    "flip": _flip,
    "flip more": _flip,
    "truncate": lambda _r, data, at, _e: data[:at],
    "truncate at the start": lambda _r, data, at, _e: data[at:],
    "cut out": lambda _r, data, at, end: data[:at] + data[end:],
    "repeat": lambda _r, data, at, end: data[:end] + data[at:],
    "zero": lambda _r, data, at, end: data[:at] + bytes(end - at) + data[end:],
    "noise": lambda rng, data, at, end: data[:at] + rng.randbytes(end - at) + data[end:],
    "insert": lambda rng, data, at, _e: data[:at] + rng.randbytes(20) + data[at:],
    "append": lambda rng, data, _a, _e: data + rng.randbytes(50),
    "twice": lambda _r, data, _a, _e: data + data,
    "empty": lambda _r, _d, _a, _e: b"",
    "blank": lambda _r, _d, _a, _e: b" \n\n",
    "mark": lambda _r, data, _a, _e: b"\xef\xbb\xbf" + data,
    "UTF-16": lambda _r, data, _a, _e: _text(data).encode("utf-16"),
    "UTF-32": lambda _r, data, _a, _e: _text(data).encode("utf-32-le"),
    "Latin-1": lambda _r, data, at, _e: data[:at] + "\xe4\xf6\xdf".encode("latin-1") + data[at:],
    "Windows": lambda _r, data, _a, _e: data.replace(b"\n", b"\r\n"),
    "old Mac": lambda _r, data, _a, _e: data.replace(b"\n", b"\r"),
    "no lines": lambda _r, data, _a, _e: data.replace(b"\n", b" "),
    "null": lambda _r, data, at, _e: data[:at] + b"\0" + data[at:],
    "huge line": lambda rng, data, at, _e: data[:at] + rng.choice((b"x", b" ")) * _HUGE + data[at:],
    "brackets": lambda rng, data, at, _e: data[:at] + rng.choice((b"[", b"{")) * _DEEP + data[at:],
}

_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 7, 0.5, 1.0, 1.5, -0.0, 1e308, 5e-324),
    *(10**400, -(10**25), 2**31, 2**63, 2**64, float("nan"), float("inf"), float("-inf")),
    *("", " ", "0", "1", "real", "fake", "mask", "clean", "test", "nan", "None", "true", "a\nb"),
    *("../../etc/passwd", "/etc/passwd", "/dev/null", ".", "..", "/", "a" * 300, "a" * 100_000),
    *("\0", "a\0b", "\ud800", "\U0001f600", "\u202e", "na\u00efve", "http://a/b.png", "file:///a"),
    *([], {}, [None], [[]], [1, 2], [1, 2, 3, 4], [[1, 2], [3, 4], [5, 6]], {"a": 1}, {"x": [1]}),
    *(["a", 1, None, [2]], [float("nan")] * 4, [1e300] * 4, [-1, -1, 0, 0], [10**400, 0, 1, 1]),
    json.loads("[" * 300 + "]" * 300),
)


def mutate_values(rng: _Random, value: Any) -> Any:
    """Replace, drop, rename, repeat or add one value somewhere in lists and dictionaries."""
    if isinstance(value, dict) and value:
        key = rng.choice(list(value))
        kind = rng.randrange(8)
        if kind == 0:
            return {k: v for k, v in value.items() if k != key}
        if kind == 1:
            return {(k + "_" if k == key else k): v for k, v in value.items()}
        if kind == 2:
            return value | {rng.choice(("extra", "", "a\nb", "points", key.upper())): 1}
        if kind == 3:
            return value | {key: rng.choice(_VALUES)}
        return value | {key: mutate_values(rng, value[key])}
    if isinstance(value, list) and value:
        place = rng.randrange(len(value))
        kind = rng.randrange(8)
        if kind == 0:
            return value[:place] + value[place + 1 :]
        if kind == 1:
            return [*value, value[place]]
        if kind == 2:
            return [*value[:place], rng.choice(_VALUES), *value[place:]]
        changed = mutate_values(rng, value[place])
        return [*value[:place], changed, *value[place + 1 :]]
    return rng.choice(_VALUES)


def mutate_json(rng: _Random, value: Any) -> bytes:
    """JSON of mutated values; sometimes with a key twice or of damaged bytes."""
    for _ in range(rng.choice((0, 1, 1, 1, 2, 5))):
        value = mutate_values(rng, value)
    text = json.dumps(value, ensure_ascii=rng.random() < 0.7)
    if rng.random() < 0.05:
        text = text.replace('{"', '{"label": 0, "', 1)
    return text.encode("utf-8", "surrogatepass")


def _maybe_damage(rng: _Random, data: bytes, share: float = 0.4) -> bytes:
    return mutate_bytes(rng, data) if rng.random() < share else data


# --- formats ---


def _pictures(folder: Path) -> list[Path]:
    """Small images named 0.png, 1.png, ..."""
    folder.mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (_IMAGES, _SIDE, _SIDE, 3), dtype=np.uint8)
    paths = [folder / f"{number}.png" for number in range(_IMAGES)]
    for path, image in zip(paths, pixels, strict=True):
        path.write_bytes(encode_png(image))
    return paths


@functools.lru_cache(maxsize=1)
def _heatmap_png() -> bytes:
    return encode_png(np.tile(np.arange(_SIDE, dtype=np.uint8) * 10, (_SIDE, 1)))


def _load_all(splits: Splits) -> str | None:
    """Load every image; the reason why one cannot be."""
    reason = None
    for source in splits.values():
        for index in range(len(source.records)):
            try:
                source.load(index)
            except ArtifactNetError as error:
                reason = reason or str(error)
    return reason


def _first(*readers: Callable[[], str | None]) -> str | None:
    """Run all readers; the first reason."""
    reasons = []
    for reader in readers:
        try:
            reasons.append(reader())
        except ArtifactNetError as error:
            reasons.append(str(error))
    found = next((reason for reason in reasons if reason is not None), None)
    if found is not None:
        raise ArtifactNetError(found)
    return None


def _rows(images: list[Path]) -> list[dict[str, Any]]:
    square = [[1.0, 1.0], [9.0, 1.0], [9.0, 9.0]]
    return [
        {
            "image": {"bytes": path.read_bytes(), "path": path.name},
            "generator": "g",
            "uid": path.stem,
            "labels": [{"label": CATEGORIES[0].label, "points": square}],
            "width": _SIDE,
            "height": _SIDE,
            "image_format": "JPEG",
            "jpeg_quality": 90,
            "chroma_subsampling": "4:2:0",
        }
        for path in images
    ]


def _parquet(rng: _Random, folder: Path) -> str | None:
    table = pa.Table.from_pylist(_rows(_pictures(folder / "real")))
    for _ in range(rng.choice((0, 1, 1, 2))):
        table = _mutate_table(rng, table)
    path = folder / "labeled_train-00000-of-00001.parquet"
    pq.write_table(
        table,
        path,
        row_group_size=rng.choice((1, 3, 100)),
        compression=rng.choice(("none", "snappy", "zstd")),
        use_dictionary=rng.random() < 0.5,
    )
    path.write_bytes(_maybe_damage(rng, path.read_bytes(), 0.5))
    config = DataConfig(name="xaigd", root=str(folder), on_error=rng.choice(("raise", "skip")))
    config.augment.align_compression = rng.random() < 0.5

    def predict() -> str | None:
        failures = (x for x in iterate_shard(str(path)) if isinstance(x, Failure))
        return next((failure.reason for failure in failures), None)

    def score() -> None:
        for row in read_labels([path]):
            rasterize(row.labels, row.height, row.width, str(row))

    return _first(lambda: _load_all(build_xaigd_splits(config, 0)), score, predict)


def _mutate_table(rng: _Random, table: pa.Table) -> pa.Table:
    """Replace a column by other values or another type, drop it, or write it twice."""
    name = rng.choice(table.column_names)
    index = table.column_names.index(name)
    kind = rng.randrange(10)
    if kind == 0:
        return table.remove_column(index)
    if kind == 1:
        return table.append_column(name, table.column(index))
    if kind == 2:
        return table.set_column(index, name, pa.nulls(table.num_rows))
    if kind == 3:
        return table.slice(0, rng.randrange(table.num_rows + 1))
    values = table.column(index).to_pylist()
    if kind == 4 and name == "labels":
        texts = [mutate_json(rng, value).decode("utf-8", "replace") for value in values]
        return table.set_column(index, name, pa.array(texts))
    if kind == 5 and name == "labels":
        rows = [value or [] for value in values]
        keys = ("label", "points")
        columns = [{key: [label.get(key) for label in row] for key in keys} for row in rows]
        return table.set_column(index, name, pa.array(columns))
    if kind == 6:
        return table.set_column(index, name, pa.array([rng.choice(_VALUES[:5])] * len(values)))
    changed = mutate_values(rng, values)
    changed = (changed if isinstance(changed, list) else [changed]) + [None] * len(values)
    for kept in (changed[: len(values)], [changed[0]] * len(values)):
        try:
            column = pa.array(kept)
            pq.write_table(pa.table({name: column}), io.BytesIO())
            return table.set_column(index, name, column)
        except (pa.ArrowException, OverflowError, UnicodeEncodeError, TypeError):
            continue  # no column can hold these
    return table


def _manifest(rng: _Random, folder: Path) -> str | None:
    images = _pictures(folder / "images")
    (folder / "map.png").write_bytes(_heatmap_png())
    rows: list[dict[str, Any]] = []
    for number, image in enumerate(images):
        row = {"image": f"images/{image.name}", "uid": str(number), "label": number % 2}
        row |= {"annotation": "mask" if number % 2 else "clean", "score": 0.5}
        if number % 2:
            row |= {"heatmap": "map.png", "generator": "sd", "text": "[MAP] and [SCORE]"}
            row |= {"categories": [CATEGORIES[0].label], "split": "train"}
        rows.append(row)
    lines = [json.dumps(row).encode() for row in rows]
    chosen = rng.randrange(len(rows))
    lines[chosen] = mutate_json(rng, rows[chosen])
    path = folder / "data.jsonl"
    path.write_bytes(_maybe_damage(rng, b"\n".join(lines) + b"\n"))
    config = DataConfig(name="manifest", root=str(path), on_error=rng.choice(("raise", "skip")))
    return _load_all(build_manifest_splits(config, 0))


def _expl(rng: _Random, folder: Path) -> str | None:
    images = _pictures(folder / "images")
    (folder / "maps").mkdir()
    turns = [{"from": "human", "value": "?"}, {"from": "gpt", "value": "[MAP] [SCORE]"}]
    rows = []
    for number, image in enumerate(images):
        heatmap = folder / "maps" / image.name
        heatmap.write_bytes(_heatmap_png())
        row = {"id": str(number), "image": image.name, "heatmap": f"maps/{image.name}"}
        rows.append(row | {"score": number / 10, "conversations": turns})
    lines = [json.dumps(row).encode() for row in rows]
    chosen = rng.randrange(len(rows))
    lines[chosen] = mutate_json(rng, rows[chosen])
    path = folder / "data_dev.jsonl"
    path.write_bytes(_maybe_damage(rng, b"\n".join(lines) + b"\n"))
    result = convert_expl_aigi_eval(path, folder / "images", folder / "out")
    config = DataConfig(name="manifest", root=str(result.manifest))
    return _load_all(build_manifest_splits(config, 0))


def _coco(rng: _Random, folder: Path) -> str | None:
    images = _pictures(folder / "images")
    listed = [
        {"id": number, "file_name": image.name, "width": _SIDE, "height": _SIDE}
        for number, image in enumerate(images)
    ]
    boxes = [{"image_id": number, "bbox": [1, 2, 9.5, 8]} for number in range(len(images))]
    path = folder / "boxes.json"
    content = mutate_json(rng, {"images": listed, "annotations": boxes})
    path.write_bytes(_maybe_damage(rng, content))
    result = convert_abhuman(path, folder / "images", folder / "out")
    config = DataConfig(name="manifest", root=str(result.manifest))
    return _load_all(build_manifest_splits(config, 0))


def _csv(rng: _Random, folder: Path) -> str | None:
    box = [*("g", "0", CATEGORIES[0].label), "1", "2", "9", "8.5"]
    rows: list[list[Any]] = [list(INSTANCE_COLUMNS), box, box, box]
    splits: list[list[Any]] = [["uid", "split"], *([str(n), "val"] for n in range(_IMAGES))]
    readers: list[Callable[[], str | None]] = []
    for name, table in (("boxes.csv", rows), ("uid_splits.csv", splits)):
        for _ in range(rng.choice((0, 1, 3))):
            table = mutate_values(rng, table)
        table = table if isinstance(table, list) else [table]
        table = [row if isinstance(row, list) else [row] for row in table]
        text = io.StringIO()
        delimiter = rng.choice(",,,,;\t")
        csv.writer(text, delimiter=delimiter, escapechar="\\").writerows(table)
        content = text.getvalue().encode("utf-8", "surrogatepass")
        if rng.random() < 0.1:
            content = content.replace(b"g", b'"g', 1)
        (folder / name).write_bytes(_maybe_damage(rng, content))
    shard = folder / "labeled_train-00000-of-00001.parquet"
    pq.write_table(pa.Table.from_pylist(_rows(_pictures(folder / "real"))), shard)
    config = DataConfig(name="xaigd", root=str(folder))

    def boxes() -> None:
        read_boxes(folder / "boxes.csv")

    readers = [boxes, lambda: _load_all(build_xaigd_splits(config, 0))]
    return _first(*readers)


def _varint(value: int) -> bytes:
    out = b""
    while value >= 128:
        out += bytes([value % 128 + 128])
        value //= 128
    return out + bytes([value])


def _field(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _tfrecord(rng: _Random, folder: Path) -> str | None:
    images = _pictures(folder / "images")
    records = []
    for number, image in enumerate(images):
        features: dict[str, list[Any]] = {
            "filename": [f"train/{image.name}".encode()],
            "artifact_map": [_heatmap_png()],
            "misalignment_map": [_heatmap_png()],
            "prompt_misalignment_label": [b"0 1"],
            **{name: [number / 10] for name in SCORES},
        }
        if rng.random() < 0.4:
            name = rng.choice(list(features))
            values = (b"", b"\xff\xfe", b"a\0b", b"/", b"..", b"a" * 9999, 0.5, -1.0, float("nan"))
            features[name] = [rng.choice((*values, 3, mutate_bytes(rng, _heatmap_png())))]
        if rng.random() < 0.1:
            features.pop(rng.choice(list(features)))
        data = _example(features)
        records.append(_maybe_damage(rng, data, 0.2))  # behind right checksums
    framed = b""
    for data in records:
        length = struct.pack("<Q", len(data))
        framed += length + struct.pack("<I", masked_crc32c(length))
        framed += data + struct.pack("<I", masked_crc32c(data))
    path = folder / "train.tfrecord"
    path.write_bytes(_maybe_damage(rng, framed, 0.3))
    result = convert_richhf(path, folder / "images", folder / "out")
    config = DataConfig(name="manifest", root=str(result.manifest))
    return _load_all(build_manifest_splits(config, 0))


def _example(features: dict[str, list[Any]]) -> bytes:
    """A serialized tf.train.Example."""
    entries = b""
    for name, values in features.items():
        value = values[0]
        if isinstance(value, bytes):
            content = _field(1, _field(1, value))
        elif isinstance(value, float):
            content = _field(2, _field(1, struct.pack("<f", value)))
        else:
            content = _field(3, _field(1, _varint(value)))
        entries += _field(1, _field(1, name.encode()) + _field(2, content))
    return _field(1, entries)


_RECIPE = """\
base: other.yaml
name: run
model:
  backbone: vit_small_patch14_dinov2
  image_size: [518, 518]
  backbone_kwargs: {a: 1, b: [2, 3]}
data:
  name: folder
  root: images
  val_fraction: 0.1
optim:
  lr: 1e-4
train:
  epochs: 2
"""
_LAUGHS = "&a0 [x, x]" + "".join(f", &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12))
_MERGES = "{" + "}, {<<: [&m0 {a: 1}" + ", *m0" * 50 + "]}"
_YAML = (
    *("null", "true", "-1", "0", "1.5", "1e400", ".nan", "-.inf", "0b", "0x", "0x" + "f" * 5000),
    *("9" * 5000, "1:99:99", "1_000", "2020-01-01", "2020-13-45", "'", '"', "a: b: c", "\t- a"),
    *("[", "{", "*missing", "&a [*a]", "&a {b: *a}", "{? [a]: b}", "{[a]: b}", "{1: 2, 1: 3}"),
    *("!!int abc", "!!float abc", "!!int ''", "!!binary '***'", "!!binary aGk=", "!!set {a, b}"),
    *("!!timestamp x", "!!python/object/apply:os.getcwd []", "!!omap [a: 1]", "!!pairs [a]"),
    *("!!bool 3", "!!null 3", "!!str [a]", "!!map [a]", "!!seq {a: 1}", "!<tag:x> 1", "!x 1"),
    *("${data.root}", "${nowhere}", "${", "${a:b}", "???", "{<<: 3}", "{<<: [1]}", "{<<: *m}"),
    *("'\\0'", '"\\0"', '"\\ud800"', '"\\x00"', "|\n  a\n b", ">-\n\n", "[" * 2000, "{a: " * 2000),
    *(
        "{null: 1}",
        "{true: 1}",
        "{1.5: 1}",
        "{'': 1}",
        "[&x a, *x, *x]",
        "[1, [2, [3]]]",
        "%TAG",
        '"\\UFFFFFFFF"',
    ),
    *(f"[{_LAUGHS}]", _MERGES, "a" * 100_000, "--- a", "...", "@x", "`x", "# c", ", ,", "- - - -"),
    *("[" + "1, " * 20_000 + "1]", "{" + ", ".join(f"k{n}: {n}" for n in range(5000)) + "}"),
)


def _yaml(rng: _Random, folder: Path) -> str | None:
    lines = _RECIPE.splitlines()
    for _ in range(rng.choice((1, 1, 2))):
        place = rng.randrange(len(lines))
        key, _, _ = lines[place].partition(":")
        kind = rng.randrange(6)
        if kind == 0:
            lines.insert(place, lines[rng.randrange(len(lines))])
        elif kind == 1:
            lines.pop(place)
        elif kind == 2:
            lines[place] = f"  {lines[place]}"
        else:
            lines[place] = f"{key}: {rng.choice(_YAML)}"
    path = folder / "recipe.yaml"
    path.write_bytes(_maybe_damage(rng, ("\n".join(lines) + "\n").encode(), 0.3))
    other = rng.choice(("", "name: other\n", "base: recipe.yaml\n", "- 1\n", "train: {epochs: 3}"))
    (folder / "other.yaml").write_text(other)
    value = rng.choice(_YAML)[:2000] if rng.random() < 0.3 else "3"
    load(path, [f"train.epochs={value}"])
    return None


def _npy(rng: _Random, folder: Path) -> str | None:
    values = (
        np.random.default_rng(0)
        .random((_SIDE, _SIDE))
        .astype(
            rng.choice(("f2", "f4", ">f4", "f8", "u1", "i4", "c8", "?", "U3", "M8[s]"))
            if rng.random() < 0.5
            else "f4"
        )
    )
    if values.dtype.kind == "f" and rng.random() < 0.4:
        values[rng.randrange(_SIDE), 0] = rng.choice((np.nan, np.inf, -np.inf, -1, 2, 6e4))
    if rng.random() < 0.2:
        values = values.reshape(rng.choice(((-1,), (1, _SIDE, _SIDE), (_SIDE, _SIDE, 1))))
    content = io.BytesIO()
    np.save(content, values)
    data = content.getvalue()
    if rng.random() < 0.5:
        header = data[10 : 10 + int.from_bytes(data[8:10], "little")].decode().strip()
        for _ in range(rng.choice((1, 2))):
            header = header.replace(*rng.choice(_HEADERS))
        text = header.encode("latin-1", "replace") + b"\n"
        version = rng.choice((1, 1, 1, 2, 3, 9))
        size = struct.pack("<H" if version == 1 else "<I", len(text) % 65536)
        data = b"\x93NUMPY" + bytes([version, 0]) + size + text + values.tobytes()
    path = folder / "map.npy"
    path.write_bytes(_maybe_damage(rng, data))
    read_heatmap(path)
    return None


_HEADERS = (
    *(("(24, 24)", shape) for shape in ("(99999999999, 2)", "(-1, 24)", "(24, 24.0)", "24")),
    *(("(24, 24)", shape) for shape in ("(2**70, 2)", "(0, 5)", "(" * 300, "None", "(True, 576)")),
    *(("(24, 24)", shape) for shape in ("(9223372036854775807, 24)", "('a', 2)", "(24, 24", "()")),
    *(("'<f4'", kind) for kind in ("'|O'", "'<f3'", "[('a', '<f4')]", "'<f4,<i4'", "3", "'|V4'")),
    *(("'<f4'", kind) for kind in ("'<f16'", "'<U1'", "'m8'", "__import__('os')", "''", "'\\0'")),
    *(("False", flag) for flag in ("True", "0", "'a'", "None")),
    *(("'descr'", key) for key in ("'x'", "descr", "1", "'shape'")),
    *(("{", mark) for mark in ("[", "", "{" * 100, "lambda: {", "#")),
)


def _safetensors(rng: _Random, folder: Path) -> str | None:
    from safetensors.numpy import save

    from artifactnet.config import ModelConfig, to_dict

    facts: dict[str, Any] = {"model": to_dict(ModelConfig()), "notices": ["a"], "extra": {"b": 1}}
    if rng.random() < 0.7:
        key = rng.choice(list(facts))
        facts[key] = mutate_values(rng, facts[key])
    texts = {key: _json_text(rng, value) for key, value in facts.items()}
    if rng.random() < 0.1:
        texts.pop(rng.choice(list(texts)))
    data = save({"head.weight": np.zeros((2, 3), np.float32)}, {"format": FORMAT, **texts})
    if rng.random() < 0.4:
        size = int.from_bytes(data[:8], "little")
        header = mutate_json(rng, json.loads(data[8 : 8 + size]))
        data = struct.pack("<Q", len(header)) + header + data[8 + size :]
    path = folder / "model.safetensors"
    path.write_bytes(_maybe_damage(rng, data))
    read_metadata(path)
    return None


def _json_text(rng: _Random, value: Any) -> str:
    """JSON text that is sometimes cut."""
    text = json.dumps(value)
    return text[: rng.randrange(len(text))] if rng.random() < 0.1 else text


FORMATS: dict[str, Callable[[_Random, Path], str | None]] = {
    "parquet": _parquet,
    "manifest": _manifest,
    "YAML": _yaml,
    "TFRecord": _tfrecord,
    "parquet again": _parquet,
    "CSV": _csv,
    "COCO": _coco,
    "Expl-AIGI-Eval": _expl,
    "NPY": _npy,
    "safetensors": _safetensors,
}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    add_fuzz_options(parser, 2000)


def run(args: argparse.Namespace) -> int:
    """Read the files and print what came of them; 1 if a file was neither used nor refused."""
    check_out(args.out)
    report = benchmark_fuzz_data(args.cases, args.seed, args.limit, args.workers)
    counts = FuzzCounts(**{name: report[name] for name in FuzzCounts.__dataclass_fields__})
    print_counts(counts)
    write_report(args.out, report)
    return 0 if counts.clean else 1
