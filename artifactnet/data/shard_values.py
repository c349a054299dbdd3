"""Values of X-AIGD's columns in the forms that parquet writers store them.

HF datasets writes a sequence of structs as a struct of lists, pandas an integer column with gaps
as floats, others polygons as JSON text. `check_column` looks at the type of a column; the other
functions bring one value into the form of X-AIGD.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import pyarrow as pa

from artifactnet.data.text import brief, parse_json
from artifactnet.types import ArtifactNetError

_NAMES = ("generator", "uid")
_IMAGES = ("image", "image1", "image2", "image_data")  # the last three of other data sets
_NUMBERS = ("width", "height", "jpeg_quality")
_LABELS = (
    "a list of structs with 'label' and 'points', a struct of such lists, or JSON text of either"
)
_EXPECTED = {
    **dict.fromkeys(_IMAGES, "a struct with 'bytes', or the bytes of an image file"),
    "labels": _LABELS,
    **dict.fromkeys(_NAMES, "text or whole numbers"),
    **dict.fromkeys(_NUMBERS, "whole numbers"),
}
_EXACT = {pa.float16(): 2**11, pa.float32(): 2**24, pa.float64(): 2**53}


def check_column(path: object, field: pa.Field) -> None:
    """Refuse a column of X-AIGD, or of images, whose type cannot hold its values.

    Raises:
        ArtifactNetError: names the file, the column, its type and what is expected.
    """
    kind = _stored(field.type)
    if pa.types.is_null(kind) or field.name not in _EXPECTED:
        return
    if field.name in _IMAGES:
        good = _is_binary(kind) or is_image_struct(kind)
    elif field.name == "labels":
        good = _is_text(kind) or _has_polygons(kind) or _holds_polygons(kind)
    else:
        good = _is_number(kind) or (field.name in _NAMES and _is_text(kind))
    if not good:
        raise ArtifactNetError(
            f"{path}: column {field.name!r} must be {_EXPECTED[field.name]}, not {kind!s:.200}"
        )


def is_image_struct(kind: pa.DataType) -> bool:
    """Whether an image column is a struct with binary ``bytes``, as HF datasets stores images."""
    if not pa.types.is_struct(kind):
        return False
    index = kind.get_field_index("bytes")
    return index >= 0 and (_is_binary(kind[index].type) or pa.types.is_null(kind[index].type))


def largest_exact(kind: pa.DataType) -> int | None:
    """Up to which number a column of floats tells all whole numbers apart; None for others."""
    return _EXACT.get(kind)


def to_name(value: Any, exact: int | None = None) -> Any:
    """Text of a generator or uid: text as it is, a whole number in digits, NaN as None.

    What is neither is returned unchanged, for `check_names` to refuse. A float above ``exact``
    (see `largest_exact`) could be another number's neighbour, so it is no name.
    """
    if isinstance(value, str):
        return value
    if value is None or value != value:  # NaN is the null of pandas
        return None
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return value
    if isinstance(value, float) and exact is not None and abs(value) > exact:
        return value
    number = to_whole(value)
    if isinstance(number, int) and not isinstance(number, bool):
        return str(number)
    return str(value) if isinstance(value, uuid.UUID) else value


def to_whole(value: Any) -> Any:
    """A whole number as int, whatever type it has; anything else unchanged."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**63:
        return int(value)
    if isinstance(value, Decimal) and value.is_finite() and value == value.to_integral_value():
        return int(value)
    return value


def check_names(row: Mapping[str, Any], place: object) -> None:
    """Refuse a row without usable generator or uid, as `to_name` left them.

    Raises:
        ArtifactNetError: one is empty, or neither text nor a whole number.
    """
    for name in _NAMES:
        value = row[name]
        if value is None or value == "":
            raise ArtifactNetError(f"{place}: {name} is empty")
        if not isinstance(value, str) or "\0" in value:
            raise ArtifactNetError(
                f"{place}: {name} must be text or a whole number, not {brief(value)}"
            )


def parse_labels(value: Any, where: str) -> list[dict[str, Any]]:
    """Polygons of a row, each ``{"label": str, "points": [[x, y], ...]}``.

    Accepts a list of structs, a struct of lists, JSON text of either, or null (no polygon); points
    as pairs, as structs with ``x`` and ``y``, as a struct of two such lists, or as flat
    ``[x, y, x, y, ...]``. What points hold is left to `artifactnet.data.masks.parse_label`.

    Raises:
        ArtifactNetError: it has another form; ``where`` names the row.
    """
    value = _from_text(value, where)
    if isinstance(value, dict):
        value = _listed(value, where)
    if value is None:
        return []
    if not isinstance(value, list):
        raise ArtifactNetError(f"{where}: labels must be {_LABELS}, not {brief(value)}")
    return [_polygon(item, f"{where}: polygon {number}") for number, item in enumerate(value)]


