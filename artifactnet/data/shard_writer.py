"""Writing fakes and their real twins in the X-AIGD schema, a row group at a time."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from artifactnet.data.masks import encode_polygons
from artifactnet.taxonomy import Category
from artifactnet.types import UInt8Array

GENERATOR = "edit"
SCHEMA = pa.schema(
    [
        ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        ("generator", pa.string()),
        ("uid", pa.string()),
        (
            "labels",
            pa.list_(
                pa.struct([("label", pa.string()), ("points", pa.list_(pa.list_(pa.float64())))])
            ),
        ),
        ("original_prompt", pa.string()),
        ("positive_prompt", pa.string()),
        ("negative_prompt", pa.string()),
        ("guidance_scale", pa.float64()),
        ("num_inference_steps", pa.int64()),
        ("scheduler", pa.string()),
        ("seed", pa.int64()),
        ("width", pa.int64()),
        ("height", pa.int64()),
        ("image_format", pa.string()),
        ("jpeg_quality", pa.int64()),
        ("chroma_subsampling", pa.string()),
    ]
)

_ROWS_PER_GROUP = 16  # a reader decodes one row group at a time


@dataclass(frozen=True, slots=True)
class Pair:
    """A real image and its edited twin.

    Attributes:
        uid: of both; also the stem of the real image's file.
        real: (H, W, 3) uint8.
        fake: (H, W, 3) uint8.
        mask: (H, W) uint8 bit field of the fake.
        categories: of the edits, in the order of their application.
    """

    uid: str
    real: UInt8Array
    fake: UInt8Array
    mask: UInt8Array
    categories: tuple[Category, ...]


def write_split(folder: Path, split: str, pairs: Iterator[Pair], seed: int) -> list[str]:
    """Write the only shard of ``labeled_<split>``, and the real images.

    Args:
        folder: of the data set; its sub-folders ``data`` and ``real`` exist.
        split: ``train`` or ``test``.
        pairs: taken as they come, 16 in memory at a time.
        seed: written into every row.

    Returns:
        the uids written; without any, no shard is written.
    """
    first = next(pairs, None)
    if first is None:
        return []
    pairs = chain([first], pairs)
    uids: list[str] = []
    shard = folder / "data" / f"labeled_{split}-00000-of-00001.parquet"
    with pq.ParquetWriter(shard, SCHEMA) as writer:
        while group := list(islice(pairs, _ROWS_PER_GROUP)):
            rows = [_row(pair, seed) for pair in group]
            writer.write_table(pa.Table.from_pylist(rows, schema=SCHEMA))
            for pair in group:
                (folder / "real" / f"{pair.uid}.png").write_bytes(_png(pair.real))
            uids += [pair.uid for pair in group]
    return uids


def _row(pair: Pair, seed: int) -> dict[str, Any]:
    """One row in the X-AIGD schema; the columns of a diffusion run hold empty values."""
    height, width = pair.mask.shape
    return {
        "image": {"bytes": _png(pair.fake), "path": f"{pair.uid}.png"},
        "generator": GENERATOR,
        "uid": pair.uid,
        "labels": encode_polygons(pair.mask),
        "original_prompt": "",
        "positive_prompt": "controlled edit: " + ", ".join(c.label for c in pair.categories),
        "negative_prompt": "",
        "guidance_scale": 0.0,
        "num_inference_steps": 0,
        "scheduler": "",
        "seed": seed,
        "width": width,
        "height": height,
        "image_format": "PNG",  # of the real twin, as in X-AIGD
        "jpeg_quality": 0,
        "chroma_subsampling": "",
    }


def _png(image: UInt8Array) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()