def _listed(value: dict[str, Any], where: str) -> list[Any]:
    """Polygons of a struct of lists; a struct of one polygon stands for itself."""
    if not {"label", "points"} <= value.keys():
        raise ArtifactNetError(
            f"{where}: labels must have 'label' and 'points', not {brief(list(value))}"
        )
    if isinstance(value["label"], str | bytes):
        return [value]
    columns = [_from_text(value[key], where) for key in ("label", "points")]
    names, points = ([] if column is None else column for column in columns)
    if not isinstance(names, list) or not isinstance(points, list):
        raise ArtifactNetError(f"{where}: 'label' and 'points' of labels must be lists")
    if len(names) != len(points):
        raise ArtifactNetError(
            f"{where}: labels hold {len(names)} categories, but {len(points)} polygons"
        )
    return [{"label": a, "points": b} for a, b in zip(names, points, strict=True)]


def _polygon(item: Any, where: str) -> dict[str, Any]:
    item = _from_text(item, where)
    if not isinstance(item, dict) or not {"label", "points"} <= item.keys():
        raise ArtifactNetError(f"{where} must have 'label' and 'points', not {brief(item)}")
    name = item["label"]
    if isinstance(name, bytes):
        name = name.decode(errors="replace")  # the category is unknown then
    if not isinstance(name, str):
        raise ArtifactNetError(f"{where}: 'label' must be text, not {brief(name)}")
    return {"label": name, "points": _points(item["points"], where)}


def _points(value: Any, where: str) -> list[Any]:
    value = _from_text(value, where)
    if value is None:
        return []
    if isinstance(value, dict) and isinstance(value.get("x"), list):
        xs, ys = value["x"], value.get("y")
        if isinstance(ys, list) and len(xs) == len(ys):
            return [[x, y] for x, y in zip(xs, ys, strict=True)]
    elif isinstance(value, list):
        if value and isinstance(value[0], dict):
            if all(isinstance(point, dict) and {"x", "y"} <= point.keys() for point in value):
                return [[point["x"], point["y"]] for point in value]
        elif value and len(value) % 2 == 0 and all(isinstance(v, int | float) for v in value):
            return [list(pair) for pair in zip(value[::2], value[1::2], strict=True)]
        else:
            return value
    raise ArtifactNetError(f"{where}: 'points' must be [x, y] pairs, not {brief(value)}")


def _from_text(value: Any, where: str) -> Any:
    """What JSON text says; empty text is null, and other values stay."""
    if not isinstance(value, str | bytes):
        return value
    return parse_json(value, f"{where}: labels") if value.strip() else None


def _stored(kind: pa.DataType) -> pa.DataType:
    """Type of the values of a dictionary-encoded or extension type."""
    while True:
        if pa.types.is_dictionary(kind):
            kind = kind.value_type
        elif isinstance(kind, pa.BaseExtensionType):
            kind = kind.storage_type
        else:
            return kind


def _is_number(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)


def _is_binary(kind: pa.DataType) -> bool:
    kind = _stored(kind)
    binary = pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
    return binary or pa.types.is_binary_view(kind) or pa.types.is_fixed_size_binary(kind)


def _is_text(kind: pa.DataType) -> bool:
    kind = _stored(kind)
    text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    return text or pa.types.is_string_view(kind) or _is_binary(kind)


def _has_polygons(kind: pa.DataType) -> bool:
    """Whether a struct has the fields of a polygon."""
    return pa.types.is_struct(kind) and all(
        kind.get_field_index(name) >= 0 for name in ("label", "points")
    )


def _holds_polygons(kind: pa.DataType) -> bool:
    """Whether a list holds polygons, JSON text, or nothing at all."""
    lists = (
        pa.types.is_list,
        pa.types.is_large_list,
        pa.types.is_fixed_size_list,
        pa.types.is_list_view,
        pa.types.is_large_list_view,
    )
    if not any(is_list(kind) for is_list in lists):
        return False
    item = _stored(kind.value_type)
    return pa.types.is_null(item) or _is_text(item) or _has_polygons(item)
